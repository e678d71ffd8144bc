//! `--cpu-features`: every set that the machine has trains, evaluates and is measured; one that it lacks is refused.

use std::fs;
use std::path::Path;

use kestrel_kernels::simd::Isa;

use crate::pictures::{kestrel, stderr, stdout, succeed, write};

fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("pictures"), 2, 8, 2);
    dir
}

/// Wide enough that every kernel of the network runs, Winograd's too.
fn train<'a>(more: &[&'a str]) -> Vec<&'a str> {
    let args = [
        "train", "--data", "pictures", "--width", "8", "--limit", "8", "--epochs", "1", "--device", "cpu",
    ];
    args.into_iter().chain(more.iter().copied()).collect()
}

fn says_set(log: &str, isa: Isa) {
    assert!(log.contains(&format!("threads, {isa}\n")), "{isa} in\n{log}");
}

fn weights(folder: &Path, run: &str) -> Vec<f32> {
    let bytes = fs::read(folder.join("runs").join(run).join("best.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut tensors: Vec<_> = file.iter().collect();
    tensors.sort_by(|a, b| a.0.cmp(b.0));
    let data = tensors.iter().flat_map(|(_, view)| view.data());
    let data: Vec<u8> = data.copied().collect();
    let floats = data.as_chunks().0;
    floats.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

#[test]
fn every_set_of_the_machine_trains_to_the_same_weights_but_for_rounding() {
    let dir = folder();
    // The plainest set first: it is the reference.
    let sets: Vec<Isa> = Isa::available().into_iter().rev().collect();
    let mut reference = Vec::new();
    for isa in sets {
        let output = succeed(
            dir.path(),
            &train(&["--cpu-features", isa.name(), "--name", isa.name()]),
        );
        says_set(&stderr(&output), isa);
        let got = weights(dir.path(), isa.name());
        assert!(got.iter().all(|w| w.is_finite()));
        if reference.is_empty() {
            reference = got;
            continue;
        }
        assert!(got != reference, "{isa} gave the plain set's bits, so it was not used");
        // Adam's one step is the sign of a gradient times 1e-3, and rounding may turn the sign of a tiny one.
        let apart = got.iter().zip(&reference).map(|(a, b)| f64::from(a - b).abs());
        let mean = apart.sum::<f64>() / got.len() as f64;
        assert!(mean < 1e-6, "{isa}: {mean}");
    }
}

#[test]
fn a_file_may_choose_and_the_command_line_wins_and_the_choice_is_saved() {
    let dir = folder();
    fs::write(dir.path().join("c.toml"), "cpu-features = \"portable\"\n").unwrap();
    let output = succeed(dir.path(), &train(&["--config", "c.toml", "--name", "a"]));
    says_set(&stderr(&output), Isa::Portable);
    let saved = fs::read_to_string(dir.path().join("runs/a/config.toml")).unwrap();
    assert!(saved.contains("cpu-features = \"portable\""), "{saved}");
    let output = succeed(dir.path(), &["train", "--resume", "runs/a"]);
    says_set(&stderr(&output), Isa::Portable);
    for asked in [Isa::detect().name(), "auto"] {
        let args = ["--config", "c.toml", "--name", asked, "--cpu-features", asked];
        says_set(&stderr(&succeed(dir.path(), &train(&args))), Isa::detect());
    }
}

/// Transforms are made before a set is chosen, to be checked: they must not choose one.
#[test]
fn transforms_in_a_file_leave_the_choice() {
    let dir = folder();
    let steps = "[{ name = \"ToTensor\" }, { name = \"Normalize\", mean = [0.5, 0.5, 0.5], std = [0.5, 0.5, 0.5] }]\n";
    let text = format!("train-transforms = {steps}eval-transforms = {steps}");
    fs::write(dir.path().join("c.toml"), text).unwrap();
    let args = ["--config", "c.toml", "--name", "a", "--cpu-features", "portable"];
    says_set(&stderr(&succeed(dir.path(), &train(&args))), Isa::Portable);
}

#[test]
fn it_stands_before_or_after_the_command() {
    let dir = folder();
    succeed(dir.path(), &train(&["--name", "a"]));
    let evaluate = [
        "evaluate",
        "--weights",
        "runs/a/best.safetensors",
        "--data",
        "pictures",
        "--device",
        "cpu",
    ];
    let choice = ["--cpu-features", "portable"];
    for args in [[&choice[..], &evaluate].concat(), [&evaluate[..], &choice].concat()] {
        let output = succeed(dir.path(), &args);
        says_set(&stderr(&output), Isa::Portable);
        assert!(stdout(&output).starts_with("Accuracy on the 4 test images: "));
    }
}

#[test]
fn bench_measures_the_set_that_was_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    for isa in Isa::available() {
        let args = [
            "bench",
            "cnn-eval",
            "--repeats",
            "1",
            "--device",
            "cpu",
            "--cpu-features",
            isa.name(),
        ];
        let output = succeed(dir.path(), &args);
        says_set(&stderr(&output), isa);
        assert!(stdout(&output).contains("img/s"), "{}", stdout(&output));
    }
}

#[test]
fn a_set_that_the_machine_lacks_is_refused_with_those_it_has() {
    let dir = folder();
    let missing = Isa::ALL.into_iter().find(|isa| !isa.is_available());
    let missing = missing.expect("no processor has both AVX-512 and NEON").name();
    fs::write(dir.path().join("c.toml"), format!("cpu-features = \"{missing}\"\n")).unwrap();
    for args in [
        train(&["--cpu-features", missing]),
        train(&["--config", "c.toml"]),
        vec!["bench", "cnn-eval", "--cpu-features", missing],
        vec!["evaluate", "--weights", "none", "--cpu-features", missing],
    ] {
        let output = kestrel(dir.path(), &args);
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {text}");
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(
            text.starts_with("error: ") && text.contains("--cpu-features") && text.contains(missing),
            "{text}"
        );
        for isa in Isa::available() {
            assert!(text.contains(isa.name()), "{isa} in {text}");
        }
    }
    assert!(!dir.path().join("runs").exists(), "a refused run leaves no folder");
    let output = kestrel(dir.path(), &["bench", "--cpu-features", "sse9"]);
    assert_eq!(output.status.code(), Some(2));
    let text = stderr(&output);
    assert!(text.contains("sse9") && text.contains("portable"), "{text}");
}
