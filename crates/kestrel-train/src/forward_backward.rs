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

/// Forward of the model and the loss in `precision`, and backward.
///
/// # Errors
/// Those of the model, the loss and the device.
pub fn forward_backward(
    model: &dyn Model,
    loss: &dyn Loss,
    precision: Precision,
    images: &Tensor,
    targets: Targets<'_>,
    mode: Mode,
) -> Result<Gradients> {
    let (logits, loss) = tape::for_backward(|| {
        autocast(precision, || -> Result<_> {
            let logits = model.forward(images, mode)?;
            let loss = loss.forward(&logits, targets)?;
            Ok((logits, loss))
        })
    })?;
    Ok(Gradients {
        grads: tape::backward(&loss)?,
        loss: loss.detach(),
        logits: logits.detach(),
    })
}

#[cfg(feature = "cuda")]
mod recorder;
#[cfg(feature = "cuda")]
pub use recorder::Recorder;

/// [`forward_backward`]; on a GPU, for which this build is not, passes may be recorded.
#[cfg(not(feature = "cuda"))]
#[derive(Debug, Default)]
pub struct Recorder(());

#[cfg(not(feature = "cuda"))]
impl Recorder {
    /// [`forward_backward`].
    ///
    /// # Errors
    /// Those of [`forward_backward`].
    pub fn forward_backward(
        &mut self,
        model: &dyn Model,
        loss: &dyn Loss,
        precision: Precision,
        images: &Tensor,
        targets: Targets<'_>,
        mode: Mode,
    ) -> Result<Gradients> {
        forward_backward(model, loss, precision, images, targets, mode)
    }

    /// Whether passes are replayed.
    pub fn is_recorded(&self) -> bool {
        false
    }
}
