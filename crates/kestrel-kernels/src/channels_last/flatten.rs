//! Where a net leaves the channels-last layout.

use std::mem::MaybeUninit;

use rayon::prelude::*;

use crate::tape::{Backward, Gradient, Gradients, Tape, Value, elements, tensor};
use crate::{Result, element};

/// Rows and columns of a tile that is transposed at once.
const TILE: usize = 16;

impl Tape {
    /// `[N, H, W, C]` → `[N, C·H·W]`, each image's elements in channels-first order, as PyTorch's `flatten(1)` of its
    /// `[N, C, H, W]`.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`](crate::Error::ShapeMismatch) for another rank,
    /// [`Error::ForeignValue`](crate::Error::ForeignValue) for another tape's value.
    pub fn flatten(&mut self, x: &Value) -> Result<Value> {
        self.check(x)?;
        let (n, h, w, c) = element::dims4("flatten", x.shape_tensor(), "[N, H, W, C]")?;
        #[cfg(feature = "cuda")]
        if let Some(on_gpu) = x.on_gpu() {
            return crate::cuda::flatten(self, on_gpu);
        }
        let Some((x_node, _)) = x.as_recorded() else {
            return Ok(self.in_graph(x.whole()?.permute((0, 3, 1, 2))?.flatten_from(1)?));
        };
        let y = elements(&x.whole()?, |x| transposed(x, h * w, c))?;
        let y = self.plain(self.needs_grad(x_node), tensor(y, &[n, c * h * w])?);
        let op = FlattenOp {
            x_node,
            pixels: h * w,
            channels: c,
        };
        self.record(&y, op);
        Ok(y)
    }
}

/// A flattening that has run.
struct FlattenOp {
    x_node: usize,
    pixels: usize,
    channels: usize,
}

impl Backward for FlattenOp {
    fn backward(&self, gradient: Gradient, gradients: &mut Gradients<'_>) -> Result<()> {
        let dx = gradient.plain().with(|dy| transposed(dy, self.channels, self.pixels))?;
        gradients.add(self.x_node, Gradient::owned(dx))
    }
}

/// Each matrix `[rows, columns]` of a batch transposed.
fn transposed(matrices: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    let len = (rows * columns).max(1);
    let fill = |out: &mut [MaybeUninit<f32>]| {
        let pairs = out.par_chunks_mut(len).zip(matrices.par_chunks(len));
        pairs.for_each(|(out, matrix)| {
            // By tiles, so that neither side is walked with a large stride for long.
            for top in (0..rows).step_by(TILE) {
                for left in (0..columns).step_by(TILE) {
                    for column in left..columns.min(left + TILE) {
                        for row in top..rows.min(top + TILE) {
                            out[column * rows + row].write(matrix[row * columns + column]);
                        }
                    }
                }
            }
        });
    };
    // SAFETY: every row and column of each matrix is written to its place, and the matrices are as many as the places.
    unsafe { element::written(matrices.len(), fill) }
}
