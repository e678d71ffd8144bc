//! `docs/guide.md`: its commands are run, in their order, and its files are what they read.

use std::fs;
use std::path::Path;

use crate::pictures::{succeed, write};
use crate::transfer;

/// A fenced block: what stands after the fence, and the text.
struct Block {
    language: String,
    info: String,
    text: String,
}

fn blocks(markdown: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for line in markdown.lines() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(info), None) => {
                let (language, info) = info.split_once(' ').unwrap_or((info, ""));
                open = Some(Block {
                    language: language.to_owned(),
                    info: info.to_owned(),
                    text: String::new(),
                });
            }
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (None, Some(block)) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a fence is not closed");
    blocks
}

#[test]
fn the_commands_of_the_guide_work() {
    let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/guide.md");
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("pictures"), 2, 8, 2);
    transfer::resnet18(dir.path());
    let (mut run, mut not_run) = (0, Vec::new());
    for block in blocks(&fs::read_to_string(guide).unwrap()) {
        match (block.language.as_str(), block.info.as_str()) {
            ("toml", name) => fs::write(dir.path().join(name), block.text).unwrap(),
            ("sh", "") => {
                for line in block.text.lines() {
                    let words: Vec<&str> = line.split_whitespace().collect();
                    assert_eq!(words[0], "kestrel", "{line}");
                    succeed(dir.path(), &words[1..]);
                    run += 1;
                }
            }
            ("sh", reason) => not_run.push(reason.to_owned()),
            ("text" | "rust", _) => {}
            (other, _) => panic!("a block of {other}"),
        }
    }
    assert!(run >= 14, "{run}");
    let reasons = ["minutes", "installs", "network", "serves", "builds"].map(|reason| format!("not run: {reason}"));
    assert_eq!(not_run, reasons);
    for left in ["grid.png", "lr.png", "head.onnx", "runs/two-stages/best.safetensors"] {
        assert!(dir.path().join(left).is_file(), "{left}");
    }
}
