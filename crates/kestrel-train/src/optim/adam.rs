//! Adam with coupled weight decay.

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor, Var};
use kestrel_kernels::update::{AdamConfig, adam_step};
use kestrel_models::StateDict;

use super::Optimizer;
use crate::{Error, Result};

/// Adam (Kingma and Ba 2015) as `torch.optim.Adam`: weight decay is *coupled* L2, added to the gradient.
///
/// # Source
/// `torch.optim.Adam`; ten steps are compared in `kestrel-models`' golden test of the CNN and in `kestrel-kernels`'
/// `adam` golden file.
pub struct Adam {
    slots: Vec<Slot>,
    config: AdamConfig,
    step: u64,
}

struct Slot {
    name: String,
    param: Var,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
}

impl Adam {
    /// An optimiser over named parameters, its moments zero.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] where a value is out of PyTorch's range.
    pub fn new(params: Vec<(String, Var)>, config: AdamConfig) -> Result<Self> {
        let bad = |field, expected, got: f64| {
            Err(Error::InvalidConfig {
                field,
                expected,
                got: got.to_string(),
            })
        };
        // Written so that NaN is refused too.
        if !(config.lr >= 0.0 && config.lr.is_finite()) {
            return bad("lr", "a finite number, 0 or more", config.lr);
        }
        if !(0.0..1.0).contains(&config.beta1) {
            return bad("beta1", "in [0, 1)", config.beta1);
        }
        if !(0.0..1.0).contains(&config.beta2) {
            return bad("beta2", "in [0, 1)", config.beta2);
        }
        if !(config.eps >= 0.0 && config.eps.is_finite()) {
            return bad("eps", "a finite number, 0 or more", config.eps);
        }
        if !(config.weight_decay >= 0.0 && config.weight_decay.is_finite()) {
            return bad("weight_decay", "a finite number, 0 or more", config.weight_decay);
        }
        let slots = params
            .into_iter()
            .map(|(name, param)| {
                let exp_avg = param.zeros_like()?;
                let exp_avg_sq = param.zeros_like()?;
                Ok(Slot {
                    name,
                    param,
                    exp_avg,
                    exp_avg_sq,
                })
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Self { slots, config, step: 0 })
    }
}

impl Optimizer for Adam {
    fn step(&mut self, grads: &GradStore) -> Result<()> {
        self.step += 1;
        for slot in &self.slots {
            if let Some(grad) = grads.get(&slot.param) {
                adam_step(
                    &slot.param,
                    grad,
                    &slot.exp_avg,
                    &slot.exp_avg_sq,
                    self.step,
                    &self.config,
                )?;
            }
        }
        Ok(())
    }

    fn lr(&self) -> f64 {
        self.config.lr
    }

    fn set_lr(&mut self, lr: f64) {
        self.config.lr = lr;
    }

    fn state_dict(&self) -> Result<StateDict> {
        let mut state = StateDict::new();
        state.insert("step".into(), Tensor::new(&[self.step as i64], &Device::Cpu)?);
        for slot in &self.slots {
            state.insert(format!("exp_avg.{}", slot.name), slot.exp_avg.copy()?);
            state.insert(format!("exp_avg_sq.{}", slot.name), slot.exp_avg_sq.copy()?);
        }
        Ok(state)
    }

    fn load_state_dict(&mut self, state: &StateDict) -> Result<()> {
        let get = |name: String, like: &Tensor| -> Result<Tensor> {
            let tensor = state.get(&name).ok_or_else(|| Error::CheckpointMismatch {
                reason: format!("the optimiser's tensor {name} is missing"),
            })?;
            if tensor.shape() != like.shape() || tensor.dtype() != like.dtype() {
                return Err(Error::CheckpointMismatch {
                    reason: format!(
                        "the optimiser's tensor {name}: expected {:?} {:?}, got {:?} {:?}",
                        like.dtype(),
                        like.dims(),
                        tensor.dtype(),
                        tensor.dims()
                    ),
                });
            }
            // The moments are updated in place: never share them with the caller's.
            Ok(tensor.to_device(like.device())?.copy()?)
        };
        let step = get("step".into(), &Tensor::zeros(1, DType::I64, &Device::Cpu)?)?.to_vec1::<i64>()?;
        let mut moments = Vec::with_capacity(self.slots.len());
        for slot in &self.slots {
            let exp_avg = get(format!("exp_avg.{}", slot.name), &slot.exp_avg)?;
            let exp_avg_sq = get(format!("exp_avg_sq.{}", slot.name), &slot.exp_avg_sq)?;
            moments.push((exp_avg, exp_avg_sq));
        }
        for (slot, (exp_avg, exp_avg_sq)) in self.slots.iter_mut().zip(moments) {
            slot.exp_avg = exp_avg;
            slot.exp_avg_sq = exp_avg_sq;
        }
        self.step = step.first().copied().unwrap_or_default().max(0) as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adam(lr: f64) -> Result<(Adam, Var)> {
        let var = Var::from_tensor(&Tensor::new(&[1f32, -2.0], &Device::Cpu)?)?;
        let config = AdamConfig {
            lr,
            ..AdamConfig::default()
        };
        Ok((Adam::new(vec![("w".into(), var.clone())], config)?, var))
    }

    fn descend(adam: &mut Adam, var: &Var) {
        let loss = var.sqr().unwrap().sum_all().unwrap();
        adam.step(&loss.backward().unwrap()).unwrap();
    }

    #[test]
    fn state_round_trip_continues_bit_for_bit() {
        let (mut straight, var) = adam(0.1).unwrap();
        let (mut resumed, other) = adam(0.1).unwrap();
        for _ in 0..3 {
            descend(&mut straight, &var);
        }
        resumed.load_state_dict(&straight.state_dict().unwrap()).unwrap();
        other.set(var.as_tensor()).unwrap();
        for _ in 0..3 {
            descend(&mut straight, &var);
            descend(&mut resumed, &other);
        }
        assert_eq!(var.to_vec1::<f32>().unwrap(), other.to_vec1::<f32>().unwrap());
    }

    #[test]
    fn a_state_that_does_not_fit_changes_nothing() {
        let (mut adam, var) = adam(0.1).unwrap();
        descend(&mut adam, &var);
        let before = adam.state_dict().unwrap();
        let mut bad = before.clone();
        bad.insert("step".into(), Tensor::new(&[77i64], &Device::Cpu).unwrap());
        bad.remove("exp_avg_sq.w");
        let error = adam.load_state_dict(&bad).unwrap_err().to_string();
        assert!(error.contains("exp_avg_sq.w"), "{error}");
        let after = adam.state_dict().unwrap();
        assert_eq!(
            after["step"].to_vec1::<i64>().unwrap(),
            before["step"].to_vec1::<i64>().unwrap()
        );
    }

    #[test]
    fn values_that_make_no_sense_are_refused() {
        for lr in [f64::NAN, -1.0, f64::INFINITY] {
            assert!(adam(lr).is_err(), "{lr}");
        }
    }
}
