//! Small data sets on the disk, and the binary.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use image::{Rgb, RgbImage};

/// Writes `train/<class>/*.png` and `test/<class>/*.png`: `classes` classes of different brightness.
pub(crate) fn write(root: &Path, classes: usize, train: usize, test: usize) {
    write_sized(root, classes, (train, test), (32, 32));
}

/// The same, `width` x `height` pixels large.
pub(crate) fn write_sized(root: &Path, classes: usize, (train, test): (usize, usize), (width, height): (u32, u32)) {
    for (split, count) in [("train", train), ("test", test)] {
        for class in 0..classes {
            let folder = root.join(split).join(format!("class{class}"));
            std::fs::create_dir_all(&folder).unwrap();
            for i in 0..count {
                let picture = RgbImage::from_fn(width, height, |x, y| {
                    let noise = (x * 7 + y * 13 + i as u32 * 29) % 40;
                    Rgb([(class as u32 * 80 + noise) as u8, noise as u8, 128])
                });
                picture.save(folder.join(format!("{i}.png"))).unwrap();
            }
        }
    }
}

/// `kestrel` in a folder, to be run.
pub(crate) fn command(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kestrel"));
    command.args(args).current_dir(folder).env_remove("RUST_LOG");
    command
}

/// Two classes, and a run `a` that was trained on them for an epoch.
pub(crate) fn trained() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("pictures"), 2, 12, 6);
    let args = [
        "train", "--data", "pictures", "--name", "a", "--width", "2", "--epochs", "2",
    ];
    succeed(
        dir.path(),
        &[&args[..], &["--batch-size", "8", "--lr", "0.01"]].concat(),
    );
    dir
}

/// Runs `kestrel` in a folder.
pub(crate) fn kestrel(folder: &Path, args: &[&str]) -> Output {
    command(folder, args).output().unwrap()
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Runs `kestrel`, which must succeed.
pub(crate) fn succeed(folder: &Path, args: &[&str]) -> Output {
    let output = kestrel(folder, args);
    assert!(
        output.status.success(),
        "{args:?}: {}\n{}",
        output.status,
        stderr(&output)
    );
    output
}

/// The newest checkpoint of a run's folder.
pub(crate) fn newest(run: &Path) -> PathBuf {
    let files = std::fs::read_dir(run.join("checkpoints")).unwrap();
    let files = files.map(|entry| entry.unwrap().path());
    files
        .filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("step-"))
        .max()
        .unwrap()
}
