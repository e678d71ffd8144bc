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

#[test]
fn faults_have_their_tests() -> Result<()> {
    let entries = tree::entries()?;
    let texts = |ending: &str| -> Vec<&str> {
        let of_kind = entries.iter().filter(|entry| entry.path.ends_with(ending));
        of_kind.filter_map(|entry| entry.text.as_deref()).collect()
    };
    let (table, code) = (texts("docs/FAULTS.md").concat(), texts(".rs").concat());
    let rows = table.lines().filter(|line| line.starts_with('|')).skip(2);
    let tests: Vec<&str> = rows
        .filter_map(|row| row.trim_end_matches('|').rsplit('|').next())
        .flat_map(|tests| tests.split('`').skip(1).step_by(2))
        .collect();
    assert!(tests.len() > 30, "the table was not found");
    let missing: Vec<&&str> = tests
        .iter()
        .filter(|test| !code.contains(&format!("fn {test}(")))
        .collect();
    assert!(
        missing.is_empty(),
        "docs/FAULTS.md names tests that are not there: {missing:?}"
    );
    Ok(())
}
