//! Muon.

use candle_core::{Tensor, Var};
use kestrel_kernels::update::{MuonConfig, muon_step};

use super::{NamedVars, PerParameter, Range, UpdateRule, check};
use crate::{Error, Result};

/// Muon (Jordan et al. 2024) for matrices and convolution weights; another optimiser must take the other parameters
/// (see [`Combined`](super::Combined)).
///
/// # Source
/// `torch.optim.Muon`, in the parameter's type where PyTorch rounds to bfloat16; the golden file `optimizers`.
pub type Muon = PerParameter<MuonRule>;

/// The [`UpdateRule`] of [`Muon`].
#[derive(Debug)]
pub struct MuonRule;

impl PerParameter<MuonRule> {
    /// Splits parameters into convolution weights, which Muon is for, and the rest.
    pub fn split(params: NamedVars) -> (NamedVars, NamedVars) {
        params.into_iter().partition(|(_, var)| var.rank() == 4)
    }
}

impl UpdateRule for MuonRule {
    type Config = MuonConfig;

    fn check(config: &MuonConfig) -> Result<()> {
        check(&[
            ("lr", config.lr, Range::NotNegative),
            ("momentum", config.momentum, Range::Unit),
            ("eps", config.eps, Range::NotNegative),
            ("weight_decay", config.weight_decay, Range::NotNegative),
        ])?;
        if config.ns_steps >= 100 {
            return Err(Error::InvalidConfig {
                field: "ns_steps",
                expected: "below 100",
                got: config.ns_steps.to_string(),
            });
        }
        Ok(())
    }

    fn lr(config: &mut MuonConfig) -> &mut f64 {
        &mut config.lr
    }

    fn state(_: &MuonConfig) -> Vec<&'static str> {
        vec!["momentum_buffer"]
    }

    fn update(config: &MuonConfig, param: &Var, grad: &Tensor, state: &[Tensor], _: u64) -> Result<()> {
        Ok(muon_step(param, grad, &state[0], config)?)
    }
}
