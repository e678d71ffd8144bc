//! Safetensors files with one JSON record in the header.
//!
//! The header carries a single metadata key, `kestrel`: the format keeps metadata in a hash map, and with one key the
//! bytes of a file are a function of its contents.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use super::file_kind::{FileKind, HEAD};
use crate::{Error, Result, StateDict};

const KEY: &str = "kestrel";

/// The contents of a file.
#[derive(Debug)]
pub struct TensorFile {
    /// Tensors by name, on the CPU.
    pub tensors: StateDict,
    /// The JSON record; absent from files that other programs wrote.
    pub record: Option<String>,
}

/// Lays out tensors and a JSON record as a safetensors file. Equal contents give equal bytes.
///
/// # Errors
/// Where a tensor is none of `f32`, `f64`, `u32` and `i64`, or cannot be copied to the CPU.
pub fn serialise(tensors: &StateDict, record: &str) -> Result<Vec<u8>> {
    lay_out(tensors, KEY, record)
}

/// Lays out a model's state dict as a safetensors file for torch: `load_state_dict(safetensors.torch.load_file(path))` of
/// the same torchvision model takes it as it is. Equal contents give equal bytes.
///
/// Each batch norm gets the counter `num_batches_tracked` that torch expects, at 0: it counts for nothing where, as in
/// torchvision, the momentum is a number.
///
/// # Errors
/// Those of [`serialise`].
pub fn export(tensors: &StateDict) -> Result<Vec<u8>> {
    let mut tensors = tensors.clone();
    let modules: Vec<String> = tensors
        .keys()
        .filter_map(|name| name.strip_suffix("running_mean").map(str::to_owned))
        .collect();
    for module in modules {
        let counter = Tensor::zeros((), DType::I64, &Device::Cpu)?;
        tensors.insert(format!("{module}num_batches_tracked"), counter);
    }
    // What readers of torch's safetensors look for.
    lay_out(&tensors, "format", "pt")
}

/// A file whose metadata is one key.
fn lay_out(tensors: &StateDict, key: &str, value: &str) -> Result<Vec<u8>> {
    let mut bytes = BTreeMap::new();
    for (name, tensor) in tensors {
        bytes.insert(name.as_str(), to_bytes(tensor)?);
    }
    let views = bytes
        .iter()
        .map(|(name, (dtype, shape, data))| Ok((*name, TensorView::new(*dtype, shape.clone(), data)?)))
        .collect::<Result<Vec<_>>>()?;
    let metadata = HashMap::from([(key.to_owned(), value.to_owned())]);
    Ok(safetensors::serialize(views, Some(metadata))?)
}

fn to_bytes(tensor: &Tensor) -> Result<(Dtype, Vec<usize>, Vec<u8>)> {
    let flat = tensor.to_device(&Device::Cpu)?.flatten_all()?;
    macro_rules! le {
        ($ty:ty) => {
            flat.to_vec1::<$ty>()?
                .into_iter()
                .flat_map(<$ty>::to_le_bytes)
                .collect()
        };
    }
    let (dtype, data) = match tensor.dtype() {
        DType::F32 => (Dtype::F32, le!(f32)),
        DType::F64 => (Dtype::F64, le!(f64)),
        DType::U32 => (Dtype::U32, le!(u32)),
        DType::I64 => (Dtype::I64, le!(i64)),
        other => {
            return Err(Error::InvalidConfig {
                field: "dtype",
                expected: "f32, f64, u32 or i64",
                got: format!("{other:?}"),
            });
        }
    };
    Ok((dtype, tensor.dims().to_vec(), data))
}

/// Reads a safetensors file, Kestrel's or another program's.
///
/// # Errors
/// [`Error::Read`] where the file cannot be read, [`Error::Format`] where it is not a whole safetensors file.
pub fn read(path: &Path) -> Result<TensorFile> {
    let bytes = std::fs::read(path).map_err(|source| Error::Read {
        path: path.to_owned(),
        source,
    })?;
    parse(&bytes, path)
}

/// As [`read`], from bytes; `path` stands in the errors.
///
/// # Errors
/// [`Error::Format`] where the bytes are not a whole safetensors file.
pub fn parse(bytes: &[u8], path: &Path) -> Result<TensorFile> {
    let bad = |fault: &dyn std::fmt::Display| Error::Format {
        path: path.to_owned(),
        reason: FileKind::of(&bytes[..bytes.len().min(HEAD)]).explain(&fault.to_string()),
    };
    let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(|e| bad(&e))?;
    let record = metadata.metadata().as_ref().and_then(|m| m.get(KEY)).cloned();
    let tensors = candle_core::safetensors::load_buffer(bytes, &Device::Cpu).map_err(|e| bad(&e))?;
    Ok(TensorFile {
        tensors: tensors.into_iter().collect(),
        record,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dict() -> StateDict {
        let t = |values: &[f32]| Tensor::new(values, &Device::Cpu).unwrap();
        BTreeMap::from([("b".to_owned(), t(&[1.5, -2.0])), ("a".to_owned(), t(&[3.0]))])
    }

    #[test]
    fn round_trip_keeps_bits_and_record() {
        let bytes = serialise(&dict(), r#"{"x":1}"#).unwrap();
        let file = parse(&bytes, Path::new("w")).unwrap();
        assert_eq!(file.record.as_deref(), Some(r#"{"x":1}"#));
        assert_eq!(file.tensors["b"].to_vec1::<f32>().unwrap(), [1.5, -2.0]);
        assert_eq!(serialise(&file.tensors, r#"{"x":1}"#).unwrap(), bytes);
    }

    #[test]
    fn an_export_counts_the_batches_of_each_batch_norm() {
        let mut dict = dict();
        for name in ["bn1.running_mean", "layer1.0.bn2.running_mean"] {
            dict.insert(name.to_owned(), Tensor::zeros(2, DType::F32, &Device::Cpu).unwrap());
        }
        let bytes = export(&dict).unwrap();
        let file = parse(&bytes, Path::new("w")).unwrap();
        assert_eq!(file.tensors.len(), dict.len() + 2);
        for name in ["bn1.num_batches_tracked", "layer1.0.bn2.num_batches_tracked"] {
            assert_eq!(file.tensors[name].to_scalar::<i64>().unwrap(), 0);
        }
        let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
        let want = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        assert_eq!(metadata.metadata().as_ref(), Some(&want));
    }

    #[test]
    fn a_file_cut_anywhere_is_refused() {
        let bytes = serialise(&dict(), "{}").unwrap();
        for end in 0..bytes.len() {
            assert!(parse(&bytes[..end], Path::new("w")).is_err(), "cut at {end}");
        }
    }
}
