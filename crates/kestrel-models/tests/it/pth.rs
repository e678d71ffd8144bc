//! Files that torch made, as `scripts/golden/pth.py` says.

use std::path::PathBuf;

use candle_core::{DType, Device};
use kestrel_models::weights::load;
use kestrel_models::{Cnn, CnnConfig, Error, Mode, Model};

use crate::cnn_golden::{error, golden, values};
use crate::formula::{fill, images};
use crate::manifest_dir::manifest_dir;

fn path(name: &str) -> PathBuf {
    manifest_dir().join("tests/golden").join(name)
}

fn cnn(seed: u64) -> Cnn {
    let config = CnnConfig {
        width: 1,
        ..CnnConfig::new(2)
    };
    Cnn::new(config, seed, DType::F32, &Device::Cpu).unwrap()
}

#[test]
fn a_state_dict_of_torchs_gives_torchs_logits() {
    let file = load(&path("cnn_width1.pth")).unwrap();
    assert_eq!(file.record, None);
    let counters = file.tensors.keys().filter(|name| name.ends_with("num_batches_tracked"));
    assert_eq!(counters.count(), 6);
    let (model, want) = (cnn(1), cnn(2));
    model.params().load_state_dict(&file.tensors).unwrap();
    fill(want.params(), DType::F32, 1.0);
    for ((name, got), (_, want)) in model.params().all().iter().zip(want.params().all()) {
        assert_eq!(values(got), values(&want), "{name}");
    }
    let logits = model.forward(&images(2, 32, DType::F32), Mode::Eval).unwrap();
    let want = values(&golden("cnn_width1")["eval.logits"]);
    assert!(error(&values(&logits), &want, 0.0) < 1e-5);
}

#[test]
fn views_of_every_kind_are_read() {
    let file = load(&path("views.pth")).unwrap();
    let want = golden("views");
    assert_eq!(file.tensors.len(), want.len());
    for (name, tensor) in &file.tensors {
        assert_eq!(tensor.dims(), want[name].dims(), "{name}");
        assert_eq!(values(tensor), values(&want[name]), "{name}");
    }
    let dtypes = ["rows", "double", "half", "bfloat16", "long"].map(|name| file.tensors[name].dtype());
    assert_eq!(dtypes, [DType::F32, DType::F64, DType::F16, DType::BF16, DType::I64]);
}

#[test]
fn a_file_cut_anywhere_or_changed_in_a_tensor_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let damaged = folder.path().join("damaged.pth");
    let bytes = std::fs::read(path("cnn_width1.pth")).unwrap();
    for i in 0..64 {
        std::fs::write(&damaged, &bytes[..bytes.len() * i / 64]).unwrap();
        assert!(load(&damaged).is_err(), "cut at {i}/64");
    }
    let last = values(&load(&path("cnn_width1.pth")).unwrap().tensors["fc2.bias"]);
    let needle: Vec<u8> = last.iter().flat_map(|v| (*v as f32).to_le_bytes()).collect();
    let at = bytes.windows(needle.len()).position(|window| window == needle).unwrap();
    let mut changed = bytes;
    changed[at] ^= 1;
    std::fs::write(&damaged, &changed).unwrap();
    match load(&damaged).unwrap_err() {
        Error::UnreadableTensors { faults, .. } => {
            assert_eq!(faults.len(), 1);
            assert_eq!(faults[0].0, "fc2.bias");
        }
        other => panic!("{other}"),
    }
}

#[test]
fn a_file_of_the_old_format_is_named_as_such() {
    let folder = tempfile::tempdir().unwrap();
    let old = folder.path().join("old.pth");
    std::fs::write(&old, b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.").unwrap();
    let error = load(&old).unwrap_err().to_string();
    assert!(
        error.contains("old.pth") && error.contains("before version 1.6"),
        "{error}"
    );
}

#[test]
fn a_file_that_holds_no_weights_says_what_it_is_and_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let whole = std::fs::read(path("cnn_width1.pth")).unwrap();
    let safetensors = std::fs::read(path("cnn_width1.safetensors")).unwrap();
    for (name, bytes, words) in [
        ("empty.pth", &b""[..], ["it is empty", "fetch"]),
        ("page.pth", b"<!DOCTYPE html>", ["a web page", "fetch the file itself"]),
        (
            "pointer.pth",
            b"version https://git-lfs.github.com/spec/v1",
            ["Git LFS", "git lfs pull"],
        ),
        ("packed.pth", b"\x1f\x8b\x08\0", ["gzip", "unpack"]),
        ("keras.h5", b"\x89HDF\r\n\x1a\n", ["HDF5", ".pth or in safetensors"]),
        ("text.pth", b"hello", ["neither safetensors", "torch.save (.pth, .pt)"]),
        ("cut.pth", &whole[..whole.len() / 2], ["cut off or damaged", "again"]),
        (
            "cut.safetensors",
            &safetensors[..safetensors.len() / 2],
            ["cut off or damaged", "again"],
        ),
        (
            "numpy.npz",
            b"PK\x05\x06\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
            ["neither safetensors", "damaged"],
        ),
    ] {
        let file = folder.path().join(name);
        std::fs::write(&file, bytes).unwrap();
        let error = load(&file).unwrap_err();
        assert!(matches!(error, Error::Format { .. }), "{error:?}");
        let error = error.to_string();
        for word in [&[name][..], &words].concat() {
            assert!(error.contains(word), "{word:?} in {error}");
        }
    }
}
