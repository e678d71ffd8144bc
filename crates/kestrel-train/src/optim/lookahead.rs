//! Lookahead: slow weights that follow another optimiser's fast ones.

use candle_core::backprop::GradStore;
use candle_core::{Device, Tensor, Var};
use kestrel_kernels::update::average_step;
use kestrel_models::StateDict;

use super::per_parameter::load;
use super::{NamedVars, Optimizer, Range, check};
use crate::{Error, Result};

/// The options of [`Lookahead`]; the defaults are the paper's for CIFAR-10.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LookaheadConfig {
    /// Steps of the fast weights for each of the slow ones, at least 1.
    pub k: u64,
    /// How far the slow weights go towards the fast ones, in `[0, 1]`.
    pub alpha: f64,
}

impl Default for LookaheadConfig {
    fn default() -> Self {
        Self { k: 5, alpha: 0.5 }
    }
}

/// Every `k` steps of the wrapped optimiser, sets its parameters to the slow weights, moved towards them:
/// `slow += alpha (fast − slow), fast = slow`.
///
/// The wrapped optimiser keeps its state, as the paper does for its main results.
///
/// # Source
/// Zhang et al. 2019, "Lookahead Optimizer: k steps forward, 1 step back", algorithm 1; the golden file `optimizers`
/// compares with the same lines in PyTorch.
pub struct Lookahead {
    inner: Box<dyn Optimizer>,
    config: LookaheadConfig,
    slots: Vec<(String, Var, Tensor)>,
    /// Steps of the fast weights since the slow ones moved.
    since: u64,
}

impl Lookahead {
    /// Wraps an optimiser; the slow weights start where its parameters are.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] for `k` 0 or `alpha` outside of `[0, 1]`.
    pub fn new(inner: Box<dyn Optimizer>, config: LookaheadConfig) -> Result<Self> {
        check(&[("alpha", config.alpha, Range::Unit)])?;
        if config.k == 0 {
            return Err(Error::InvalidConfig {
                field: "k",
                expected: "at least 1",
                got: "0".to_owned(),
            });
        }
        let slots = inner
            .params()
            .into_iter()
            .map(|(name, var)| {
                let slow = var.as_detached_tensor().copy()?;
                Ok((name, var, slow))
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            inner,
            config,
            slots,
            since: 0,
        })
    }
}

impl Optimizer for Lookahead {
    fn step(&mut self, grads: &GradStore) -> Result<()> {
        self.inner.step(grads)?;
        self.since += 1;
        if self.since == self.config.k {
            self.since = 0;
            for (_, var, slow) in &self.slots {
                average_step(slow, var, self.config.alpha)?;
                var.set(slow)?;
            }
        }
        Ok(())
    }

    fn params(&self) -> NamedVars {
        self.inner.params()
    }

    fn lrs(&self) -> Vec<f64> {
        self.inner.lrs()
    }

    fn set_lrs(&mut self, lrs: &[f64]) {
        self.inner.set_lrs(lrs);
    }

    fn state_dict(&self) -> Result<StateDict> {
        let mut dict = self.inner.state_dict()?;
        dict.insert(
            "lookahead_step".to_owned(),
            Tensor::new(&[self.since as i64], &Device::Cpu)?,
        );
        for (name, _, slow) in &self.slots {
            dict.insert(format!("slow.{name}"), slow.copy()?);
        }
        Ok(dict)
    }

    fn load_state_dict(&mut self, state: &StateDict) -> Result<()> {
        let since = Tensor::new(&[0i64], &Device::Cpu)?;
        let since = load(state, "lookahead_step", &since)?.to_vec1::<i64>()?;
        let slow = self
            .slots
            .iter()
            .map(|(name, _, like)| load(state, &format!("slow.{name}"), like));
        let slow = slow.collect::<Result<Vec<_>>>()?;
        self.inner.load_state_dict(state)?;
        for ((_, _, to), from) in self.slots.iter_mut().zip(slow) {
            *to = from;
        }
        self.since = since.first().map_or(0, |step| (*step).max(0) as u64);
        Ok(())
    }
}
