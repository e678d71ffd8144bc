//! Sums over a channel, in f64 and in a fixed order, and the running statistics.

use crate::element::{self, Element, dispatch};
use candle_core::{CpuStorage, InplaceOp1, Layout};
use rayon::prelude::*;

/// Accumulators that a sum runs in side by side, so that the compiler may use vectors.
const LANES: usize = 8;

/// How a tensor `[N, C, positions]` lies in memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Planes {
    pub(crate) batch: usize,
    pub(crate) channels: usize,
    pub(crate) positions: usize,
}

impl Planes {
    pub(crate) fn values_per_channel(&self) -> usize {
        self.batch * self.positions
    }

    /// One channel's plane in each image.
    pub(crate) fn of_channel<'a, T>(&self, x: &'a [T], channel: usize) -> impl Iterator<Item = &'a [T]> + use<'a, T> {
        x.chunks_exact(self.positions).skip(channel).step_by(self.channels)
    }
}

/// A channel's mean and `1 / √(var + eps)`.
#[derive(Clone, Debug)]
pub(crate) struct Statistics {
    pub(crate) mean: Vec<f64>,
    pub(crate) var: Vec<f64>,
    pub(crate) inv_std: Vec<f64>,
}

impl Statistics {
    pub(crate) fn new(mean: Vec<f64>, var: Vec<f64>, eps: f64) -> Self {
        let inv_std = var.iter().map(|var| 1.0 / (var + eps).sqrt()).collect();
        Self { mean, var, inv_std }
    }

    /// Mean and biased variance of each channel of `x`.
    ///
    /// One pass over the data, less the channel's first value, so that a large mean costs no digits.
    pub(crate) fn of_batch<T: Element>(planes: &Planes, x: &[T], eps: f64) -> Self {
        let count = planes.values_per_channel() as f64;
        let (mean, var) = (0..planes.channels)
            .into_par_iter()
            .map(|channel| {
                let shift = x[channel * planes.positions];
                let (sum, squares) = channel_sums(
                    planes.of_channel(x, channel).map(|x| (x, x)),
                    shift.widen(),
                    shift.widen(),
                );
                let mean = sum / count;
                (shift.widen() + mean, at_least_zero(squares / count - mean * mean))
            })
            .unzip();
        Self::new(mean, var, eps)
    }

    /// Each channel's mean rounded to `T`, and what rounding has added to it: `(x − mean) · scale + bias` of a value less the
    /// rounded mean takes the rest times the scale for a part of its bias.
    pub(crate) fn centers<T: Element>(&self) -> (Vec<T>, Vec<f64>) {
        let center = |mean: &f64| {
            let center = T::narrow(*mean);
            let rounding = center.widen() - mean;
            // Of an infinite mean nothing is left over.
            (center, if mean.is_finite() { rounding } else { 0.0 })
        };
        self.mean.iter().map(center).unzip()
    }

    pub(crate) fn unbiased_var(&self, planes: &Planes) -> Vec<f64> {
        let count = planes.values_per_channel() as f64;
        self.var.iter().map(|var| var * (count / (count - 1.0))).collect()
    }
}

/// `(Σ (b − shift_b), Σ (a − shift_a)(b − shift_b))` over the planes of one channel.
pub(crate) fn channel_sums<'a, T: Element>(
    planes: impl Iterator<Item = (&'a [T], &'a [T])>,
    shift_a: f64,
    shift_b: f64,
) -> (f64, f64) {
    let (mut sum, mut products) = ([0.0; LANES], [0.0; LANES]);
    let mut add = |lane: usize, a: T, b: T| {
        let (a, b) = (a.widen() - shift_a, b.widen() - shift_b);
        sum[lane] += b;
        products[lane] += a * b;
    };
    for (a, b) in planes {
        let (a_chunks, b_chunks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
        let rest = a_chunks.remainder().iter().zip(b_chunks.remainder());
        for (a, b) in a_chunks.zip(b_chunks) {
            for lane in 0..LANES {
                add(lane, a[lane], b[lane]);
            }
        }
        for (lane, (a, b)) in rest.enumerate() {
            add(lane, *a, *b);
        }
    }
    (sum.iter().sum(), products.iter().sum())
}

/// `running = (1 − momentum) running + momentum · new`, in place.
pub(crate) struct UpdateRunning {
    pub(crate) new: Vec<f64>,
    pub(crate) momentum: f64,
}

impl InplaceOp1 for UpdateRunning {
    fn name(&self) -> &'static str {
        "batch_norm running statistics"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        dispatch!(self.name(), candle_core::backend::BackendStorage::dtype(storage), T => {
            let running = element::slice_mut::<T>(self.name(), storage, layout)?;
            for (running, new) in running.iter_mut().zip(&self.new) {
                *running = T::narrow((1.0 - self.momentum) * running.widen() + self.momentum * new);
            }
            Ok(())
        })
    }
}

/// A variance that rounding made negative is 0; NaN, which `f64::max` would turn into 0, stays and shows the fault.
pub(crate) fn at_least_zero(variance: f64) -> f64 {
    if variance < 0.0 { 0.0 } else { variance }
}
