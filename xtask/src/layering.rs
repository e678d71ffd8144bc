//! The house's layers, kept by a test over `cargo metadata`: arrows point down only.
//!
//! Tests and build scripts count too: a development dependency upwards is still an arrow upwards.

use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::cargo;

/// Each crate, and the crates of this workspace that it may know.
const LAYERS: &[(&str, &[&str])] = &[
    ("kestrel-kernels", &[]),
    ("kestrel-data", &["kestrel-kernels"]),
    ("kestrel-models", &["kestrel-kernels"]),
    ("kestrel-train", &["kestrel-data", "kestrel-models", "kestrel-kernels"]),
    (
        "kestrel",
        &["kestrel-train", "kestrel-data", "kestrel-models", "kestrel-kernels"],
    ),
    ("xtask", &[]),
];

/// Dependencies that only some crates may have.
const RESERVED: &[(&str, &[&str])] = &[
    ("clap", &["kestrel"]),
    ("indicatif", &["kestrel"]),
    ("tracing-subscriber", &["kestrel"]),
    ("anyhow", &["kestrel", "xtask"]),
];

/// All that `cargo xtask` compiles before it does anything, and what its tests need.
const XTASK: &[&str] = &["anyhow", "serde_json"];

fn violations(metadata: &Value) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for package in metadata["packages"]
        .as_array()
        .context("cargo metadata has no packages")?
    {
        let name = package["name"].as_str().context("a package has no name")?;
        let manifest = package["manifest_path"].as_str().unwrap_or(name);
        let Some((_, may_know)) = LAYERS.iter().find(|(layer, _)| *layer == name) else {
            found.push(format!(
                "{manifest}: {name} has no layer: say in xtask/src/layering.rs what it may know"
            ));
            continue;
        };
        for dependency in package["dependencies"]
            .as_array()
            .context("a package has no dependencies")?
        {
            let on = dependency["name"].as_str().context("a dependency has no name")?;
            // Without a registry or a repository as its source, a dependency lies in this workspace.
            let inside = dependency["source"].is_null() || LAYERS.iter().any(|(layer, _)| *layer == on);
            if inside && !may_know.contains(&on) {
                found.push(format!(
                    "{manifest}: {name} must not know {on}: move what it needs down to a crate that both may know"
                ));
            }
            if let Some((_, owners)) = RESERVED.iter().find(|(reserved, _)| *reserved == on)
                && !owners.contains(&name)
            {
                found.push(format!(
                    "{manifest}: {name} must not depend on {on}, which is for {}",
                    owners.join(", ")
                ));
            }
            if name == "xtask" && !inside && !XTASK.contains(&on) {
                found.push(format!(
                    "{manifest}: xtask must not depend on {on}: it must stay quick to compile"
                ));
            }
        }
    }
    Ok(found)
}

#[test]
fn arrows_point_down() -> Result<()> {
    let mut command = cargo::workspace("metadata");
    command
        .args(["--no-deps", "--format-version", "1"])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit());
    let output = command.output().context("cannot start cargo metadata")?;
    ensure!(output.status.success(), "cargo metadata failed ({})", output.status);
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    let found = violations(&metadata)?;
    assert!(found.is_empty(), "\n{}", found.join("\n"));
    let packages = metadata["packages"].as_array().map_or(0, Vec::len);
    assert_eq!(
        packages,
        LAYERS.len(),
        "xtask/src/layering.rs names a crate that is gone"
    );
    Ok(())
}

/// One crate with one dependency, as `cargo metadata` has it.
fn check(name: &str, on: &str, expect: &[&str]) -> Result<()> {
    let inside = on.starts_with("kestrel");
    let source = if inside {
        Value::Null
    } else {
        json!("registry+https://github.com/rust-lang/crates.io-index")
    };
    let dependency = json!({ "name": on, "source": source, "kind": null });
    let package = json!({ "name": name, "manifest_path": "Cargo.toml", "dependencies": [dependency] });
    let found = violations(&json!({ "packages": [package] }))?;
    assert_eq!(found.len(), expect.len(), "{found:?}");
    for (found, expect) in found.iter().zip(expect) {
        assert!(found.starts_with("Cargo.toml: ") && found.contains(expect), "{found}");
    }
    Ok(())
}

#[test]
fn downwards_passes() -> Result<()> {
    check("kestrel-data", "kestrel-kernels", &[])?;
    check("kestrel-train", "kestrel-models", &[])?;
    check("kestrel", "clap", &[])?;
    check("kestrel-kernels", "candle-core", &[])?;
    check("xtask", "anyhow", &[])
}

#[test]
fn upwards_and_sideways_fail() -> Result<()> {
    check(
        "kestrel-kernels",
        "kestrel-data",
        &["kestrel-kernels must not know kestrel-data"],
    )?;
    check(
        "kestrel-models",
        "kestrel-data",
        &["kestrel-models must not know kestrel-data"],
    )?;
    check(
        "kestrel-data",
        "kestrel-models",
        &["kestrel-data must not know kestrel-models"],
    )?;
    check("kestrel-train", "kestrel", &["kestrel-train must not know kestrel"])?;
    check("xtask", "kestrel-kernels", &["xtask must not know kestrel-kernels"])
}

#[test]
fn reserved_dependencies_fail() -> Result<()> {
    check(
        "kestrel-train",
        "clap",
        &["must not depend on clap, which is for kestrel"],
    )?;
    check(
        "kestrel-data",
        "anyhow",
        &["must not depend on anyhow, which is for kestrel, xtask"],
    )?;
    check("xtask", "candle-core", &["xtask must not depend on candle-core"])?;
    check("xtask", "clap", &["which is for kestrel", "stay quick to compile"])
}

#[test]
fn a_crate_without_a_layer_fails() -> Result<()> {
    check("kestrel-hub", "serde", &["kestrel-hub has no layer"])
}
