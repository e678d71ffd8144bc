//! Adam, with coupled weight decay or, as AdamW, decoupled.

use candle_core::{Tensor, Var};
use kestrel_kernels::update::{AdamConfig, AdamSlot, adam_step, adam_step_all};

use super::per_parameter::Update;
use super::{PerParameter, Range, UpdateRule, check};
use crate::Result;

/// Adam (Kingma and Ba 2015) and AdamW (Loshchilov and Hutter 2019).
///
/// As in `torch.optim.Adam`, weight decay is *coupled* L2, added to the gradient; with `decoupled` it is that of
/// `torch.optim.AdamW`.
///
/// # Source
/// `torch.optim.Adam`: ten steps are compared in `kestrel-models`' golden test of the CNN and in `kestrel-kernels`'
/// `adam` golden file. `torch.optim.AdamW`: the golden file `optimizers`.
pub type Adam = PerParameter<AdamRule>;

/// The [`UpdateRule`] of [`Adam`].
#[derive(Debug)]
pub struct AdamRule;

impl UpdateRule for AdamRule {
    type Config = AdamConfig;

    fn check(config: &AdamConfig) -> Result<()> {
        check(&[
            ("lr", config.lr, Range::NotNegative),
            ("beta1", config.beta1, Range::BelowOne),
            ("beta2", config.beta2, Range::BelowOne),
            ("eps", config.eps, Range::NotNegative),
            ("weight_decay", config.weight_decay, Range::NotNegative),
        ])
    }

    fn lr(config: &mut AdamConfig) -> &mut f64 {
        &mut config.lr
    }

    fn state(_: &AdamConfig) -> Vec<&'static str> {
        vec!["exp_avg", "exp_avg_sq"]
    }

    fn update(config: &AdamConfig, param: &Var, grad: &Tensor, state: &[Tensor], step: u64) -> Result<()> {
        Ok(adam_step(param, grad, &state[0], &state[1], step, config)?)
    }

    fn update_all(config: &AdamConfig, updates: &[Update<'_>], gate: Option<&Tensor>) -> Result<()> {
        for same_step in updates.chunk_by(|a, b| a.step == b.step) {
            let slots: Vec<_> = same_step
                .iter()
                .map(|update| AdamSlot {
                    param: update.param,
                    grad: update.grad,
                    exp_avg: &update.state[0],
                    exp_avg_sq: &update.state[1],
                })
                .collect();
            adam_step_all(&slots, same_step[0].step, config, gate)?;
        }
        Ok(())
    }
}
