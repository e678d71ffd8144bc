//! Loading a state dict into a model: whole, or whole but for the head; never in part.

use candle_core::{DType, Tensor};
use kestrel_kernels::update::LEAST_PARAM;

use super::{Entries, Params, in_module, is_buffer};
use crate::{Error, Result, StateDict, StateDictMismatch};

/// What [`Params::load_with_new_head`] or [`Params::load_for_other_classes`] has done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadReport {
    /// How many tensors were set from the file.
    pub loaded: usize,
    /// The tensors of the head that keep their initial values, because the file's tell other classes apart.
    pub replaced: Vec<Replaced>,
}

/// A tensor of the head whose values in the file were passed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replaced {
    /// Its name.
    pub name: String,
    /// Its shape in the model.
    pub expected: Vec<usize>,
    /// Its shape in the file.
    pub got: Vec<usize>,
}

impl std::fmt::Display for LoadReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "loaded {} tensors", self.loaded)?;
        for Replaced { name, expected, got } in &self.replaced {
            write!(f, "; {name} is new, {expected:?} instead of the file's {got:?}")?;
        }
        Ok(())
    }
}

impl Params {
    /// Sets every variable from a state dict, or none.
    ///
    /// PyTorch's `num_batches_tracked` counters are passed over; nothing here depends on them.
    ///
    /// # Errors
    /// [`Error::StateDict`] lists every missing, unexpected and mismatched tensor.
    pub fn load_state_dict(&self, dict: &StateDict) -> Result<()> {
        self.load(dict, None, false).map(|_| ())
    }

    /// As [`load_state_dict`](Self::load_state_dict), but the layer `head` keeps its initial values where the dict's was made
    /// for another number of classes.
    ///
    /// The head is replaced whole or not at all, and only where its tensors differ in their first axis, the classes, alone.
    ///
    /// # Errors
    /// [`Error::StateDict`] lists every missing, unexpected and mismatched tensor; nothing was changed.
    pub fn load_with_new_head(&self, dict: &StateDict, head: &str) -> Result<LoadReport> {
        self.load(dict, Some(head), false)
    }

    /// As [`load_with_new_head`](Self::load_with_new_head), but the head keeps its initial values also where the dict's has as
    /// many classes: they are other ones.
    ///
    /// # Errors
    /// [`Error::StateDict`] lists every missing, unexpected and mismatched tensor; nothing was changed.
    pub fn load_for_other_classes(&self, dict: &StateDict, head: &str) -> Result<LoadReport> {
        self.load(dict, Some(head), true)
    }

    fn load(&self, dict: &StateDict, head: Option<&str>, other_classes: bool) -> Result<LoadReport> {
        let entries = self.read();
        let replaced = head.and_then(|head| new_head(&entries, dict, head, other_classes));
        let replaced = replaced.unwrap_or_default();
        let is_replaced = |name: &str| replaced.iter().any(|tensor| tensor.name == name);
        let mut mismatch = StateDictMismatch::default();
        for (name, entry) in entries.iter().filter(|(name, _)| !is_replaced(name)) {
            match dict.get(name) {
                None => mismatch.missing.push(name.clone()),
                Some(t) if t.shape() != entry.var.shape() || !t.dtype().is_float() => {
                    mismatch
                        .mismatched
                        .push((name.clone(), describe(&entry.var), compared(t, &entry.var)));
                }
                Some(_) => {}
            }
        }
        let known = |name: &String| entries.contains_key(name) || is_batch_counter(&entries, name);
        mismatch.unexpected = dict.keys().filter(|name| !known(name)).cloned().collect();
        if !mismatch.is_empty() {
            return Err(Error::StateDict(mismatch));
        }
        // Every conversion comes before the first assignment, so that a failing device leaves the model as it was.
        let mut ready = Vec::with_capacity(entries.len());
        for (name, entry) in entries.iter().filter(|(name, _)| !is_replaced(name)) {
            if let Some(tensor) = dict.get(name) {
                let tensor = tensor.to_dtype(entry.var.dtype())?.to_device(entry.var.device())?;
                ready.push((&entry.var, tensor.contiguous()?));
            }
        }
        for (var, tensor) in &ready {
            var.set(tensor)?;
        }
        Ok(LoadReport {
            loaded: ready.len(),
            replaced,
        })
    }

    /// Sets the numbers below [`LEAST_PARAM`] (8e-31) in parameters of `f32` to 0, as the steps of `kestrel_kernels::update` do.
    ///
    /// For weights that were trained elsewhere: those whose inputs died decay to subnormal numbers, which processors multiply up
    /// to a hundred times more slowly.
    ///
    /// # Errors
    /// Where a device cannot compute.
    pub fn flush_denormal(&self) -> Result<()> {
        for (name, entry) in self.read().iter() {
            if entry.var.dtype() == DType::F32 && !is_buffer(name) {
                let tensor = entry.var.as_detached_tensor();
                let tiny = tensor.abs()?.lt(LEAST_PARAM)?;
                entry.var.set(&tiny.where_cond(&tensor.zeros_like()?, &tensor)?)?;
            }
        }
        Ok(())
    }
}

/// The tensors of the head, if each of them is in the dict for one other number of classes, or for `other_classes`.
fn new_head(entries: &Entries, dict: &StateDict, head: &str, other_classes: bool) -> Option<Vec<Replaced>> {
    let mut classes = None;
    let mut replaced = Vec::new();
    for (name, entry) in entries.iter().filter(|(name, _)| in_module(name, head)) {
        let (expected, got) = (entry.var.dims(), dict.get(name)?);
        let got = got.dtype().is_float().then(|| got.dims())?;
        let ((here, inputs), (there, their_inputs)) = (expected.split_first()?, got.split_first()?);
        if (here == there && !other_classes) || inputs != their_inputs || *classes.get_or_insert(*there) != *there {
            return None;
        }
        replaced.push(Replaced {
            name: name.clone(),
            expected: expected.to_vec(),
            got: got.to_vec(),
        });
    }
    Some(replaced)
}

/// Whether a name is PyTorch's count of the batches that one of the model's batch norms has seen.
fn is_batch_counter(entries: &Entries, name: &str) -> bool {
    let module = name.strip_suffix("num_batches_tracked");
    module.is_some_and(|module| entries.contains_key(&format!("{module}running_mean")))
}

fn describe(tensor: &Tensor) -> String {
    format!("{:?} {:?}", tensor.dtype(), tensor.dims())
}

/// What came, with a word on the commonest mistake.
fn compared(got: &Tensor, expected: &Tensor) -> String {
    let reversed = got.dims().iter().rev().eq(expected.dims());
    let note = if reversed && got.dims() != expected.dims() {
        " (transposed)"
    } else {
        ""
    };
    format!("{}{note}", describe(got))
}
