//! Each rule fails on what it is about, on the right line, and only there.

use super::*;

const LIBRARY: &str = "crates/kestrel-data/src/loader.rs";

/// The lines that a rule finds, from 1.
fn check(rule: Rule, path: &str, text: &str, expect: &[usize]) {
    let found = rule(path, text);
    let lines: Vec<usize> = found.iter().map(|finding| finding.line).collect();
    assert_eq!(lines, expect, "{path}: {found:?}");
}

#[test]
fn a_finding_says_where_and_what_to_do() {
    let found = unsafe_code(LIBRARY, "\nunsafe {}\n");
    let shown: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert_eq!(
        shown,
        [format!(
            "{LIBRARY}:2: move `unsafe` into kestrel-kernels, behind a safe function"
        )]
    );
}

#[test]
fn module_docs_come_first() {
    check(module_docs, LIBRARY, "//! The loader.\n", &[]);
    check(module_docs, LIBRARY, "", &[1]);
    check(module_docs, LIBRARY, "use std::fs;\n//! Late.\n", &[1]);
    check(module_docs, "xtask/src/main.rs", "fn main() {}\n", &[1]);
    check(
        module_docs,
        "crates/kestrel-data/benches/loader.rs",
        "fn main() {}\n",
        &[],
    );
    check(module_docs, "docs/src/loader.md", "# Loader\n", &[]);
}

#[test]
fn files_are_short() {
    check(length, LIBRARY, &"\n".repeat(600), &[]);
    check(length, LIBRARY, &"\n".repeat(601), &[601]);
    check(
        length,
        "crates/kestrel-kernels/src/cuda/pool.cu",
        &"\n".repeat(601),
        &[601],
    );
    check(length, "Cargo.lock", &"\n".repeat(601), &[]);
}

#[test]
fn names_say_something() {
    let wrong = |path: &str| file_name(path).len();
    assert_eq!(wrong(LIBRARY), 0);
    assert_eq!(wrong("crates/kestrel-data/src/utils.rs"), 1);
    assert_eq!(wrong("crates/kestrel-data/src/helpers.rs"), 1);
    assert_eq!(wrong("crates/kestrel-data/tests/common/mod.rs"), 1);
    assert_eq!(wrong("docs/common.md"), 0);
}

#[test]
fn nothing_is_unfinished() {
    check(unfinished, LIBRARY, "fn f() {\n    todo!()\n}\n", &[2]);
    check(unfinished, LIBRARY, "unimplemented!(\"x\")\n", &[1]);
    check(unfinished, LIBRARY, "let x = dbg!(x);\n", &[1]);
    check(
        unfinished,
        LIBRARY,
        "// todo!() is not left\nlet s = \"dbg!(x)\";\n",
        &[],
    );
}

#[test]
fn only_the_kernels_are_unsafe() {
    check(unsafe_code, LIBRARY, "let x = unsafe { f() };\n", &[1]);
    check(
        unsafe_code,
        "crates/kestrel/tests/it/main.rs",
        "\nunsafe fn f() {}\n",
        &[2],
    );
    check(
        unsafe_code,
        "crates/kestrel-kernels/src/simd.rs",
        "unsafe fn f() {}\n",
        &[],
    );
    check(
        unsafe_code,
        LIBRARY,
        "#![forbid(unsafe_code)]\n// unsafe\n/* unsafe */ let s = \"unsafe\";\n",
        &[],
    );
}

#[test]
fn libraries_do_not_print() {
    check(
        printing,
        LIBRARY,
        "fn f() {\n    println!(\"x\");\n    eprintln!(\"x\");\n}\n",
        &[2, 3],
    );
    check(printing, LIBRARY, "print!(\"x\");\neprint!(\"x\");\n", &[1, 2]);
    check(
        printing,
        LIBRARY,
        "fn f() {}\n\n#[cfg(test)]\nmod tests {\n    println!(\"x\");\n}\n",
        &[],
    );
    check(
        printing,
        LIBRARY,
        "/// ```\n/// println!(\"x\");\n/// ```\nfn f() {}\n",
        &[],
    );
    check(
        printing,
        "crates/kestrel-data/src/loader/tests.rs",
        "println!(\"x\");\n",
        &[],
    );
    check(
        printing,
        "crates/kestrel-data/examples/load.rs",
        "println!(\"x\");\n",
        &[],
    );
    check(printing, "crates/kestrel/src/main.rs", "println!(\"x\");\n", &[]);
}

#[test]
fn lines_end_clean() {
    check(trailing_whitespace, LIBRARY, "a \nb\nc\t", &[1, 3]);
    check(trailing_whitespace, "README.md", "a\r\n", &[1]);
    check(trailing_whitespace, "README.md", "a\n\nb\n", &[]);
}

#[test]
fn files_are_small() {
    let advice = |path: &str, bytes| size(path, bytes).pop().map(|finding| finding.advice);
    assert_eq!(advice("data/a.bin", 5_000_000), None);
    assert_eq!(
        advice("data/a.bin", 5_000_001).as_deref(),
        Some("5000001 bytes, more than 5000000: keep it out of git")
    );
    let golden = advice("crates/kestrel-models/tests/golden/resnet18.safetensors", 5_000_001);
    assert_eq!(
        golden.as_deref(),
        Some("5000001 bytes, more than 5000000: make the golden tensors smaller")
    );
}
