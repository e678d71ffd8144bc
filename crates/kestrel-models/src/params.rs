//! A model's parameters and buffers, sorted by name.
//!
//! candle's `VarMap` is a `HashMap`, whose order differs from process to process; sums and files made from it would
//! too. [`Params`] keeps its variables sorted, draws their initial values from a seeded generator keyed by the name,
//! loads a state dict whole or not at all, and knows which parameters are frozen.

mod loading;
mod parameter;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use candle_core::{DType, Device, Shape, Tensor, Var};
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init, VarBuilder};

pub use loading::{LoadReport, Replaced};
pub use parameter::{ParamBuilder, Parameter};

use crate::{Error, Result, init};

/// Tensors by name.
pub type StateDict = BTreeMap<String, Tensor>;

/// The variables of a model by PyTorch's names. Clones share the variables.
#[derive(Clone, Debug)]
pub struct Params {
    entries: Arc<RwLock<Entries>>,
    seed: u64,
}

type Entries = BTreeMap<String, Entry>;

#[derive(Debug)]
struct Entry {
    var: Var,
    /// Shared with the layer that holds the parameter.
    frozen: Arc<AtomicBool>,
    /// Whether it is frozen for good.
    fixed: bool,
}

/// Whether a name is that of a buffer: state which no gradient reaches, such as batch norm's running statistics.
pub fn is_buffer(name: &str) -> bool {
    matches!(name.rsplit('.').next(), Some("running_mean" | "running_var"))
}

/// Whether a name is `module`, or that of something in it: `layer1` holds `layer1.0.conv1.weight`, not `layer10.weight`.
/// The empty module is the model.
pub(crate) fn in_module(name: &str, module: &str) -> bool {
    let rest = name.strip_prefix(module);
    module.is_empty() || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

impl Params {
    /// An empty store, whose variables will be drawn from `seed`.
    pub fn new(seed: u64) -> Self {
        Self {
            entries: Arc::default(),
            seed,
        }
    }

    /// A builder for this crate's layers, which creates each parameter it is asked for in this store.
    pub fn builder(&self, dtype: DType, device: &Device) -> ParamBuilder {
        ParamBuilder::new(self.clone(), dtype, device.clone())
    }

    /// A builder for candle's layers: its own `VarBuilder`, whose values are drawn from this store's seed.
    ///
    /// candle's layers hold plain tensors: frozen, they are not trained either, but their gradients are still computed.
    pub fn var_builder(&self, dtype: DType, device: &Device) -> VarBuilder<'static> {
        VarBuilder::from_backend(Box::new(Creator(self.clone())), dtype, device.clone())
    }

    fn read(&self) -> RwLockReadGuard<'_, Entries> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every variable, sorted by name.
    pub fn all(&self) -> Vec<(String, Var)> {
        self.read()
            .iter()
            .map(|(name, entry)| (name.clone(), entry.var.clone()))
            .collect()
    }

    /// The variables that an optimiser moves: all but the buffers and what is frozen, sorted by name.
    pub fn trainable(&self) -> Vec<(String, Var)> {
        self.read()
            .iter()
            .filter(|(name, entry)| !is_buffer(name) && !entry.frozen.load(Ordering::Relaxed))
            .map(|(name, entry)| (name.clone(), entry.var.clone()))
            .collect()
    }

    /// How many numbers the optimiser moves.
    pub fn num_parameters(&self) -> usize {
        self.trainable().iter().map(|(_, var)| var.elem_count()).sum()
    }

    /// Freezes the parameters of a module, or the one parameter of that name; the empty name is the whole model.
    ///
    /// A frozen parameter is not [`trainable`](Self::trainable) and its gradient is not computed. A batch norm whose weight
    /// and bias are both frozen normalises by its running statistics, which stay as they are, in training too. An optimiser
    /// that was built before leaves a frozen parameter alone, for it has no gradient.
    ///
    /// # Errors
    /// [`Error::UnknownModule`] where no parameter has such a name.
    pub fn freeze(&self, module: &str) -> Result<()> {
        self.set_frozen(module, true)
    }

    /// Undoes [`freeze`](Self::freeze). What was made [`fixed`](ParamBuilder::fixed) stays frozen.
    ///
    /// # Errors
    /// [`Error::UnknownModule`] where no parameter has such a name.
    pub fn unfreeze(&self, module: &str) -> Result<()> {
        self.set_frozen(module, false)
    }

    /// Errors unless some parameter is in a module, or has that name itself.
    ///
    /// # Errors
    /// [`Error::UnknownModule`].
    pub fn require_module(&self, module: &str) -> Result<()> {
        let entries = self.read();
        let mut parameters = entries.keys().filter(|name| !is_buffer(name));
        if parameters.any(|name| in_module(name, module)) {
            return Ok(());
        }
        Err(Error::UnknownModule {
            name: module.to_owned(),
        })
    }

    fn set_frozen(&self, module: &str, frozen: bool) -> Result<()> {
        self.require_module(module)?;
        let entries = self.read();
        let found = entries
            .iter()
            .filter(|(name, _)| !is_buffer(name) && in_module(name, module));
        found.for_each(|(_, entry)| entry.frozen.store(frozen || entry.fixed, Ordering::Relaxed));
        Ok(())
    }

    /// Whether every parameter of a module is frozen, or the one parameter of that name.
    pub fn is_frozen(&self, module: &str) -> bool {
        self.read()
            .iter()
            .filter(|(name, _)| !is_buffer(name) && in_module(name, module))
            .all(|(_, entry)| entry.frozen.load(Ordering::Relaxed))
    }

    /// A copy of every variable, by name.
    ///
    /// # Errors
    /// Where a device cannot copy.
    pub fn state_dict(&self) -> Result<StateDict> {
        self.read()
            .iter()
            .map(|(name, entry)| Ok((name.clone(), entry.var.as_tensor().copy()?.detach())))
            .collect()
    }

    /// The tensor of a variable, created if there is none of that name, and whether it is frozen.
    fn get_or_create(
        &self,
        name: &str,
        shape: &Shape,
        init: &Init,
        fixed: bool,
        dtype: DType,
        device: &Device,
    ) -> candle_core::Result<(Tensor, Arc<AtomicBool>)> {
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        let entry = match entries.get(name) {
            Some(entry) => entry,
            None => {
                let var = Var::from_tensor(&init::draw(init, shape, self.seed, name, dtype, device)?)?;
                let frozen = Arc::new(AtomicBool::new(fixed));
                entries.entry(name.to_owned()).or_insert(Entry { var, frozen, fixed })
            }
        };
        if entry.var.shape() != shape {
            candle_core::bail!("{name} exists with shape {:?}, asked for {shape:?}", entry.var.shape());
        }
        Ok((entry.var.as_tensor().clone(), Arc::clone(&entry.frozen)))
    }
}

/// Creates variables on demand, for candle's `VarBuilder`.
struct Creator(Params);

impl SimpleBackend for Creator {
    fn get(&self, s: Shape, name: &str, h: Init, dtype: DType, dev: &Device) -> candle_core::Result<Tensor> {
        Ok(self.0.get_or_create(name, &s, &h, false, dtype, dev)?.0)
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> candle_core::Result<Tensor> {
        match self.0.read().get(name) {
            Some(entry) => Ok(entry.var.as_tensor().clone()),
            None => candle_core::bail!("no parameter is called {name}"),
        }
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.0.read().contains_key(name)
    }
}

#[cfg(test)]
mod tests;
