//! Batch norm's passes over a tensor `[..., C]`.

use super::pass;
use crate::Result;
use crate::batch_norm::statistics::{Statistics, at_least_zero};
use crate::conv2d::hooks::{self, Affine, Gelu, Normalize, ReluMask, Then, ThroughGelu};
use crate::tape::{Gated, Normalized, Pointwise, elements, tensor};
use candle_core::Tensor;

/// Mean and biased variance of each channel of `x`, which has a pixel.
///
/// One pass over the data, less the first pixel, so that a large mean costs no digits.
pub(crate) fn statistics(x: &[f32], channels: usize, eps: f64) -> Statistics {
    let center = &x[..channels];
    let sums = pass::sums(x, channels, &hooks::Statistics { center });
    from_sums(center, &sums, x.len() / channels, eps)
}

/// The statistics of `count` values a channel, from the sums of [`hooks::Statistics`].
pub(crate) fn from_sums(center: &[f32], sums: &[f64], count: usize, eps: f64) -> Statistics {
    let (sums, squares) = sums.split_at(center.len());
    let (mean, var) = center
        .iter()
        .zip(sums.iter().zip(squares))
        .map(|(center, (sum, squares))| {
            let mean = sum / count as f64;
            let var = squares / count as f64 - mean * mean;
            (f64::from(*center) + mean, at_least_zero(var))
        })
        .unzip();
    Statistics::new(mean, var, eps)
}

impl Normalized {
    /// The constants as the hooks take them.
    pub(crate) fn affine(&self) -> Affine<'_> {
        Affine {
            center: &self.center,
            scale: &self.scale,
            shift: &self.shift,
        }
    }

    fn channels(&self) -> usize {
        self.center.len()
    }
}

/// The normalised tensor.
pub(crate) fn normalize(normalized: &Normalized) -> Result<Tensor> {
    let (channels, affine) = (normalized.channels(), normalized.affine());
    let (y, _) = elements(&normalized.x, |x| match normalized.activation {
        Pointwise::Identity => pass::map(x, channels, &Normalize::<false>(affine)),
        Pointwise::Relu => pass::map(x, channels, &Normalize::<true>(affine)),
        Pointwise::Gelu => {
            let (first, second) = (Normalize::<false>(affine), Gelu);
            pass::map(x, channels, &Then { first, second })
        }
    })?;
    tensor(y, normalized.x.dims())
}

/// Takes the gradient of a normalised tensor back through its activation, and adds up what batch norm's backward needs.
pub(crate) fn gate(mut g: Vec<f32>, normalized: &Normalized) -> Result<Gated> {
    let (channels, affine) = (normalized.channels(), normalized.affine());
    let sums = elements(&normalized.x, |x| match normalized.activation {
        Pointwise::Identity => pass::in_place(&mut g, channels, &ReluMask::<false> { x, affine }),
        Pointwise::Relu => pass::in_place(&mut g, channels, &ReluMask::<true> { x, affine }),
        Pointwise::Gelu => pass::in_place(&mut g, channels, &ThroughGelu { x, affine }),
    })?;
    Ok(Gated::new(g, sums))
}
