//! Lion.

use candle_core::{Tensor, Var};
use kestrel_kernels::update::{LionConfig, lion_step};

use super::{PerParameter, Range, UpdateRule, check};
use crate::Result;

/// Lion (Chen et al. 2023), with decoupled weight decay.
///
/// # Source
/// The paper's algorithm 2; the golden file `optimizers` compares with the same lines in PyTorch.
pub type Lion = PerParameter<LionRule>;

/// The [`UpdateRule`] of [`Lion`].
#[derive(Debug)]
pub struct LionRule;

impl UpdateRule for LionRule {
    type Config = LionConfig;

    fn check(config: &LionConfig) -> Result<()> {
        check(&[
            ("lr", config.lr, Range::NotNegative),
            ("beta1", config.beta1, Range::BelowOne),
            ("beta2", config.beta2, Range::BelowOne),
            ("weight_decay", config.weight_decay, Range::NotNegative),
        ])
    }

    fn lr(config: &mut LionConfig) -> &mut f64 {
        &mut config.lr
    }

    fn state(_: &LionConfig) -> Vec<&'static str> {
        vec!["exp_avg"]
    }

    fn update(config: &LionConfig, param: &Var, grad: &Tensor, state: &[Tensor], _: u64) -> Result<()> {
        Ok(lion_step(param, grad, &state[0], config)?)
    }
}
