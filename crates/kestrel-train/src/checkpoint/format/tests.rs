//! Files that are made to do harm: each is an error that names the path, before anything of their size is allocated.

use candle_core::{DType, Tensor};
use kestrel_models::{CnnConfig, ModelConfig};

use super::*;

fn body(format: u32) -> serde_json::Value {
    let body = Body {
        format,
        info: ModelInfo {
            model: ModelConfig::Cnn(CnnConfig::new(2)),
            classes: vec!["a".into(), "b".into()],
            mean: [0.0; 3],
            std: [1.0; 3],
            transforms: None,
            temperature: None,
        },
        progress: Progress::default(),
        seed: 1,
        version: "0".into(),
        lrs: vec![0.5],
        scheduler: None,
        averaged: None,
        grad_scaler: None,
        config: serde_json::Value::Null,
    };
    serde_json::to_value(body).unwrap()
}

fn tensors() -> StateDict {
    let tensor = Tensor::arange(0f32, 6.0, &Device::Cpu).unwrap();
    StateDict::from([("model.a".to_owned(), tensor.reshape((2, 3)).unwrap())])
}

/// A file that is whole, and sealed with its right hash.
fn file(body: &serde_json::Value) -> Vec<u8> {
    let checkpoint = body.to_string();
    let sha256 = hash(&serialise(&tensors(), "").unwrap(), &checkpoint).unwrap();
    let sealed = serde_json::to_string(&Sealed { sha256, checkpoint }).unwrap();
    serialise(&tensors(), &sealed).unwrap()
}

fn load(bytes: &[u8]) -> Result<Checkpoint> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("step-00000001.safetensors");
    std::fs::write(&path, bytes).unwrap();
    let result = Checkpoint::load(&path);
    if let Err(error) = &result {
        assert!(error.to_string().contains("step-00000001"), "{error}");
    }
    result
}

fn refused(bytes: &[u8], word: &str) {
    let error = load(bytes).unwrap_err();
    assert!(matches!(error, Error::InvalidCheckpoint { .. }), "{error:?}");
    assert!(error.to_string().contains(word), "{word:?} in {error}");
}

/// A file of this header and this many bytes of data.
fn raw(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

#[test]
fn a_whole_file_is_read() {
    assert_eq!(load(&file(&body(FORMAT))).unwrap().version(), "0");
}

#[test]
fn hostile_headers_are_typed_errors() {
    let sealed = r#""__metadata__":{"kestrel":"{}"}"#;
    refused(&[], "header too small");
    refused(&100_000_001u64.to_le_bytes(), "header too large");
    refused(&u64::MAX.to_le_bytes(), "");
    refused(&99_999_999u64.to_le_bytes(), "");
    refused(&raw("{", 0), "");
    refused(&raw("[]", 0), "");
    refused(&raw(&"[".repeat(100_000), 0), "");
    let tensor = |shape: &str, offsets: &str| {
        format!(r#"{{{sealed},"a":{{"dtype":"F32","shape":{shape},"data_offsets":{offsets}}}}}"#)
    };
    refused(&raw(&tensor("[2]", "[0,4]"), 8), "");
    refused(&raw(&tensor("[2]", "[4,12]"), 12), "");
    refused(&raw(&tensor("[2]", "[8,0]"), 8), "");
    refused(&raw(&tensor("[18446744073709551615,2]", "[0,8]"), 8), "");
    refused(&raw(&tensor("[1000000000]", "[0,4000000000]"), 8), "");
    let two =
        r#""a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}"#;
    refused(&raw(&format!("{{{sealed},{two}}}"), 12), "");
    refused(&raw(&tensor("[2]", "[0,8]"), 8), "weights alone");
    refused(&serialise(&tensors(), "null").unwrap(), "weights alone");
}

#[test]
fn another_format_is_named_and_not_guessed_at() {
    refused(&file(&body(FORMAT + 1)), "format 3");
    refused(&file(&serde_json::json!({"format": 1, "what": "else"})), "format 1");
    refused(&file(&serde_json::json!({"format": FORMAT})), "missing field");
    refused(&file(&serde_json::json!({})), "missing field `format`");
}

/// Every bit of the header, and of the data.
#[test]
fn a_bit_that_is_flipped_anywhere_is_noticed() {
    let good = file(&body(FORMAT));
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut bytes = good.clone();
            bytes[at] ^= 1 << bit;
            assert!(load(&bytes).is_err(), "bit {bit} of byte {at}");
        }
    }
}

/// The same of weights alone, and of those of an earlier version, which have no hash.
#[test]
fn a_bit_of_weights_that_is_flipped_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("w.safetensors");
    let info = serde_json::from_value::<Body>(body(FORMAT)).unwrap().info;
    Weights::save_state_dict(&tensors(), &info, &path).unwrap();
    let good = std::fs::read(&path).unwrap();
    let read = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        Weights::load(&path)
    };
    assert_eq!(read(&good).unwrap().tensors.len(), tensors().len());
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut bytes = good.clone();
            bytes[at] ^= 1 << bit;
            assert!(read(&bytes).is_err(), "bit {bit} of byte {at}");
        }
    }
    let record = |format: u32| serde_json::json!({"format": format, "info": &info}).to_string();
    assert!(read(&serialise(&tensors(), &record(1)).unwrap()).is_ok());
    for format in [0, 2, 3] {
        let error = read(&serialise(&tensors(), &record(format)).unwrap()).unwrap_err();
        assert!(
            error.to_string().contains(&format!("it has format {format}")),
            "{error}"
        );
    }
}

#[test]
fn a_state_that_is_not_finite_is_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("w");
    for value in [f32::NAN, f32::INFINITY] {
        let tensor = Tensor::full(value, 3, &Device::Cpu).unwrap();
        let dict = StateDict::from([("a".to_owned(), tensor)]);
        let info: Body = serde_json::from_value(body(FORMAT)).unwrap();
        let error = Weights::save_state_dict(&dict, &info.info, &path).unwrap_err();
        assert!(matches!(error, Error::NonFiniteState { .. }), "{error}");
        assert!(!path.exists());
    }
    // A count is no such state.
    let count = Tensor::zeros(1, DType::I64, &Device::Cpu).unwrap();
    require_finite(&StateDict::from([("step".to_owned(), count)]), &path).unwrap();
}
