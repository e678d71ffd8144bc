//! The op `y = (x − mean) · inv_std · weight + bias`, with statistics that are either the batch's own or constants.

use super::statistics::{Planes, Statistics, channel_sums};
use crate::element::{self, Element, dispatch};
use candle_core::{CpuStorage, CustomOp3, Device, Layout, Shape, Tensor, WithDType};
use rayon::prelude::*;

const OP: &str = "batch_norm";

/// Elements below which planes are not shared out one by one.
const BLOCK: usize = 1 << 14;

/// Arguments are `x` `[N, C, ...]`, `weight` and `bias` `[C]`, contiguous.
pub(super) struct Normalize {
    pub(super) planes: Planes,
    pub(super) statistics: Statistics,
    /// Whether the statistics depend on `x`.
    pub(super) training: bool,
}

/// The three gradients, each only if something needs it.
struct Gradients<T> {
    dx: Option<Vec<T>>,
    dweight: Vec<T>,
    dbias: Vec<T>,
}

impl Normalize {
    fn forward<T: Element>(&self, x: &[T], weight: &[T], bias: &[T]) -> Vec<T> {
        let inv_std = &self.statistics.inv_std;
        let (centers, rounding) = self.statistics.centers::<T>();
        let mut y = vec![T::ZERO; x.len()];
        self.for_each_plane(&mut y, |channel, plane, y| {
            let scale = inv_std[channel] * weight[channel].widen();
            let shift = T::narrow(bias[channel].widen() + rounding[channel] * scale);
            let (center, scale) = (centers[channel], T::narrow(scale));
            for (y, x) in y.iter_mut().zip(&x[plane * self.planes.positions..]) {
                *y = (*x - center) * scale + shift;
            }
        });
        y
    }

    /// ```text
    /// dbias = Σ dy,  dweight = Σ dy (x − mean) · inv_std
    /// dx = weight · inv_std · (dy − [dbias + (x − mean) · inv_std · dweight] / M)   the bracket only in training
    /// ```
    fn backward<T: Element>(&self, x: &[T], weight: &[T], dy: &[T], needs_dx: bool, needs_sums: bool) -> Gradients<T> {
        let Statistics { mean, inv_std, .. } = &self.statistics;
        let (dbias, dweight): (Vec<f64>, Vec<f64>) = (0..self.planes.channels)
            .into_par_iter()
            .map(|channel| {
                if !needs_sums {
                    return (0.0, 0.0);
                }
                let planes = self
                    .planes
                    .of_channel(x, channel)
                    .zip(self.planes.of_channel(dy, channel));
                let (sum, products) = channel_sums(planes, mean[channel], 0.0);
                (sum, products * inv_std[channel])
            })
            .unzip();
        let dx = needs_dx.then(|| {
            let count = self.planes.values_per_channel() as f64;
            let (centers, rounding) = self.statistics.centers::<T>();
            let mut dx = vec![T::ZERO; x.len()];
            self.for_each_plane(&mut dx, |channel, plane, dx| {
                let scale = inv_std[channel] * weight[channel].widen();
                let start = plane * self.planes.positions;
                let (x, dy) = (&x[start..], &dy[start..]);
                if self.training {
                    let slope = scale * inv_std[channel] * dweight[channel] / count;
                    let offset = T::narrow(scale * dbias[channel] / count + slope * rounding[channel]);
                    let (center, slope, scale) = (centers[channel], T::narrow(slope), T::narrow(scale));
                    for ((dx, x), dy) in dx.iter_mut().zip(x).zip(dy) {
                        *dx = scale * *dy - (*x - center) * slope - offset;
                    }
                } else {
                    let scale = T::narrow(scale);
                    for (dx, dy) in dx.iter_mut().zip(dy) {
                        *dx = scale * *dy;
                    }
                }
            });
            dx
        });
        let narrow = |sums: Vec<f64>| sums.into_iter().map(T::narrow).collect();
        Gradients {
            dx,
            dweight: narrow(dweight),
            dbias: narrow(dbias),
        }
    }

    /// Calls `write` with each plane's channel, number and elements, in parallel.
    fn for_each_plane<T: Element>(&self, out: &mut [T], write: impl Fn(usize, usize, &mut [T]) + Sync) {
        let Planes {
            channels, positions, ..
        } = self.planes;
        out.par_chunks_mut(positions)
            .with_min_len((BLOCK / positions).max(1))
            .enumerate()
            .for_each(|(plane, out)| write(plane % channels, plane, out));
    }
}

impl CustomOp3 for Normalize {
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
        dispatch!(OP, candle_core::backend::BackendStorage::dtype(x), T => {
            let x = element::slice::<T>(OP, x, x_layout)?;
            let weight = element::slice::<T>(OP, weight, weight_layout)?;
            let bias = element::slice::<T>(OP, bias, bias_layout)?;
            Ok((T::to_cpu_storage_owned(self.forward(x, weight, bias)), x_layout.shape().clone()))
        })
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _y: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let needs_sums = weight.track_op() || bias.track_op() || self.training;
        dispatch!(OP, grad.dtype(), T => {
            let gradients = element::with_slice::<T, _>(OP, x, |x_elements| {
                element::with_slice::<T, _>(OP, weight, |weight| {
                    element::with_slice::<T, _>(OP, grad, |dy| {
                        self.backward(x_elements, weight, dy, x.track_op(), needs_sums)
                    })
                })
            })???;
            let dx = gradients.dx.map(|dx| Tensor::from_vec(dx, x.shape(), &Device::Cpu)).transpose()?;
            let sums = |of: &Tensor, sums: Vec<T>| {
                of.track_op().then(|| Tensor::from_vec(sums, of.shape(), &Device::Cpu)).transpose()
            };
            Ok((dx, sums(weight, gradients.dweight)?, sums(bias, gradients.dbias)?))
        })
    }
}
