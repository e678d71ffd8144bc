//! A model's parameters and buffers, sorted by name.
//!
//! candle's `VarMap` is a `HashMap`, whose order differs from process to process; sums and files made from it would
//! too. [`Params`] keeps its variables sorted, draws their initial values from a seeded generator keyed by the name,
//! and loads a state dict whole or not at all.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use candle_core::{DType, Device, Shape, Tensor, Var};
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init, VarBuilder};

use crate::{Error, Result, StateDictMismatch, init};

/// Tensors by name.
pub type StateDict = BTreeMap<String, Tensor>;

/// The variables of a model by PyTorch's names. Clones share the variables.
#[derive(Clone, Debug)]
pub struct Params {
    vars: Arc<RwLock<BTreeMap<String, Var>>>,
    seed: u64,
}

/// Whether a name is that of a buffer: state which no gradient reaches, such as batch norm's running statistics.
pub fn is_buffer(name: &str) -> bool {
    matches!(name.rsplit('.').next(), Some("running_mean" | "running_var"))
}

impl Params {
    /// An empty store, whose variables will be drawn from `seed`.
    pub fn new(seed: u64) -> Self {
        Self {
            vars: Arc::default(),
            seed,
        }
    }

    /// A builder that creates each variable it is asked for in this store.
    ///
    /// It is candle's own `VarBuilder`, so `candle_nn` layers can be built on it; their values are drawn from this
    /// store's seed.
    pub fn var_builder(&self, dtype: DType, device: &Device) -> VarBuilder<'static> {
        VarBuilder::from_backend(Box::new(Creator(self.clone())), dtype, device.clone())
    }

    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<String, Var>> {
        self.vars.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every variable, sorted by name.
    pub fn all(&self) -> Vec<(String, Var)> {
        self.read()
            .iter()
            .map(|(name, var)| (name.clone(), var.clone()))
            .collect()
    }

    /// The variables that an optimiser moves: all but the buffers, sorted by name.
    pub fn trainable(&self) -> Vec<(String, Var)> {
        self.all().into_iter().filter(|(name, _)| !is_buffer(name)).collect()
    }

    /// How many numbers the optimiser moves.
    pub fn num_parameters(&self) -> usize {
        self.trainable().iter().map(|(_, var)| var.elem_count()).sum()
    }

    /// A copy of every variable, by name.
    ///
    /// # Errors
    /// Where a device cannot copy.
    pub fn state_dict(&self) -> Result<StateDict> {
        self.read()
            .iter()
            .map(|(name, var)| Ok((name.clone(), var.as_tensor().copy()?.detach())))
            .collect()
    }

    /// Sets every variable from a state dict, or none.
    ///
    /// PyTorch's `num_batches_tracked` counters are passed over; nothing here depends on them.
    ///
    /// # Errors
    /// [`Error::StateDict`] lists every missing, unexpected and mismatched tensor.
    pub fn load_state_dict(&self, dict: &StateDict) -> Result<()> {
        let vars = self.read();
        let mut mismatch = StateDictMismatch::default();
        for (name, var) in vars.iter() {
            match dict.get(name) {
                None => mismatch.missing.push(name.clone()),
                Some(t) if t.shape() != var.shape() || !t.dtype().is_float() => mismatch.mismatched.push((
                    name.clone(),
                    format!("{:?} {:?}", var.dtype(), var.dims()),
                    format!("{:?} {:?}", t.dtype(), t.dims()),
                )),
                Some(_) => {}
            }
        }
        let known = |name: &String| vars.contains_key(name) || name.ends_with(".num_batches_tracked");
        mismatch.unexpected = dict.keys().filter(|name| !known(name)).cloned().collect();
        if !mismatch.is_empty() {
            return Err(Error::StateDict(mismatch));
        }
        // Every conversion comes before the first assignment, so that a failing device leaves the model as it was.
        let mut ready = Vec::with_capacity(vars.len());
        for (name, var) in vars.iter() {
            if let Some(tensor) = dict.get(name) {
                ready.push((
                    var,
                    tensor.to_dtype(var.dtype())?.to_device(var.device())?.contiguous()?,
                ));
            }
        }
        for (var, tensor) in ready {
            var.set(&tensor)?;
        }
        Ok(())
    }
}

/// Creates variables on demand, for candle's `VarBuilder`.
struct Creator(Params);

impl SimpleBackend for Creator {
    fn get(&self, s: Shape, name: &str, h: Init, dtype: DType, dev: &Device) -> candle_core::Result<Tensor> {
        let mut vars = self.0.vars.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(var) = vars.get(name) {
            if var.shape() != &s {
                candle_core::bail!("{name} exists with shape {:?}, asked for {s:?}", var.shape());
            }
            return Ok(var.as_tensor().clone());
        }
        let var = Var::from_tensor(&init::draw(&h, &s, self.0.seed, name, dtype, dev)?)?;
        let tensor = var.as_tensor().clone();
        vars.insert(name.to_owned(), var);
        Ok(tensor)
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> candle_core::Result<Tensor> {
        match self.0.read().get(name) {
            Some(var) => Ok(var.as_tensor().clone()),
            None => candle_core::bail!("no parameter is called {name}"),
        }
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.0.read().contains_key(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(seed: u64) -> Params {
        let params = Params::new(seed);
        let vb = params.var_builder(DType::F32, &Device::Cpu);
        let unit = Init::Uniform { lo: -1., up: 1. };
        for (name, n) in [("b.weight", 3), ("a.weight", 2), ("a.running_mean", 2)] {
            let (layer, leaf) = name.split_once('.').unwrap_or((name, ""));
            vb.pp(layer).get_with_hints(n, leaf, unit).unwrap();
        }
        params
    }

    #[test]
    fn variables_are_sorted_and_buffers_are_not_trained() {
        let params = store(0);
        let names = |vars: Vec<(String, Var)>| vars.into_iter().map(|(n, _)| n).collect::<Vec<_>>();
        assert_eq!(names(params.all()), ["a.running_mean", "a.weight", "b.weight"]);
        assert_eq!(names(params.trainable()), ["a.weight", "b.weight"]);
        assert_eq!(params.num_parameters(), 5);
    }

    #[test]
    fn values_depend_on_seed_and_name_alone() {
        let value = |p: &Params, i: usize| p.all()[i].1.to_vec1::<f32>().unwrap();
        assert_eq!(value(&store(1), 1), value(&store(1), 1));
        assert_ne!(value(&store(1), 1), value(&store(2), 1));
        assert_ne!(value(&store(1), 0), value(&store(1), 1));
    }

    #[test]
    fn a_bad_state_dict_names_every_fault_and_changes_nothing() {
        let params = store(0);
        let before = params.state_dict().unwrap();
        let mut dict = store(1).state_dict().unwrap();
        dict.remove("a.weight");
        dict.insert("c.weight".into(), Tensor::zeros(1, DType::F32, &Device::Cpu).unwrap());
        dict.insert(
            "b.weight".into(),
            Tensor::zeros((3, 1), DType::F32, &Device::Cpu).unwrap(),
        );
        let Err(Error::StateDict(mismatch)) = params.load_state_dict(&dict) else {
            panic!("must be refused")
        };
        assert_eq!(mismatch.missing, ["a.weight"]);
        assert_eq!(mismatch.unexpected, ["c.weight"]);
        assert_eq!(mismatch.mismatched.len(), 1);
        for (name, tensor) in params.state_dict().unwrap() {
            assert_eq!(
                tensor.to_vec1::<f32>().unwrap(),
                before[&name].to_vec1::<f32>().unwrap()
            );
        }
    }

    #[test]
    fn pytorchs_batch_counters_are_passed_over() {
        let params = store(0);
        let mut dict = store(1).state_dict().unwrap();
        dict.insert(
            "a.num_batches_tracked".into(),
            Tensor::zeros((), DType::I64, &Device::Cpu).unwrap(),
        );
        params.load_state_dict(&dict).unwrap();
        assert_eq!(
            params.all()[1].1.to_vec1::<f32>().unwrap(),
            store(1).all()[1].1.to_vec1::<f32>().unwrap()
        );
    }
}
