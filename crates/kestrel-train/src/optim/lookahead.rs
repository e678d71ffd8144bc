//! Lookahead: slow weights that follow another optimiser's fast ones.

use candle_core::backprop::GradStore;
use candle_core::{Device, Tensor, Var};
use kestrel_kernels::update::{average_step, gated, is_shut};
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
    /// Whether `alpha` is only reached at the end of the run; `None` for the same all along.
    pub decay: Option<AlphaDecay>,
}

/// The way of `alpha` down from 1, where the slow weights are the fast ones: fast progress first, strong averaging at the end.
///
/// ```text
/// alpha at a step = 1 − (1 − alpha) · (step / total_steps)^power
/// ```
///
/// # Source
/// K. Jordan 2024 (arXiv 2404.00498), section 3.4, whose `1 − alpha` is `0.95⁵ · progress³` for `k = 5`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AlphaDecay {
    /// Steps of the run, at least 1; beyond the last, `alpha` stays.
    pub total_steps: u64,
    /// At least 0; the higher, the later `alpha` comes down.
    pub power: f64,
}

impl LookaheadConfig {
    /// `alpha` after so many steps.
    fn alpha_at(&self, step: u64) -> f64 {
        match self.decay {
            None => self.alpha,
            Some(AlphaDecay { total_steps, power }) => {
                let progress = (step as f64 / total_steps as f64).min(1.0);
                1.0 - (1.0 - self.alpha) * progress.powf(power)
            }
        }
    }
}

impl Default for LookaheadConfig {
    fn default() -> Self {
        Self {
            k: 5,
            alpha: 0.5,
            decay: None,
        }
    }
}

/// Every `k` steps of the wrapped optimiser, sets its parameters to the slow weights, moved towards them:
/// `slow += alpha (fast − slow), fast = slow`.
///
/// The wrapped optimiser keeps its state, as the paper does for its main results. [`with_buffers`](Lookahead::with_buffers)
/// takes buffers along, as airbench does.
///
/// # Source
/// Zhang et al. 2019, "Lookahead Optimizer: k steps forward, 1 step back", algorithm 1; the golden file `optimizers`
/// compares with the same lines in PyTorch.
pub struct Lookahead {
    inner: Box<dyn Optimizer>,
    config: LookaheadConfig,
    slots: Vec<(String, Var, Tensor)>,
    /// Steps of the fast weights.
    steps: u64,
}

impl Lookahead {
    /// Wraps an optimiser; the slow weights start where its parameters are.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] for `k` 0, `alpha` outside of `[0, 1]`, no steps in all or a negative power.
    pub fn new(inner: Box<dyn Optimizer>, config: LookaheadConfig) -> Result<Self> {
        check(&[("alpha", config.alpha, Range::Unit)])?;
        let total_steps = config.decay.map_or(1, |decay| decay.total_steps);
        for (field, value) in [("k", config.k), ("total_steps", total_steps)] {
            if value == 0 {
                return Err(Error::InvalidConfig {
                    field,
                    expected: "at least 1",
                    got: "0".to_owned(),
                });
            }
        }
        if let Some(decay) = config.decay {
            check(&[("power", decay.power, Range::NotNegative)])?;
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
            steps: 0,
        })
    }
}

impl Lookahead {
    /// The same, which gives these variables slow values too: batch norms' running statistics, which belong to the weights that
    /// they were gathered with.
    ///
    /// # Errors
    /// Where a device cannot copy.
    pub fn with_buffers(mut self, buffers: NamedVars) -> Result<Self> {
        for (name, var) in buffers {
            let slow = var.as_detached_tensor().copy()?;
            self.slots.push((name, var, slow));
        }
        Ok(self)
    }

    /// Counts a step, and moves the slow weights where it is time to.
    fn follow(&mut self, gate: Option<&Tensor>) -> Result<()> {
        self.steps += 1;
        if !self.steps.is_multiple_of(self.config.k) {
            return Ok(());
        }
        let alpha = self.config.alpha_at(self.steps);
        for (_, var, slow) in &self.slots {
            let follow = || -> Result<()> {
                average_step(slow, var, alpha)?;
                Ok(var.set(slow)?)
            };
            match gate {
                None => follow()?,
                Some(gate) => gated(gate, &[var.as_tensor(), slow], follow)?,
            }
        }
        Ok(())
    }
}

impl Optimizer for Lookahead {
    fn step(&mut self, grads: &GradStore) -> Result<()> {
        self.inner.step(grads)?;
        self.follow(None)
    }

    fn step_gated(&mut self, grads: &GradStore, gate: &Tensor) -> Result<()> {
        if gate.device().is_cpu() {
            return if is_shut(gate)? { Ok(()) } else { self.step(grads) };
        }
        self.inner.step_gated(grads, gate)?;
        self.follow(Some(gate))
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
            Tensor::new(&[self.steps as i64], &Device::Cpu)?,
        );
        for (name, _, slow) in &self.slots {
            dict.insert(format!("slow.{name}"), slow.copy()?);
        }
        Ok(dict)
    }

    fn load_state_dict(&mut self, state: &StateDict) -> Result<()> {
        let steps = Tensor::new(&[0i64], &Device::Cpu)?;
        let steps = load(state, "lookahead_step", &steps)?.to_vec1::<i64>()?;
        let slow = self
            .slots
            .iter()
            .map(|(name, _, like)| load(state, &format!("slow.{name}"), like));
        let slow = slow.collect::<Result<Vec<_>>>()?;
        self.inner.load_state_dict(state)?;
        for ((_, _, to), from) in self.slots.iter_mut().zip(slow) {
            *to = from;
        }
        self.steps = steps.first().map_or(0, |step| (*step).max(0) as u64);
        Ok(())
    }
}
