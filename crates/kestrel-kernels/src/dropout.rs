//! Dropout whose mask is a function of a key and the element's place, not of a generator's state.

use crate::element::{self, Element, dispatch};
use crate::random::{KeyedRng, Purpose};
use crate::tape::{Backward, Gradient, Gradients, Tape, Value, elements, tensor};
use crate::{Error, Result};
use candle_core::{CpuStorage, CustomOp1, Device, Layout, Shape, Tensor, WithDType};
use rayon::prelude::*;

const OP: &str = "dropout";

/// Elements of a piece of work; a multiple of 64, so that pieces of the mask are whole words.
const BLOCK: usize = 1 << 13;

/// What a mask depends on, besides the element's place: no two dropouts of a run may share a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DropoutKey {
    /// The run's seed.
    pub seed: u64,
    /// The optimiser step.
    pub step: u64,
    /// The layer's number in the model.
    pub layer: u64,
}

/// Sets each element to 0 with probability `p` and scales the others by `1 / (1 − p)`.
///
/// ```text
/// y[i] = 0 if u[i] < p, else x[i] / (1 − p);  u[i] = the i-th 32-bit word of the key's stream / 2³²
/// ```
///
/// `i` counts the elements in row-major order. With `p = 0` the result is `x` itself, with `p = 1` all zeros. The
/// backward uses the same mask.
///
/// # Shapes
/// Any.
///
/// # Errors
/// [`Error::InvalidArgument`] for `p` outside `[0, 1]` or NaN, [`Error::DTypeMismatch`].
///
/// # Source
/// Srivastava et al. 2014; `torch.nn.functional.dropout`, but for the random numbers.
pub fn dropout(x: &Tensor, p: f64, key: DropoutKey) -> Result<Tensor> {
    check(p)?;
    element::require_float(OP, x)?;
    if p == 0.0 {
        return Ok(x.clone());
    }
    let mask = Mask::new(x.elem_count(), p, key);
    if !x.device().is_cpu() {
        return Ok(composite(x, &mask)?);
    }
    Ok(x.contiguous()?.apply_op1(mask)?)
}

fn check(p: f64) -> Result<()> {
    if (0.0..=1.0).contains(&p) {
        return Ok(());
    }
    Err(Error::InvalidArgument {
        op: OP,
        argument: "p",
        expected: "in [0, 1]",
        got: p,
    })
}

impl Tape {
    /// Sets each element to 0 with probability `p` and scales the others, as [`dropout`].
    ///
    /// # Errors
    /// Those of [`dropout`], and [`Error::ForeignValue`] for another tape's value.
    pub fn dropout(&mut self, x: &Value, p: f64, key: DropoutKey) -> Result<Value> {
        check(p)?;
        self.check(x)?;
        let Some((x_node, _)) = x.as_recorded() else {
            return Ok(self.in_graph(dropout(&x.whole()?, p, key)?));
        };
        if p == 0.0 {
            return Ok(x.clone());
        }
        #[cfg(feature = "cuda")]
        if let Some(on_gpu) = x.on_gpu() {
            return crate::cuda::dropout(self, on_gpu, p, key);
        }
        let x = x.whole()?;
        let mask = Mask::new(x.elem_count(), p, key);
        let y = elements(&x, |x| mask.apply(x))?;
        let y = self.plain(self.needs_grad(x_node), tensor(y, x.dims())?);
        self.record(&y, DropoutOp { mask, x_node });
        Ok(y)
    }
}

/// A dropout that has run.
struct DropoutOp {
    mask: Mask,
    x_node: usize,
}

impl Backward for DropoutOp {
    fn backward(&self, gradient: Gradient, gradients: &mut Gradients<'_>) -> Result<()> {
        let dx = gradient.plain().with(|dy| self.mask.apply(dy))?;
        gradients.add(self.x_node, Gradient::owned(dx))
    }
}

/// The same value and gradient from candle's own ops; the mask is made on the host.
fn composite(x: &Tensor, mask: &Mask) -> candle_core::Result<Tensor> {
    dispatch!(OP, x.dtype(), T => {
        let factors: Vec<T> = mask.apply(&vec![T::ONE; x.elem_count()]);
        x.mul(&Tensor::from_vec(factors, x.shape(), x.device())?)
    })
}

/// Which elements are kept, and by what they are multiplied.
struct Mask {
    /// Bit `i % 64` of word `i / 64` is set if element `i` is kept.
    kept: Vec<u64>,
    scale: f64,
}

impl Mask {
    fn new(elements: usize, p: f64, key: DropoutKey) -> Self {
        // At most 2^32, which no 32-bit word reaches: nothing is kept.
        let threshold = (p * (1u64 << 32) as f64) as u64;
        let mut kept = vec![0u64; elements.div_ceil(64)];
        kept.par_chunks_mut(BLOCK / 64).enumerate().for_each(|(block, words)| {
            let mut rng =
                KeyedRng::new(key.seed, Purpose::Dropout, key.step, key.layer).starting_at((block * BLOCK) as u64);
            for word in words {
                for bit in 0..64 {
                    *word |= u64::from(u64::from(rng.next_u32()) >= threshold) << bit;
                }
            }
        });
        Self {
            kept,
            scale: if p < 1.0 { 1.0 / (1.0 - p) } else { 0.0 },
        }
    }

    fn apply<T: Element>(&self, x: &[T]) -> Vec<T> {
        let scale = T::narrow(self.scale);
        let mut y = vec![T::ZERO; x.len()];
        y.par_chunks_mut(BLOCK)
            .zip(x.par_chunks(BLOCK))
            .zip(self.kept.par_chunks(BLOCK / 64))
            .for_each(|((y, x), kept)| {
                for ((y, x), word) in y.chunks_mut(64).zip(x.chunks(64)).zip(kept) {
                    for (bit, (y, x)) in y.iter_mut().zip(x).enumerate() {
                        *y = std::hint::select_unpredictable(word >> bit & 1 == 1, *x * scale, T::ZERO);
                    }
                }
            });
        y
    }
}

impl CustomOp1 for Mask {
    fn name(&self) -> &'static str {
        OP
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        dispatch!(OP, candle_core::backend::BackendStorage::dtype(x), T => {
            let y = self.apply(element::slice::<T>(OP, x, layout)?);
            Ok((T::to_cpu_storage_owned(y), layout.shape().clone()))
        })
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, grad: &Tensor) -> candle_core::Result<Option<Tensor>> {
        dispatch!(OP, grad.dtype(), T => {
            let dx = element::with_slice::<T, _>(OP, grad, |dy| self.apply(dy))?;
            Ok(Some(Tensor::from_vec(dx, x.shape(), &Device::Cpu)?))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: DropoutKey = DropoutKey {
        seed: 1,
        step: 2,
        layer: 3,
    };

    #[test]
    fn composite_agrees_with_the_kernel() -> candle_core::Result<()> {
        let x = Tensor::randn(0f32, 1f32, (7, 13), &Device::Cpu)?;
        let fast = dropout(&x, 0.4, KEY)?.flatten_all()?.to_vec1::<f32>()?;
        let slow = composite(&x, &Mask::new(91, 0.4, KEY))?
            .flatten_all()?
            .to_vec1::<f32>()?;
        assert!(fast.contains(&0.0) && fast.iter().any(|v| *v != 0.0));
        assert_eq!(fast, slow);
        Ok(())
    }

    #[test]
    fn a_mask_is_the_prefix_of_a_longer_one() {
        let (short, long) = (Mask::new(640, 0.5, KEY), Mask::new(3 * BLOCK, 0.5, KEY));
        assert_eq!(short.kept, long.kept[..10]);
        let mut rng = KeyedRng::new(1, Purpose::Dropout, 2, 3).starting_at(BLOCK as u64 + 5);
        assert_eq!(long.kept[BLOCK / 64] >> 5 & 1 == 1, rng.uniform() >= 0.5);
    }
}
