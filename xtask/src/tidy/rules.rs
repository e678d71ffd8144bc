//! One function a habit, each over a path and a text, so that a test can show that it fails.

use std::fmt;

use super::code::{code_only, has_word};

/// What is wrong where, and what to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) path: String,
    pub(crate) line: usize,
    pub(crate) advice: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.advice)
    }
}

pub(crate) type Rule = fn(&str, &str) -> Vec<Finding>;

/// The rules about what a text file says.
pub(crate) const TEXT: &[Rule] = &[
    module_docs,
    length,
    unfinished,
    unsafe_code,
    printing,
    trailing_whitespace,
];

const MAX_LINES: usize = 600;
const MAX_BYTES: u64 = 5_000_000;
/// Names that say nothing about what is inside.
const EMPTY_NAMES: &[&str] = &["common", "helper", "helpers", "util", "utils"];
/// The crates that report by returning, never by printing.
const LIBRARIES: &[&str] = &["kestrel-data", "kestrel-kernels", "kestrel-models", "kestrel-train"];

/// A source file's first line says what the module is and is not.
pub(crate) fn module_docs(path: &str, text: &str) -> Vec<Finding> {
    let source = is_rust(path) && path.contains("/src/");
    let missing = source && !text.starts_with("//!");
    missing
        .then(|| finding(path, 0, "start the file with `//!`: what the module is and is not"))
        .into_iter()
        .collect()
}

/// A file over the limit holds more than one concept.
pub(crate) fn length(path: &str, text: &str) -> Vec<Finding> {
    let written = [".rs", ".py", ".cu", ".cuh", ".cpp", ".h"]
        .iter()
        .any(|extension| path.ends_with(extension));
    let lines = text.lines().count();
    let long = written && lines > MAX_LINES;
    let advice = format!("{lines} lines, more than {MAX_LINES}: split the file by the field's nouns");
    long.then(|| finding(path, MAX_LINES, &advice)).into_iter().collect()
}

/// A file is named after what is inside.
pub(crate) fn file_name(path: &str) -> Vec<Finding> {
    let empty = |part: &&str| EMPTY_NAMES.contains(&part.strip_suffix(".rs").unwrap_or(part));
    let part = path.split('/').find(empty).filter(|_| is_rust(path));
    part.map(|part| finding(path, 0, &format!("name the file after what is inside, not `{part}`")))
        .into_iter()
        .collect()
}

/// Nothing unfinished and no debugging aid is left.
pub(crate) fn unfinished(path: &str, text: &str) -> Vec<Finding> {
    macros(path, text, &["todo", "unimplemented", "dbg"], "finish or remove it")
}

/// All `unsafe` is in the kernels.
pub(crate) fn unsafe_code(path: &str, text: &str) -> Vec<Finding> {
    if path.starts_with("crates/kestrel-kernels/") {
        return Vec::new();
    }
    let wrong = |line: &str| has_word(line, "unsafe", "");
    lines_that(
        path,
        text,
        wrong,
        "move `unsafe` into kestrel-kernels, behind a safe function",
    )
}

/// Only the command line prints; a library's tests, benches and examples may.
pub(crate) fn printing(path: &str, text: &str) -> Vec<Finding> {
    let crate_name = path.strip_prefix("crates/").and_then(|path| path.split_once("/src/"));
    let Some((name, module)) = crate_name else {
        return Vec::new();
    };
    let is_tests = module.split('/').any(|part| part == "tests" || part == "tests.rs");
    if !LIBRARIES.contains(&name) || is_tests {
        return Vec::new();
    }
    // Unit tests stand at the end of a file.
    let library = text.split_once("\nmod tests {").map_or(text, |(library, _)| library);
    let advice = "return it or use tracing: only the command line prints";
    macros(path, library, &["print", "println", "eprint", "eprintln"], advice)
}

/// No line ends in a space or a tab.
pub(crate) fn trailing_whitespace(path: &str, text: &str) -> Vec<Finding> {
    let wrong = |line: &str| line.ends_with([' ', '\t', '\r']);
    let lines = text.split('\n').enumerate().filter(|(_, line)| wrong(line));
    lines
        .map(|(at, _)| finding(path, at, "remove the white space at the end of the line"))
        .collect()
}

/// What git keeps, it keeps for ever.
pub(crate) fn size(path: &str, bytes: u64) -> Vec<Finding> {
    let golden = if is_golden(path) {
        "make the golden tensors smaller"
    } else {
        "keep it out of git"
    };
    let advice = format!("{bytes} bytes, more than {MAX_BYTES}: {golden}");
    (bytes > MAX_BYTES)
        .then(|| finding(path, 0, &advice))
        .into_iter()
        .collect()
}

/// Whether the file is one that `cargo xtask golden` makes.
pub(crate) fn is_golden(path: &str) -> bool {
    path.contains("/tests/golden/")
}

fn is_rust(path: &str) -> bool {
    path.ends_with(".rs")
}

/// `line` counts from 0, the finding's from 1.
fn finding(path: &str, line: usize, advice: &str) -> Finding {
    Finding {
        path: path.to_owned(),
        line: line + 1,
        advice: advice.to_owned(),
    }
}

fn lines_that(path: &str, text: &str, wrong: impl Fn(&str) -> bool, advice: &str) -> Vec<Finding> {
    if !is_rust(path) {
        return Vec::new();
    }
    let code = code_only(text);
    let lines = code.lines().enumerate().filter(|(_, line)| wrong(line));
    lines.map(|(at, _)| finding(path, at, advice)).collect()
}

fn macros(path: &str, text: &str, names: &[&str], advice: &str) -> Vec<Finding> {
    let found = names.iter().flat_map(|name| {
        let advice = format!("`{name}!`: {advice}");
        lines_that(path, text, |line| has_word(line, name, "!"), &advice)
    });
    found.collect()
}

#[cfg(test)]
mod tests;
