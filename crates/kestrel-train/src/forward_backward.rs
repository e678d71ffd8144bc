//! Forward and backward of a batch: launch by launch, or as one recorded graph where the launches would take longer than their
//! work.

use candle_core::Tensor;
use candle_core::backprop::GradStore;
use kestrel_kernels::autocast::{Precision, autocast};
use kestrel_kernels::tape;
use kestrel_models::{Mode, Model};

use crate::Result;
use crate::loss::{Loss, Targets};

/// What the forward and the backward of a batch give; none of it has a graph.
pub struct Gradients {
    /// A scalar.
    pub loss: Tensor,
    /// `[N, num_classes]`.
    pub logits: Tensor,
    /// Of the loss, by variable.
    pub grads: GradStore,
}

/// Forward and backward of a batch, to be made.
#[derive(Clone, Copy)]
pub struct TrainPass<'a> {
    /// What makes logits of the images.
    pub model: &'a dyn Model,
    /// What makes a scalar of the logits.
    pub loss: &'a dyn Loss,
    /// In what model and loss are computed.
    pub precision: Precision,
    /// `[N, C, H, W]`.
    pub images: &'a Tensor,
    /// Of the images.
    pub targets: Targets<'a>,
    /// [`Mode::Train`], for gradients.
    pub mode: Mode,
}

impl TrainPass<'_> {
    /// Forward of the model and the loss, and backward, launch by launch.
    ///
    /// # Errors
    /// Those of the model, the loss and the device.
    pub fn forward_backward(self) -> Result<Gradients> {
        let (logits, loss) = tape::for_backward(|| {
            autocast(self.precision, || -> Result<_> {
                let logits = self.model.forward(self.images, self.mode)?;
                let loss = self.loss.forward(&logits, self.targets)?;
                Ok((logits, loss))
            })
        })?;
        Ok(Gradients {
            grads: tape::backward(&loss)?,
            loss: loss.detach(),
            logits: logits.detach(),
        })
    }
}

#[cfg(any(feature = "cuda", test))]
mod key;
#[cfg(feature = "cuda")]
mod recorder;
#[cfg(feature = "cuda")]
pub use recorder::Recorder;

/// Makes passes; on a GPU, for which this build is not, it may record them.
#[cfg(not(feature = "cuda"))]
#[derive(Debug, Default)]
pub struct Recorder(());

#[cfg(not(feature = "cuda"))]
impl Recorder {
    /// [`TrainPass::forward_backward`].
    ///
    /// # Errors
    /// Those of [`TrainPass::forward_backward`].
    pub fn forward_backward(&mut self, pass: TrainPass<'_>) -> Result<Gradients> {
        pass.forward_backward()
    }

    /// Whether passes are replayed.
    pub fn is_recorded(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use candle_core::{DType, Device};
    use kestrel_models::{Cnn, CnnConfig};

    use super::*;
    use crate::loss::{CrossEntropyLoss, FocalLoss};

    /// A replay runs no code of model and loss, so they are asked, and are not recorded where they do not say.
    #[test]
    fn what_can_be_recorded_says_so() {
        let config = CnnConfig {
            width: 2,
            ..CnnConfig::new(3)
        };
        let cnn = Cnn::new(config, 0, DType::F32, &Device::Cpu).unwrap();
        assert!(cnn.can_be_recorded() && Arc::new(cnn).can_be_recorded());
        assert!(CrossEntropyLoss::default().can_be_recorded());
        assert!(!FocalLoss::new(2.0, None).unwrap().can_be_recorded());
    }
}
