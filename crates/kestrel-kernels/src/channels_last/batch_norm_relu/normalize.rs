//! The op `y = relu((x − mean) · inv_std · weight + bias)`, with statistics that are the batch's own or constants.

use super::OP;
use super::rows::{ChannelGradients, Rows};
use super::strip::{self, Affine, ThroughStatistics};
use crate::batch_norm::statistics::Statistics;
use crate::element;
use candle_core::{CpuStorage, CustomOp3, Device, Layout, Shape, Tensor};
use rayon::prelude::*;
use std::mem::MaybeUninit;

/// Arguments are `x` `[N, H, W, C]`, `weight` and `bias` `[C]`, contiguous `f32`.
pub(super) struct NormalizeRelu {
    pub(super) rows: Rows,
    pub(super) statistics: Statistics,
    /// Whether the statistics depend on `x`.
    pub(super) training: bool,
}

/// `dx`, then `dweight` and `dbias`, each only if something needs it.
struct Gradients {
    dx: Option<Vec<f32>>,
    sums: Option<[Vec<f32>; 2]>,
}

/// The constants of [`Affine`], as strips.
struct Constants {
    mean: Vec<f32>,
    scale: Vec<f32>,
    bias: Vec<f32>,
}

impl Constants {
    fn affine(&self) -> Affine<'_> {
        Affine {
            mean: &self.mean,
            scale: &self.scale,
            bias: &self.bias,
        }
    }
}

impl NormalizeRelu {
    /// The same for forward and backward, so that the gate is.
    fn constants(&self, weight: &[f32], bias: &[f32]) -> Constants {
        let Statistics { mean, .. } = &self.statistics;
        Constants {
            mean: self.rows.strip_of(|channel| mean[channel] as f32),
            scale: self.rows.strip_of(|channel| self.scale(weight, channel) as f32),
            bias: self.rows.strip_of(|channel| bias[channel]),
        }
    }

    fn scale(&self, weight: &[f32], channel: usize) -> f64 {
        self.statistics.inv_std[channel] * f64::from(weight[channel])
    }

    fn forward(&self, x: &[f32], weight: &[f32], bias: &[f32]) -> Vec<f32> {
        let constants = self.constants(weight, bias);
        let piece = self.rows.piece();
        let affine = constants.affine();
        let write = |y: &mut [MaybeUninit<f32>]| {
            // Backwards, for the end of `x` is what the pass over it for the statistics has left in the cache.
            let pieces = x.par_chunks(piece).zip(y.par_chunks_mut(piece)).rev();
            pieces.for_each(|(x, y)| strip::forward(x, &affine, y));
        };
        // SAFETY: `x` and `y` are equally long, so each piece of `y` has one of `x` as long, by which `strip::forward`
        // writes it whole; the constants are whole strips.
        unsafe { written(x.len(), write) }
    }

    /// ```text
    /// g = dy where y > 0, else 0
    /// dbias = Σ g,  dweight = Σ g (x − mean) · inv_std
    /// dx = weight · inv_std · (g − [dbias + (x − mean) · inv_std · dweight] / M)   the bracket only in training
    /// ```
    fn backward(&self, x: &[f32], [weight, bias]: [&[f32]; 2], dy: &[f32], needs: Needs) -> Gradients {
        assert_eq!(x.len(), dy.len(), "the gradient has the shape of the result");
        let constants = self.constants(weight, bias);
        let affine = constants.affine();
        let sums =
            (needs.sums || (needs.dx && self.training)).then(|| self.rows.gradients(x, dy, &affine, &self.statistics));
        let dx = needs.dx.then(|| {
            let through = match &sums {
                Some(sums) if self.training => Some(self.through_statistics(sums, weight, x.len())),
                _ => None,
            };
            let through = through
                .as_ref()
                .map(|[slope, offset]| ThroughStatistics { slope, offset });
            let piece = self.rows.piece();
            let write = |dx: &mut [MaybeUninit<f32>]| {
                let data = x.par_chunks(piece).zip(dy.par_chunks(piece));
                let pieces = data.zip(dx.par_chunks_mut(piece)).rev();
                pieces.for_each(|((x, dy), dx)| strip::backward(x, dy, &affine, through.as_ref(), dx));
            };
            // SAFETY: `x`, `dy` (asserted above) and `dx` are equally long, so each piece of `dx` has one of each as long,
            // by which `strip::backward` writes it whole; the constants are whole strips.
            unsafe { written(x.len(), write) }
        });
        let narrow = |sums: Vec<f64>| sums.into_iter().map(|sum| sum as f32).collect();
        Gradients {
            dx,
            sums: sums.map(|sums| [narrow(sums.dweight), narrow(sums.dbias)]),
        }
    }

    /// Slope and offset of [`ThroughStatistics`].
    fn through_statistics(&self, sums: &ChannelGradients, weight: &[f32], len: usize) -> [Vec<f32>; 2] {
        let count = (len / self.rows.channels()) as f64;
        let slope = self.rows.strip_of(|channel| {
            let scale = self.scale(weight, channel);
            (scale * self.statistics.inv_std[channel] * sums.dweight[channel] / count) as f32
        });
        let offset = self
            .rows
            .strip_of(|channel| (self.scale(weight, channel) * sums.dbias[channel] / count) as f32);
        [slope, offset]
    }
}

/// Which gradients something needs.
#[derive(Clone, Copy)]
struct Needs {
    dx: bool,
    sums: bool,
}

/// A vector of `len` floats that `write` writes; the zeros of `vec!` would cost a pass over memory.
///
/// # Safety
/// `write` writes every element of its slice.
unsafe fn written(len: usize, write: impl FnOnce(&mut [MaybeUninit<f32>])) -> Vec<f32> {
    let mut out = Vec::with_capacity(len);
    write(&mut out.spare_capacity_mut()[..len]);
    // SAFETY: `len` is within the capacity, or the slice would have panicked; the caller promises that it is written.
    unsafe { out.set_len(len) };
    out
}

impl CustomOp3 for NormalizeRelu {
    fn name(&self) -> &'static str {
        OP
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let x = element::slice(OP, x, x_layout)?;
        let weight = element::slice(OP, weight, weight_layout)?;
        let bias = element::slice(OP, bias, bias_layout)?;
        let y = self.forward(x, weight, bias);
        Ok((CpuStorage::F32(y), x_layout.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _y: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let needs = Needs {
            dx: x.track_op(),
            sums: weight.track_op() || bias.track_op(),
        };
        let (weight_values, bias_values) = (weight.to_vec1()?, bias.to_vec1()?);
        let Gradients { dx, sums } = element::with_slice(OP, x, |x| {
            element::with_slice(OP, grad, |dy| {
                self.backward(x, [&weight_values, &bias_values], dy, needs)
            })
        })??;
        let dx = dx.map(|dx| Tensor::from_vec(dx, x.shape(), &Device::Cpu)).transpose()?;
        let [dweight, dbias] = sums.map_or([None, None], |sums| sums.map(Some));
        let of = |tensor: &Tensor, gradient: Option<Vec<f32>>| {
            let gradient = gradient.filter(|_| tensor.track_op());
            gradient
                .map(|gradient| Tensor::from_vec(gradient, tensor.shape(), &Device::Cpu))
                .transpose()
        };
        Ok((dx, of(weight, dweight)?, of(bias, dbias)?))
    }
}
