//! `kestrel data inspect` as a person reads it.

use std::fs;

use crate::pictures::{stderr, stdout, succeed, write};

#[test]
fn what_is_no_sample_is_listed_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("pictures");
    write(&root, 2, 2, 1);
    fs::copy(root.join("train/class0/0.png"), root.join("train/loose.png")).unwrap();
    for number in 0..30 {
        fs::write(root.join(format!("test/class1/{number:02}.txt")), "a caption").unwrap();
    }
    let args = ["data", "inspect", "pictures"];
    let output = succeed(dir.path(), &args);
    let text = stdout(&output);
    for line in [
        "\nLeft out: 31\n",
        "\n  pictures/train/loose.png is an image beside the class folders, so of no class\n",
        "\n  pictures/test/class1/19.txt is no image\n  and 10 others; --format json lists them all\n",
    ] {
        assert!(text.contains(line), "{line:?} in\n{text}");
    }
    let said = stderr(&output);
    assert!(
        said.contains(
            "pictures/train: left out loose.png, which is an image beside the class folders, so of no class\n"
        ),
        "{said}"
    );
    let json = stdout(&succeed(dir.path(), &[&args[..], &["--format", "json"]].concat()));
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["skipped"].as_array().unwrap().len(), 31);
    assert_eq!(json["skipped"][30]["path"], "pictures/train/loose.png");
}
