//! One step of an optimiser on one parameter, in place; the state is the caller's.
//!
//! A step stores parameters below `2^-100` (8e-31, [`LEAST_PARAM`]) as 0, and subnormal numbers of the state (below 1.2e-38), on
//! the CPU and where a launch takes many parameters on a GPU; in `f64` as far above its own subnormal numbers. Weight decay brings
//! every weight without a gradient down there, and processors multiply subnormal numbers up to a hundred times more slowly. PyTorch
//! keeps them, unless `torch.set_flush_denormal(True)` was called.

mod adam;
mod average;
mod check;
mod fused;
mod gate;
mod lion;
mod muon;
mod newton_schulz;
mod rmsprop;
mod sgd;

pub use adam::{AdamConfig, AdamSlot, adam_step, adam_step_all};
pub use average::{average_step, squared_norm, squared_norms};
pub use fused::LEAST_PARAM;
pub use gate::{gated, is_shut};
pub use lion::{LionConfig, lion_step};
pub use muon::{AdjustLr, MuonConfig, muon_step};
pub use newton_schulz::newton_schulz;
pub use rmsprop::{RmsPropConfig, RmsPropState, rmsprop_step};
pub use sgd::{SgdConfig, SgdSlot, sgd_step, sgd_step_all};

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Result, Tensor, Var};

    use super::*;

    /// Moves a weight that has no gradient by `step` until it is 0; no step may leave a tiny parameter or a subnormal number.
    fn decay(name: &str, step: impl Fn(&Var, &Tensor, &[Tensor; 2], u64) -> crate::Result<()>) -> Result<()> {
        // 18 numbers, so that there are whole vectors and a rest; a matrix, for Muon.
        let param = Var::from_tensor(&(Tensor::ones((2, 9), DType::F32, &Device::Cpu)? * 1e-4)?)?;
        let zeros = || param.zeros_like();
        let (grad, state) = (zeros()?, [zeros()?, zeros()?]);
        // Some momentum to begin with, which decays as well.
        step(&param, &(zeros()? + 1e-3)?, &state, 1)?;
        for i in 2..20_000 {
            step(&param, &grad, &state, i)?;
            let mut all_zero = true;
            let least = [LEAST_PARAM, f32::MIN_POSITIVE, f32::MIN_POSITIVE];
            for (tensor, least) in [param.as_tensor(), &state[0], &state[1]].into_iter().zip(least) {
                for value in tensor.flatten_all()?.to_vec1::<f32>()? {
                    assert!(value == 0.0 || value.abs() >= least, "{name}: {value:e} after step {i}");
                    all_zero &= value == 0.0;
                }
            }
            if all_zero {
                return Ok(());
            }
        }
        panic!("{name}: {param} after the last step");
    }

    #[test]
    fn a_weight_without_gradient_decays_to_zero_past_all_tiny_numbers() -> Result<()> {
        let (lr, weight_decay) = (1e-2, 10.0);
        for decoupled in [false, true] {
            let config = AdamConfig {
                lr,
                beta2: 0.9,
                eps: 1e-2,
                weight_decay,
                decoupled,
                ..AdamConfig::default()
            };
            decay("adam", |p, g, [m, v], i| adam_step(p, g, m, v, i, &config))?;
        }
        for nesterov in [false, true] {
            let config = SgdConfig {
                lr,
                momentum: 0.5,
                weight_decay,
                nesterov,
                ..SgdConfig::default()
            };
            decay("sgd", |p, g, [b, _], i| sgd_step(p, g, Some(b), i, &config))?;
        }
        let config = RmsPropConfig {
            lr,
            alpha: 0.5,
            eps: 1e-2,
            weight_decay: 0.1,
            momentum: 0.5,
            centered: false,
        };
        decay("rmsprop", |p, g, [s, b], _| {
            let state = RmsPropState {
                square_avg: s,
                grad_avg: None,
                momentum_buffer: Some(b),
            };
            rmsprop_step(p, g, &state, &config)
        })?;
        let config = MuonConfig {
            lr,
            weight_decay,
            momentum: 0.5,
            ..MuonConfig::default()
        };
        decay("muon", |p, g, [b, _], _| muon_step(p, g, b, &config))?;
        let config = LionConfig {
            lr,
            beta2: 0.5,
            weight_decay,
            ..LionConfig::default()
        };
        decay("lion", |p, g, [m, _], _| lion_step(p, g, m, &config))?;
        decay("average", |p, g, _, _| average_step(p, g, 0.1))
    }
}
