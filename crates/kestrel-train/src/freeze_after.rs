//! Parts of a model that are trained for some epochs, and frozen then.

use kestrel_models::Params;

use crate::callback::EpochStart;
use crate::{Callback, Result};

/// Freezes modules after so many epochs: their gradients are not computed any more, which saves their share of the backward.
///
/// What is frozen depends on the epoch alone, so a resumed run needs no state of this.
///
/// # Source
/// Brock et al. 2017, "FreezeOut: Accelerate Training by Progressively Freezing Layers", without its learning rates.
pub struct FreezeAfter {
    params: Params,
    modules: Vec<(String, usize)>,
}

impl FreezeAfter {
    /// Freezes each module of `modules` after that many epochs, counted from the run's start.
    ///
    /// # Errors
    /// [`kestrel_models::Error::UnknownModule`] for one that the model does not have.
    pub fn new(params: &Params, modules: Vec<(String, usize)>) -> Result<Self> {
        for (module, _) in &modules {
            params.require_module(module)?;
        }
        Ok(Self {
            params: params.clone(),
            modules,
        })
    }
}

impl Callback for FreezeAfter {
    fn on_epoch_start(&mut self, start: &EpochStart) -> Result<()> {
        let epoch = start.epoch;
        for (module, epochs) in &self.modules {
            if epoch > *epochs && !self.params.is_frozen(module) {
                self.params.freeze(module)?;
                tracing::info!(epoch, %module, "{module} is frozen from epoch {epoch} on");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};
    use kestrel_models::{Model, WhitenedCnn, WhitenedCnnConfig};

    use super::*;

    #[test]
    fn modules_are_frozen_when_their_epochs_are_over() {
        let config = WhitenedCnnConfig {
            width: 1,
            ..WhitenedCnnConfig::new(2)
        };
        let model = WhitenedCnn::new(config, 0, DType::F32, &Device::Cpu).unwrap();
        let params = model.params();
        let modules = vec![("whiten".to_owned(), 2), ("head.weight".to_owned(), 0)];
        let mut freeze = FreezeAfter::new(params, modules).unwrap();
        let mut frozen = |epoch: usize| {
            let start = EpochStart {
                epoch,
                num_steps: 1,
                num_samples: 1,
                samples_done: 0,
            };
            freeze.on_epoch_start(&start).unwrap();
            ["whiten", "head", "block1"].map(|module| params.is_frozen(module))
        };
        assert_eq!(frozen(1), [false, true, false]);
        assert_eq!(frozen(2), [false, true, false]);
        assert_eq!(frozen(3), [true, true, false]);
        let error = FreezeAfter::new(params, vec![("stem".to_owned(), 1)]).err().unwrap();
        assert!(error.to_string().contains("stem"), "{error}");
    }
}
