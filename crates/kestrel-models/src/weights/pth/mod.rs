//! torch's own weight files, `.pth` and `.pt`, read as data: the zip format that `torch.save` writes since version 1.6.
//!
//! ```text
//! NAME/data.pkl      a pickle of the state dict, with references to storages
//! NAME/data/KEY      the elements of a storage
//! NAME/byteorder     of the elements: "little"
//! ```
//!
//! Every tensor of the file is read, or none: one that cannot be is an error.

mod pickle;

use std::collections::BTreeMap;
use std::io::{Read, Seek};
use std::path::Path;

use candle_core::{Device, Tensor};
use zip::{CompressionMethod, ZipArchive};

use crate::{Error, Result, StateDict};
use pickle::{Fault, Heap, Id, Object, StoredTensor};

/// The largest pickle that is read, in bytes. A ResNet's has 20 thousand.
const PICKLE_CAP: u64 = 4 << 20;

/// The most axes of a tensor.
const RANK_CAP: usize = 8;

/// The first bytes of a zip archive.
pub(super) const MAGIC: &[u8] = b"PK\x03\x04";

/// Reads the state dict of an archive; `path` stands in the errors.
///
/// # Errors
/// [`Error::Format`], [`Error::ForbiddenGlobal`], [`Error::UnreadableTensors`].
pub fn read_pth(archive: impl Read + Seek, path: &Path) -> Result<StateDict> {
    Archive::open(archive, path)?.state_dict()
}

struct Archive<'a, R> {
    zip: ZipArchive<R>,
    /// The archive's name and a slash.
    root: String,
    /// Bytes of the file.
    len: u64,
    path: &'a Path,
}

impl<'a, R: Read + Seek> Archive<'a, R> {
    fn open(mut file: R, path: &'a Path) -> Result<Self> {
        let read = |source| Error::Read {
            path: path.to_owned(),
            source,
        };
        let len = file.seek(std::io::SeekFrom::End(0)).map_err(read)?;
        file.rewind().map_err(read)?;
        let format = |reason: String| Error::Format {
            path: path.to_owned(),
            reason,
        };
        let damaged = |e: &dyn std::fmt::Display| {
            format(format!(
                "its zip archive is cut off or damaged ({e}); fetch or save it again"
            ))
        };
        let zip = ZipArchive::new(file).map_err(|e| damaged(&e))?;
        let mut roots = Vec::new();
        for name in zip.file_names() {
            let name = name.map_err(|e| damaged(&e))?;
            if let Some(root) = name.strip_suffix("data.pkl").filter(|root| root.ends_with('/')) {
                roots.push(root.to_owned());
            }
        }
        let [root] = roots.as_slice() else {
            let reason = format!(
                "it is a zip archive with {} files called data.pkl, where torch.save writes one; save a model's weights \
                 with torch.save(model.state_dict(), FILE)",
                roots.len()
            );
            return Err(format(reason));
        };
        let root = root.clone();
        Ok(Self { zip, root, len, path })
    }

    fn format(&self, reason: impl Into<String>) -> Error {
        Error::Format {
            path: self.path.to_owned(),
            reason: reason.into(),
        }
    }

    fn fault(&self, fault: Fault) -> Error {
        match fault {
            Fault::Malformed(reason) => self.format(reason),
            Fault::Forbidden(global) => Error::ForbiddenGlobal {
                path: self.path.to_owned(),
                global,
            },
        }
    }

    fn state_dict(&mut self) -> Result<StateDict> {
        self.check_byte_order()?;
        let pickle = self.entry("data.pkl", PICKLE_CAP);
        let pickle = pickle.map_err(|e| self.format(format!("{e}; fetch or save it again")))?;
        let (heap, value) = pickle::load(&pickle).map_err(|fault| self.fault(fault))?;
        let tensors = tensors(&heap, value).map_err(|fault| self.fault(fault))?;
        let mut faults = BTreeMap::new();
        let mut by_storage: BTreeMap<&str, Vec<(&str, &StoredTensor)>> = BTreeMap::new();
        // Views of one storage may be many: together they may not be more than such a file could hold twice.
        let mut left = self.len.saturating_mul(2);
        for (name, tensor) in tensors {
            let larger = || "it is larger than the file".to_owned();
            match bytes_of(tensor).and_then(|bytes| left.checked_sub(bytes).ok_or_else(larger)) {
                Ok(rest) => {
                    left = rest;
                    let storage = &*tensor.storage.key;
                    by_storage.entry(storage).or_default().push((name, tensor));
                }
                Err(fault) => {
                    faults.insert(name.to_owned(), fault);
                }
            }
        }
        let mut dict = StateDict::new();
        for (key, views) in by_storage {
            let elements = self.entry(&format!("data/{key}"), self.len);
            for (name, tensor) in views {
                match elements
                    .as_ref()
                    .map_err(Clone::clone)
                    .and_then(|bytes| view(bytes, tensor))
                {
                    Ok(tensor) => drop(dict.insert(name.to_owned(), tensor)),
                    Err(fault) => drop(faults.insert(name.to_owned(), fault)),
                }
            }
        }
        if !faults.is_empty() {
            return Err(Error::UnreadableTensors {
                path: self.path.to_owned(),
                faults: faults.into_iter().collect(),
            });
        }
        Ok(dict)
    }

    fn check_byte_order(&mut self) -> Result<()> {
        let name = format!("{}byteorder", self.root);
        if self.zip.index_for_name(&name).is_none() {
            return Ok(());
        }
        match self.entry("byteorder", 16).map_err(|e| self.format(e))?.as_slice() {
            b"little" => Ok(()),
            _ => Err(self.format("its tensors are not little-endian; save it again on a little-endian machine")),
        }
    }

    /// A whole entry of the archive, checked against its checksum.
    fn entry(&mut self, name: &str, cap: u64) -> std::result::Result<Vec<u8>, String> {
        let mut entry = self
            .zip
            .by_name(&format!("{}{name}", self.root))
            .map_err(|e| format!("{name}: {e}"))?;
        // torch stores its entries as they are. A packed one could hold any number of bytes.
        if entry.compression() != CompressionMethod::Stored {
            return Err(format!("{name} is compressed"));
        }
        let size = entry.size();
        if size > cap.min(self.len) {
            return Err(format!("{name} has {size} bytes, more than {}", cap.min(self.len)));
        }
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).map_err(|e| format!("{name}: {e}"))?;
        if bytes.len() as u64 != size {
            return Err(format!("{name} is cut off"));
        }
        Ok(bytes)
    }
}

/// The tensors of a dict, by name.
fn tensors(heap: &Heap, value: Id) -> std::result::Result<BTreeMap<&str, &StoredTensor>, Fault> {
    let malformed = |reason: String| Err(Fault::Malformed(reason));
    let items = match heap.get(value)? {
        Object::Dict(items) => items,
        other => return malformed(format!("it holds a {}, not a state dict", other.kind())),
    };
    let mut tensors = BTreeMap::new();
    for (key, value) in items {
        let name = match heap.get(*key)? {
            Object::Text(name) => &**name,
            other => {
                return malformed(format!(
                    "it holds a dict whose keys are a {}, not a state dict",
                    other.kind()
                ));
            }
        };
        match heap.get(*value)? {
            Object::Tensor(tensor) => drop(tensors.insert(name, &**tensor)),
            other => {
                let reason = match state_dict_within(heap, items)? {
                    Some(key) => format!(
                        "its state dict lies under {key:?}, beside other things; save that alone: \
                         torch.save(torch.load(FILE, map_location=\"cpu\", weights_only=True)[{key:?}], NEW)"
                    ),
                    None => format!(
                        "{name:?} is a {}, not a tensor: save the model's state_dict() alone",
                        other.kind()
                    ),
                };
                return malformed(reason);
            }
        }
    }
    Ok(tensors)
}

/// The key of the first dict of tensors among a dict's items, as training programs save one beside an epoch or an optimiser.
fn state_dict_within<'a>(heap: &'a Heap, items: &[(Id, Id)]) -> std::result::Result<Option<&'a str>, Fault> {
    // Such a dict has a few items. One made to do harm could name another dict a million times, each to be looked through.
    for (key, value) in items.iter().take(64) {
        if let (Object::Text(key), Object::Dict(inner)) = (heap.get(*key)?, heap.get(*value)?) {
            let is_tensor = |(_, value): &(Id, Id)| matches!(heap.get(*value), Ok(Object::Tensor(_)));
            if !inner.is_empty() && inner.iter().all(is_tensor) {
                return Ok(Some(&**key));
            }
        }
    }
    Ok(None)
}

/// How many bytes a tensor has by itself; or why it can be no tensor.
fn bytes_of(tensor: &StoredTensor) -> std::result::Result<u64, String> {
    let width = tensor.storage.dtype.map_or(1, |dtype| dtype.size_in_bytes());
    // A size of 0 does not make the others small: strides are their products.
    let mut sizes = tensor.size.iter().map(|size| (*size).max(1));
    let bytes = sizes.try_fold(width, usize::checked_mul);
    let bytes = bytes.ok_or_else(|| format!("its sizes {:?} are more than a machine can count", tensor.size))?;
    Ok(if tensor.size.contains(&0) { 0 } else { bytes as u64 })
}

/// The tensor that is a view of a storage's bytes, copied out in row-major order.
fn view(bytes: &[u8], tensor: &StoredTensor) -> std::result::Result<Tensor, String> {
    let StoredTensor {
        storage,
        offset,
        size,
        stride,
    } = tensor;
    let Some(dtype) = storage.dtype else {
        return Err("it has an element type that is not read".to_owned());
    };
    if size.len() != stride.len() || size.len() > RANK_CAP {
        return Err(format!("it has {} sizes and {} strides", size.len(), stride.len()));
    }
    let width = dtype.size_in_bytes();
    if storage.len.checked_mul(width) != Some(bytes.len()) {
        let (len, held) = (storage.len, bytes.len());
        return Err(format!(
            "its storage has {held} bytes, but is said to hold {len} elements of {dtype:?}"
        ));
    }
    let count: usize = size.iter().product();
    if count > 0 {
        let reach = |last: usize, (size, stride): (&usize, &usize)| last.checked_add((size - 1).checked_mul(*stride)?);
        let last = size.iter().zip(stride).try_fold(*offset, reach);
        if last.is_none_or(|last| last >= storage.len) {
            return Err(format!("it reaches past the {} elements of its storage", storage.len));
        }
    }
    let make = |bytes: &[u8]| Tensor::from_raw_buffer(bytes, dtype, size, &Device::Cpu).map_err(|e| e.to_string());
    if is_contiguous(size, stride) {
        let start = if count > 0 { offset * width } else { 0 };
        return make(&bytes[start..start + count * width]);
    }
    let mut gathered = Vec::with_capacity(count * width);
    let mut index = vec![0; size.len()];
    for _ in 0..count {
        let at = offset + index.iter().zip(stride).map(|(i, stride)| i * stride).sum::<usize>();
        gathered.extend_from_slice(&bytes[at * width..][..width]);
        for (i, size) in index.iter_mut().zip(size).rev() {
            *i += 1;
            if *i < *size {
                break;
            }
            *i = 0;
        }
    }
    make(&gathered)
}

/// Whether the elements lie in row-major order without gaps. The stride of an axis of one element says nothing.
fn is_contiguous(size: &[usize], stride: &[usize]) -> bool {
    let mut expected = Some(1usize);
    size.iter().zip(stride).rev().all(|(size, stride)| {
        let fits = *size == 1 || Some(*stride) == expected;
        expected = expected.and_then(|expected| expected.checked_mul(*size));
        fits
    })
}

#[cfg(test)]
mod tests;
