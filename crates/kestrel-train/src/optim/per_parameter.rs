//! The optimiser that runs an update rule over each parameter by itself.

use candle_core::backprop::GradStore;
use candle_core::{Device, Tensor, Var};
use kestrel_kernels::update::{gated, is_shut};
use kestrel_models::StateDict;

use super::{NamedVars, Optimizer, ParamGroup};
use crate::{Error, Result};

/// How one parameter moves by its gradient, its options and its state.
pub trait UpdateRule: Send {
    /// The options of a parameter group.
    type Config: Copy + Send;

    /// Errors where a value is out of PyTorch's range.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`].
    fn check(config: &Self::Config) -> Result<()>;

    /// The learning rate among the options.
    fn lr(config: &mut Self::Config) -> &mut f64;

    /// The names of the state's tensors; each has the parameter's shape and starts at zero.
    fn state(config: &Self::Config) -> Vec<&'static str>;

    /// Moves `param` and `state`, which holds the tensors of [`UpdateRule::state`] in their order; `step` counts the
    /// parameter's updates from 1.
    ///
    /// # Errors
    /// Those of the update.
    fn update(config: &Self::Config, param: &Var, grad: &Tensor, state: &[Tensor], step: u64) -> Result<()>;

    /// [`update`](Self::update) of many parameters of one group, left out where `gate` (`[]` of `f32`) is 0. One after the other,
    /// where a rule has nothing better.
    ///
    /// # Errors
    /// Those of the updates.
    fn update_all(config: &Self::Config, updates: &[Update<'_>], gate: Option<&Tensor>) -> Result<()> {
        updates.iter().try_for_each(|update| {
            let run = || Self::update(config, update.param, update.grad, update.state, update.step);
            match gate {
                None => run(),
                Some(gate) => {
                    let param = std::iter::once(update.param.as_tensor());
                    gated(gate, &param.chain(update.state).collect::<Vec<_>>(), run)
                }
            }
        })
    }
}

/// The update of one parameter.
#[derive(Clone, Copy, Debug)]
pub struct Update<'a> {
    /// What is moved.
    pub param: &'a Var,
    /// Its gradient.
    pub grad: &'a Tensor,
    /// The tensors of [`UpdateRule::state`], moved.
    pub state: &'a [Tensor],
    /// The number of the parameter's update, from 1.
    pub step: u64,
}

/// An optimiser that treats each parameter by itself.
pub struct PerParameter<R: UpdateRule> {
    groups: Vec<Group<R::Config>>,
}

struct Group<C> {
    config: C,
    slots: Vec<Slot>,
}

struct Slot {
    name: String,
    param: Var,
    state: Vec<Tensor>,
    /// Updates made.
    step: u64,
}

/// The tensor that holds the number of updates: one number if all parameters have had as many, else one for each.
const STEP: &str = "step";

impl<R: UpdateRule> PerParameter<R> {
    /// An optimiser over named parameters, all with the same options.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] where a value is out of PyTorch's range.
    pub fn new(params: NamedVars, config: R::Config) -> Result<Self> {
        Self::with_groups(vec![ParamGroup { params, config }])
    }

    /// An optimiser over groups of parameters, each with options of its own.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] where a value is out of PyTorch's range, or a parameter is in two groups.
    pub fn with_groups(groups: Vec<ParamGroup<R::Config>>) -> Result<Self> {
        let mut names = std::collections::BTreeSet::new();
        let groups = groups
            .into_iter()
            .map(|group| {
                R::check(&group.config)?;
                let slots = group
                    .params
                    .into_iter()
                    .map(|(name, param)| {
                        if !names.insert(name.clone()) {
                            return Err(Error::InvalidConfig {
                                field: "params",
                                expected: "each in one group",
                                got: format!("{name} twice"),
                            });
                        }
                        let kinds = R::state(&group.config).into_iter();
                        let state = kinds.map(|_| Ok(param.zeros_like()?)).collect::<Result<_>>()?;
                        Ok(Slot {
                            name,
                            param,
                            state,
                            step: 0,
                        })
                    })
                    .collect::<Result<_>>()?;
                Ok(Group {
                    config: group.config,
                    slots,
                })
            })
            .collect::<Result<_>>()?;
        Ok(Self { groups })
    }

    fn update(&mut self, grads: &GradStore, gate: Option<&Tensor>) -> Result<()> {
        for group in &mut self.groups {
            let updates: Vec<_> = group
                .slots
                .iter()
                .filter_map(|slot| {
                    let grad = grads.get(&slot.param)?;
                    Some(Update {
                        param: &slot.param,
                        grad,
                        state: &slot.state,
                        step: slot.step + 1,
                    })
                })
                .collect();
            R::update_all(&group.config, &updates, gate)?;
            for slot in &mut group.slots {
                if grads.get(&slot.param).is_some() {
                    slot.step += 1;
                }
            }
        }
        Ok(())
    }

    fn slots(&self) -> impl Iterator<Item = &Slot> {
        self.groups.iter().flat_map(|group| &group.slots)
    }
}

impl<R: UpdateRule> Optimizer for PerParameter<R> {
    fn step(&mut self, grads: &GradStore) -> Result<()> {
        self.update(grads, None)
    }

    fn step_gated(&mut self, grads: &GradStore, gate: &Tensor) -> Result<()> {
        if gate.device().is_cpu() {
            return if is_shut(gate)? { Ok(()) } else { self.step(grads) };
        }
        self.update(grads, Some(gate))
    }

    fn params(&self) -> NamedVars {
        self.slots()
            .map(|slot| (slot.name.clone(), slot.param.clone()))
            .collect()
    }

    fn lrs(&self) -> Vec<f64> {
        self.groups.iter().map(|group| *R::lr(&mut { group.config })).collect()
    }

    fn set_lrs(&mut self, lrs: &[f64]) {
        for (group, lr) in self.groups.iter_mut().zip(lrs) {
            *R::lr(&mut group.config) = *lr;
        }
    }

    fn state_dict(&self) -> Result<StateDict> {
        let mut steps: Vec<i64> = self.slots().map(|slot| slot.step as i64).collect();
        if steps.windows(2).all(|pair| pair[0] == pair[1]) {
            steps.truncate(1);
        }
        let mut dict = StateDict::from([(STEP.to_owned(), Tensor::new(steps, &Device::Cpu)?)]);
        for group in &self.groups {
            for slot in &group.slots {
                for (kind, tensor) in R::state(&group.config).iter().zip(&slot.state) {
                    dict.insert(format!("{kind}.{}", slot.name), tensor.copy()?);
                }
            }
        }
        Ok(dict)
    }

    fn load_state_dict(&mut self, dict: &StateDict) -> Result<()> {
        let count = self.slots().count();
        let steps = dict
            .get(STEP)
            .ok_or_else(|| missing(STEP))?
            .to_dtype(candle_core::DType::I64)?
            .flatten_all()?
            .to_vec1::<i64>()?;
        let steps: Vec<u64> = match steps[..] {
            [step] => vec![step.max(0) as u64; count],
            _ if steps.len() == count => steps.into_iter().map(|step| step.max(0) as u64).collect(),
            _ => {
                return Err(Error::CheckpointMismatch {
                    reason: format!(
                        "the optimiser has {count} parameters, the checkpoint's had {}",
                        steps.len()
                    ),
                });
            }
        };
        // Every tensor is ready before the first is set.
        let mut states = Vec::with_capacity(count);
        for group in &self.groups {
            for slot in &group.slots {
                let kinds = R::state(&group.config).into_iter().zip(&slot.state);
                let state = kinds.map(|(kind, like)| load(dict, &format!("{kind}.{}", slot.name), like));
                states.push(state.collect::<Result<Vec<_>>>()?);
            }
        }
        let slots = self.groups.iter_mut().flat_map(|group| &mut group.slots);
        for ((slot, state), step) in slots.zip(states).zip(steps) {
            slot.state = state;
            slot.step = step;
        }
        Ok(())
    }
}

fn missing(name: &str) -> Error {
    Error::CheckpointMismatch {
        reason: format!("the optimiser's tensor {name} is missing"),
    }
}

/// A copy of a tensor of a state dict, which must be like another: states are moved in place, and never shared.
pub(super) fn load(dict: &StateDict, name: &str, like: &Tensor) -> Result<Tensor> {
    let tensor = dict.get(name).ok_or_else(|| missing(name))?;
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
    Ok(tensor.to_device(like.device())?.copy()?)
}

#[cfg(test)]
mod tests;
