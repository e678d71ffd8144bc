//! Several optimisers that share a model's parameters among them.

use candle_core::Tensor;
use candle_core::backprop::GradStore;
use kestrel_models::StateDict;

use super::{NamedVars, Optimizer};
use crate::{Error, Result};

/// Steps each of several optimisers; their groups, learning rates and states follow one another.
pub struct Combined {
    parts: Vec<Box<dyn Optimizer>>,
}

impl Combined {
    /// `parts` in the order of their groups.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] where two parts move the same parameter.
    pub fn new(parts: Vec<Box<dyn Optimizer>>) -> Result<Self> {
        let mut names = std::collections::BTreeSet::new();
        for (name, _) in parts.iter().flat_map(|part| part.params()) {
            if names.contains(&name) {
                return Err(Error::InvalidConfig {
                    field: "params",
                    expected: "each in one optimiser",
                    got: format!("{name} twice"),
                });
            }
            names.insert(name);
        }
        Ok(Self { parts })
    }
}

impl Optimizer for Combined {
    fn step(&mut self, grads: &GradStore) -> Result<()> {
        self.parts.iter_mut().try_for_each(|part| part.step(grads))
    }

    fn step_gated(&mut self, grads: &GradStore, gate: &Tensor) -> Result<()> {
        self.parts.iter_mut().try_for_each(|part| part.step_gated(grads, gate))
    }

    fn params(&self) -> NamedVars {
        self.parts.iter().flat_map(|part| part.params()).collect()
    }

    fn lrs(&self) -> Vec<f64> {
        self.parts.iter().flat_map(|part| part.lrs()).collect()
    }

    fn set_lrs(&mut self, lrs: &[f64]) {
        let mut rest = lrs;
        for part in &mut self.parts {
            let (own, others) = rest.split_at(part.lrs().len().min(rest.len()));
            part.set_lrs(own);
            rest = others;
        }
    }

    fn state_dict(&self) -> Result<StateDict> {
        let mut dict = StateDict::new();
        for (i, part) in self.parts.iter().enumerate() {
            dict.extend(
                part.state_dict()?
                    .into_iter()
                    .map(|(name, t)| (format!("{i}.{name}"), t)),
            );
        }
        Ok(dict)
    }

    fn load_state_dict(&mut self, state: &StateDict) -> Result<()> {
        let before = self.state_dict()?;
        let load = |parts: &mut [Box<dyn Optimizer>], state: &StateDict| {
            parts.iter_mut().enumerate().try_for_each(|(i, part)| {
                let prefix = format!("{i}.");
                let own = state
                    .iter()
                    .filter_map(|(name, t)| Some((name.strip_prefix(&prefix)?.to_owned(), t.clone())));
                part.load_state_dict(&own.collect())
            })
        };
        load(&mut self.parts, state).inspect_err(|_| {
            // All or nothing: what a first part took is taken back. Its own state fits.
            let _ = load(&mut self.parts, &before);
        })
    }
}
