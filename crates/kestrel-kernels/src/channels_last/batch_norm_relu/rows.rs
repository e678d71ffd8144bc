//! How a tensor of pixels, each of `C` channels, is cut into pieces of work, and sums over it by channel.

use super::strip::{self, GradientSums, MomentSums, Reduction};
use crate::batch_norm::statistics::{Statistics, at_least_zero};
use rayon::prelude::*;

/// A strip has whole vectors of any instruction set, and at least this many floats: enough for short loops to be rare.
const VECTOR: usize = 16;
const SHORTEST_STRIP: usize = 128;

/// Floats of a piece of work, about.
const PIECE: usize = 1 << 15;

/// Pixels of `channels` floats each, side by side.
///
/// Work is done by *strips*: the fewest pixels that fill whole vectors. The float at place `i` of any strip belongs to
/// channel `i % channels`, so constants by channel become vectors by place, whatever the number of channels.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rows {
    channels: usize,
    strip: usize,
}

/// What [`GradientSums`] adds up to, by channel, in f64.
pub(super) struct ChannelGradients {
    /// `Σ g`.
    pub(super) dbias: Vec<f64>,
    /// `Σ g (x − mean) · inv_std`.
    pub(super) dweight: Vec<f64>,
}

impl Rows {
    pub(super) fn new(channels: usize) -> Self {
        let mut pixels = 1;
        while !(channels * pixels).is_multiple_of(VECTOR) || channels * pixels < SHORTEST_STRIP {
            // Doubling reaches every power of two that `channels` lacks.
            pixels *= 2;
        }
        Self {
            channels,
            strip: channels * pixels,
        }
    }

    pub(super) fn channels(&self) -> usize {
        self.channels
    }

    /// Floats of a piece of work: whole strips.
    pub(super) fn piece(&self) -> usize {
        (PIECE / self.strip).max(1) * self.strip
    }

    /// A strip of constants by channel.
    pub(super) fn strip_of(&self, by_channel: impl Fn(usize) -> f32) -> Vec<f32> {
        let pixel: Vec<f32> = (0..self.channels).map(by_channel).collect();
        pixel.repeat(self.strip / self.channels)
    }

    /// Mean and biased variance of each channel of `x`, which has a pixel.
    ///
    /// One pass over the data, less the first pixel, so that a large mean costs no digits.
    pub(super) fn statistics(&self, x: &[f32], eps: f64) -> Statistics {
        let shift = self.strip_of(|channel| x[channel]);
        let [sums, squares] = self.reduce(x.par_chunks(self.piece()).map(|x| MomentSums { x, shift: &shift }));
        let count = (x.len() / self.channels) as f64;
        let (mean, var) = (0..self.channels)
            .map(|channel| {
                let mean = sums[channel] / count;
                let var = squares[channel] / count - mean * mean;
                (f64::from(shift[channel]) + mean, at_least_zero(var))
            })
            .unzip();
        Statistics::new(mean, var, eps)
    }

    /// Sums of the gated gradient, `mean` and `affine` being strips as [`GradientSums`] has them.
    pub(super) fn gradients(
        &self,
        x: &[f32],
        dy: &[f32],
        affine: &strip::Affine<'_>,
        statistics: &Statistics,
    ) -> ChannelGradients {
        let piece = self.piece();
        let sums = x.par_chunks(piece).zip(dy.par_chunks(piece));
        let [dbias, products] = self.reduce(sums.map(|(x, dy)| GradientSums { x, dy, affine }));
        let dweight = (0..self.channels)
            .map(|channel| {
                // The products were taken about the mean rounded to f32.
                let rounding = statistics.mean[channel] - f64::from(affine.mean[channel]);
                (products[channel] - rounding * dbias[channel]) * statistics.inv_std[channel]
            })
            .collect();
        ChannelGradients { dbias, dweight }
    }

    /// Two sums by channel. The pieces depend on the shape alone and are added up in order.
    fn reduce<R: Reduction>(&self, pieces: impl IndexedParallelIterator<Item = R>) -> [Vec<f64>; 2] {
        let by_piece: Vec<[Vec<f64>; 2]> = pieces
            .map(|piece| strip::reduce(piece, self.strip).map(|sums| self.by_channel(&sums)))
            .collect();
        let mut totals = [const { Vec::new() }; 2].map(|_: Vec<f64>| vec![0.0; self.channels]);
        for piece in by_piece {
            for (totals, sums) in totals.iter_mut().zip(&piece) {
                for (total, sum) in totals.iter_mut().zip(sums) {
                    *total += sum;
                }
            }
        }
        totals
    }

    /// Adds up a strip's pixels.
    fn by_channel(&self, strip: &[f64]) -> Vec<f64> {
        let mut sums = vec![0.0; self.channels];
        for pixel in strip.chunks_exact(self.channels) {
            for (sum, value) in sums.iter_mut().zip(pixel) {
                *sum += value;
            }
        }
        sums
    }
}
