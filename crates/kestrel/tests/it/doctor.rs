//! `kestrel doctor`, and devices that are not there.

use serde_json::Value;

use crate::pictures::{command, stderr, stdout, succeed};

#[test]
fn the_doctor_names_what_there_is() {
    let dir = tempfile::tempdir().unwrap();
    let text = stdout(&succeed(dir.path(), &["doctor"]));
    assert!(
        text.starts_with(&format!("Kestrel  {}", env!("CARGO_PKG_VERSION"))),
        "{text}"
    );
    for line in ["CPU", "Kernels"] {
        assert!(text.lines().any(|found| found.starts_with(line)), "{text}");
    }
    let mut portable = command(
        dir.path(),
        &["doctor", "--format", "json", "--cpu-features", "portable"],
    );
    let output = portable.env("KESTREL_COMMIT", "0123abc").output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found["instructions"], "portable");
    assert_eq!(found["commit"], "0123abc");
    assert!(found["threads"].as_u64() > Some(0));
    let has = |set: &Value| set.as_array().unwrap().contains(&Value::from("portable"));
    assert!(has(&found["available_instructions"]));
    let cuda = &found["cuda"];
    assert_eq!(cuda["built"], cfg!(feature = "cuda"));
    // A machine may have a GPU; one without is told what to do.
    let lacks = cuda["gpus"].as_array().unwrap().is_empty();
    assert!(!lacks || !cuda["advice"].as_array().unwrap().is_empty(), "{cuda}");
}

#[cfg(not(feature = "cuda"))]
#[test]
fn every_command_says_what_a_gpu_needs() {
    use crate::pictures::{kestrel, trained};

    let dir = trained();
    let weights = "runs/a/best.safetensors";
    for args in [
        &["train", "--data", "pictures", "--device", "cuda:1"][..],
        &[
            "finetune-resnet",
            "--pretrained",
            "imagenet",
            "--data",
            "pictures",
            "--device",
            "cuda",
        ],
        &[
            "evaluate",
            "--weights",
            weights,
            "--data",
            "pictures",
            "--device",
            "cuda",
        ],
        &["predict", "--weights", weights, "pictures", "--device", "cuda"],
    ] {
        let output = kestrel(dir.path(), args);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        for word in ["--features cuda", "--device cpu"] {
            assert!(said.contains(word), "{args:?}: {said}");
        }
    }
    for args in [
        &["evaluate", "--weights", weights, "--device", "cuda:x"][..],
        &["predict", "--weights", weights, "pictures", "--device", "gpu"],
    ] {
        let output = kestrel(dir.path(), args);
        let said = stderr(&output);
        assert!(output.status.code() == Some(2) && said.contains("cuda:N"), "{said}");
    }
    let auto = [
        "evaluate",
        "--weights",
        weights,
        "--data",
        "pictures",
        "--device",
        "auto",
        "--no-report",
    ];
    assert!(stderr(&succeed(dir.path(), &auto)).contains("Device: CPU"));
}
