//! The inputs that fuzzing kept (`fuzz/corpus`), each run through its target again.

#[path = "../../../../fuzz/src/targets.rs"]
mod targets;

use std::path::PathBuf;

fn replay(name: &str, target: fn(&[u8])) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../fuzz/corpus")
        .join(name);
    let mut inputs = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        // The path is printed where the target panics.
        println!("{}", path.display());
        target(&bytes);
        inputs += 1;
    }
    assert!(inputs > 0, "no input in {}", folder.display());
}

#[test]
fn images() {
    replay("decode_image", targets::decode_image);
}

#[test]
fn idx() {
    replay("idx", targets::idx);
}

#[test]
fn cifar_binary() {
    replay("cifar_binary", targets::cifar_binary);
}

#[test]
fn archives() {
    replay("archive", targets::archive);
}
