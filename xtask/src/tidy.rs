//! The house's habits that a machine can keep, as a test over the tree. The layers are in `layering`.

mod code;
mod rules;
mod tree;

use anyhow::Result;

use tree::Entry;

#[test]
fn the_tree_is_tidy() -> Result<()> {
    let mut findings = Vec::new();
    let entries = tree::entries()?;
    assert!(
        entries.iter().any(|entry| entry.path == "xtask/src/tidy.rs"),
        "the tree was not found"
    );
    for Entry {
        path,
        bytes,
        text,
        tracked,
    } in &entries
    {
        if *tracked || rules::is_golden(path) {
            findings.extend(rules::size(path, *bytes));
        }
        findings.extend(rules::file_name(path));
        if let Some(text) = text {
            for rule in rules::TEXT {
                findings.extend(rule(path, text));
            }
        }
    }
    let list: String = findings.iter().map(|finding| format!("\n{finding}")).collect();
    assert!(findings.is_empty(), "{list}\n");
    Ok(())
}
