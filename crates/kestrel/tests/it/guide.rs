//! `docs/guide.md`: its commands are run, in their order, and its files are what they read.

use std::fs;
use std::path::Path;

use kestrel_data::transforms::{Compose, TransformSpec};

use crate::pictures::{kestrel, stderr, succeed, write};
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

fn guide() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/guide.md")).unwrap()
}

#[test]
fn the_commands_of_the_guide_work() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("pictures"), 2, 8, 2);
    transfer::resnet18(dir.path());
    let (mut run, mut not_run) = (0, Vec::new());
    for block in blocks(&guide()) {
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
    assert!(run >= 16, "{run}");
    let reasons = ["minutes", "installs", "network", "serves", "builds"].map(|reason| format!("not run: {reason}"));
    assert_eq!(not_run, reasons);
    for left in [
        "grid.png",
        "lr.png",
        "head.onnx",
        "runs/comparison.html",
        "runs/two-stages/best.safetensors",
    ] {
        assert!(dir.path().join(left).is_file(), "{left}");
    }
}

/// A row of the guide's table of transforms: the name, and its fields, with a default where they have one.
struct Row {
    name: String,
    fields: Vec<(String, Option<String>)>,
}

impl Row {
    /// The transform with these fields, each as `name = value`.
    fn spec(&self, fields: &[String]) -> Result<TransformSpec, toml::de::Error> {
        let name = format!("name = {:?}", self.name);
        toml::from_str(&[&[name], fields].concat().join("\n"))
    }

    /// The fields that have no default, with values that they may have.
    fn given(&self) -> Vec<String> {
        let bare = self.fields.iter().filter(|(_, default)| default.is_none());
        bare.map(|(field, _)| match field.as_str() {
            "size" => "size = 8".to_owned(),
            "mean" | "std" => format!("{field} = [0.5, 0.5, 0.5]"),
            "transforms" => "transforms = [{ name = \"MixUp\" }]".to_owned(),
            _ => format!("{field} = 0.25"),
        })
        .collect()
    }
}

fn in_backticks(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The table in `docs/guide.md`.
fn transforms() -> Vec<Row> {
    let guide = guide();
    let (_, table) = guide.split_once("| transform |").unwrap();
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    rows.map(|line| {
        let cells: Vec<&str> = line.split('|').collect();
        let fields = in_backticks(cells[2]).map(|field| match field.split_once(" = ") {
            Some((field, default)) => (field.to_owned(), Some(default.to_owned())),
            None => (field.to_owned(), None),
        });
        Row {
            name: in_backticks(cells[1]).next().unwrap().to_owned(),
            fields: fields.collect(),
        }
    })
    .collect()
}

#[test]
fn the_guide_has_every_transform_that_a_file_may_name() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("c.toml"), "train-transforms = [{ name = \"\" }]").unwrap();
    let text = stderr(&kestrel(dir.path(), &["train", "--config", "c.toml"]));
    let (_, names) = text.split_once("is one of ").unwrap();
    let (names, _) = names.split_once("; ").unwrap();
    let mut accepted: Vec<String> = names.replace(" or ", ", ").split(", ").map(str::to_owned).collect();
    let rows = transforms();
    let mut told: Vec<String> = rows.iter().map(|row| row.name.clone()).collect();
    accepted.sort();
    told.sort();
    assert_eq!(told, accepted);

    let specs: Vec<TransformSpec> = rows.iter().map(|row| row.spec(&row.given()).unwrap()).collect();
    // The order of the table is one in which they may stand.
    Compose::from_specs(&specs).unwrap();
    for (row, spec) in rows.iter().zip(&specs) {
        for (field, default) in &row.fields {
            if let Some(default) = default {
                let said = [row.given(), vec![format!("{field} = {default}")]].concat();
                assert_eq!(row.spec(&said).unwrap(), *spec, "{} {field}", row.name);
            }
        }
        // Serde says what there is besides the field that there is not.
        if let Err(error) = row.spec(&[row.given(), vec!["none = 0".to_owned()]].concat()) {
            let (_, known) = error.message().split_once("expected").unwrap();
            let mut known: Vec<&str> = in_backticks(known).collect();
            let mut told: Vec<&str> = row.fields.iter().map(|(field, _)| field.as_str()).collect();
            known.sort_unstable();
            told.sort_unstable();
            assert_eq!(told, known, "{}", row.name);
        } else {
            assert!(row.fields.is_empty(), "{}", row.name);
        }
    }
}
