//! RMSprop.

use candle_core::{Tensor, Var};
use kestrel_kernels::update::{RmsPropConfig, RmsPropState, rmsprop_step};

use super::{PerParameter, Range, UpdateRule, check};
use crate::Result;

/// RMSprop with momentum, centring and coupled weight decay.
///
/// # Source
/// `torch.optim.RMSprop`; the golden file `optimizers`.
pub type RmsProp = PerParameter<RmsPropRule>;

/// The [`UpdateRule`] of [`RmsProp`].
#[derive(Debug)]
pub struct RmsPropRule;

impl UpdateRule for RmsPropRule {
    type Config = RmsPropConfig;

    fn check(config: &RmsPropConfig) -> Result<()> {
        check(&[
            ("lr", config.lr, Range::NotNegative),
            ("alpha", config.alpha, Range::Unit),
            ("eps", config.eps, Range::NotNegative),
            ("momentum", config.momentum, Range::NotNegative),
            ("weight_decay", config.weight_decay, Range::NotNegative),
        ])
    }

    fn lr(config: &mut RmsPropConfig) -> &mut f64 {
        &mut config.lr
    }

    fn state(config: &RmsPropConfig) -> Vec<&'static str> {
        let mut kinds = vec!["square_avg"];
        kinds.extend(config.centered.then_some("grad_avg"));
        kinds.extend((config.momentum != 0.0).then_some("momentum_buffer"));
        kinds
    }

    fn update(config: &RmsPropConfig, param: &Var, grad: &Tensor, state: &[Tensor], _: u64) -> Result<()> {
        let state = RmsPropState {
            square_avg: &state[0],
            grad_avg: state.get(1).filter(|_| config.centered),
            momentum_buffer: state.last(),
        };
        Ok(rmsprop_step(param, grad, &state, config)?)
    }
}
