//! Stochastic gradient descent with momentum.

use candle_core::{Tensor, Var};
use kestrel_kernels::update::{SgdConfig, SgdSlot, sgd_step, sgd_step_all};

use super::per_parameter::Update;
use super::{PerParameter, Range, UpdateRule, check};
use crate::{Error, Result};

/// SGD with momentum, dampening, Nesterov's look ahead and coupled weight decay.
///
/// # Source
/// `torch.optim.SGD`; the golden file `optimizers` compares every step of two parameter groups.
pub type Sgd = PerParameter<SgdRule>;

/// The [`UpdateRule`] of [`Sgd`].
#[derive(Debug)]
pub struct SgdRule;

impl UpdateRule for SgdRule {
    type Config = SgdConfig;

    fn check(config: &SgdConfig) -> Result<()> {
        check(&[
            ("lr", config.lr, Range::NotNegative),
            ("momentum", config.momentum, Range::NotNegative),
            ("weight_decay", config.weight_decay, Range::NotNegative),
        ])?;
        let bad = |field, expected, got: f64| {
            Err(Error::InvalidConfig {
                field,
                expected,
                got: got.to_string(),
            })
        };
        if !config.dampening.is_finite() {
            return bad("dampening", "a finite number", config.dampening);
        }
        if config.nesterov && config.momentum == 0.0 {
            return bad("momentum", "more than 0 with nesterov", config.momentum);
        }
        if config.nesterov && config.dampening != 0.0 {
            return bad("dampening", "0 with nesterov", config.dampening);
        }
        Ok(())
    }

    fn lr(config: &mut SgdConfig) -> &mut f64 {
        &mut config.lr
    }

    fn state(config: &SgdConfig) -> Vec<&'static str> {
        if config.momentum == 0.0 {
            Vec::new()
        } else {
            vec!["momentum_buffer"]
        }
    }

    fn update(config: &SgdConfig, param: &Var, grad: &Tensor, state: &[Tensor], step: u64) -> Result<()> {
        Ok(sgd_step(param, grad, state.first(), step, config)?)
    }

    fn update_all(config: &SgdConfig, updates: &[Update<'_>], gate: Option<&Tensor>) -> Result<()> {
        for same_step in updates.chunk_by(|a, b| a.step == b.step) {
            let slots: Vec<_> = same_step
                .iter()
                .map(|update| SgdSlot {
                    param: update.param,
                    grad: update.grad,
                    momentum_buffer: update.state.first(),
                })
                .collect();
            sgd_step_all(&slots, same_step[0].step, config, gate)?;
        }
        Ok(())
    }
}
