//! Adam with coupled or decoupled weight decay, in PyTorch's order of operations.

use crate::element::{self, Element, dispatch};
use crate::simd::{Isa, Kernel, Simd};
use crate::{Error, Result};
use candle_core::{CpuStorage, DType, InplaceOp3, Layout, Tensor, Var};
use rayon::prelude::*;

/// Elements of a piece of work.
const BLOCK: usize = 1 << 13;

/// Constants of a step of Adam.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamConfig {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the first moment, in `[0, 1)`.
    pub beta1: f64,
    /// Decay of the second moment, in `[0, 1)`.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Coupled L2: `weight_decay · param` is added to the gradient. Decoupled: the parameter shrinks by
    /// `lr · weight_decay` of itself before the step.
    pub weight_decay: f64,
    /// Whether the weight decay is decoupled from the moments, which makes this AdamW.
    pub decoupled: bool,
}

impl Default for AdamConfig {
    fn default() -> Self {
        Self {
            lr: 1e-3,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: 0.0,
            decoupled: false,
        }
    }
}

impl AdamConfig {
    /// The weight decay that is added to the gradient.
    fn coupled(&self) -> f64 {
        if self.decoupled { 0.0 } else { self.weight_decay }
    }
}

/// One step of Adam on `param`, with the moments moved in place; `step` counts from 1.
///
/// ```text
/// g = grad + weight_decay · param, or grad if decoupled
/// exp_avg    += (1 − beta1) (g − exp_avg)
/// exp_avg_sq  = beta2 · exp_avg_sq + (1 − beta2) g²
/// param      *= 1 − lr · weight_decay                                 (decoupled)
/// param      −= lr / (1 − beta1^step) · exp_avg / (√exp_avg_sq / √(1 − beta2^step) + eps)
/// ```
///
/// # Shapes
/// All four tensors have the same, and all but `grad` are contiguous.
///
/// # Errors
/// [`Error::ShapeMismatch`], [`Error::DTypeMismatch`], [`Error::InvalidArgument`] for a step of 0, candle's
/// `RequiresContiguous`; nothing has moved then.
///
/// # Source
/// Kingma and Ba 2015, algorithm 1; `torch.optim.Adam`, proved by `tests/golden/adam.safetensors`. Decoupled: Loshchilov
/// and Hutter 2019, algorithm 2; `torch.optim.AdamW`, proved by the golden file `optimizers` of `kestrel-train`.
pub fn adam_step(
    param: &Var,
    grad: &Tensor,
    exp_avg: &Tensor,
    exp_avg_sq: &Tensor,
    step: u64,
    config: &AdamConfig,
) -> Result<()> {
    element::require_float("adam_step param", param)?;
    for (op, tensor) in [
        ("adam_step grad", grad),
        ("adam_step exp_avg", exp_avg),
        ("adam_step exp_avg_sq", exp_avg_sq),
    ] {
        element::require_same_dtype(op, tensor, param)?;
        element::require_shape(op, tensor, param.dims())?;
    }
    for tensor in [param.as_tensor(), exp_avg, exp_avg_sq] {
        element::require_contiguous("adam_step", tensor)?;
    }
    if step == 0 {
        return Err(Error::InvalidArgument {
            op: "adam_step",
            argument: "step",
            expected: "at least 1",
            got: 0.0,
        });
    }
    let grad = grad.detach();
    if !param.device().is_cpu() {
        return Ok(composite(param, &grad, exp_avg, exp_avg_sq, step, config)?);
    }
    let grad = grad.contiguous()?;
    let moment = |moment| Moment {
        moment,
        weight_decay: config.coupled(),
    };
    exp_avg.inplace_op3(&grad, param, &moment(Order::First { beta1: config.beta1 }))?;
    exp_avg_sq.inplace_op3(&grad, param, &moment(Order::Second { beta2: config.beta2 }))?;
    Ok(param.inplace_op3(exp_avg, exp_avg_sq, &Apply::new(step, config))?)
}

/// The same step from candle's own ops.
fn composite(
    param: &Var,
    grad: &Tensor,
    exp_avg: &Tensor,
    exp_avg_sq: &Tensor,
    step: u64,
    config: &AdamConfig,
) -> candle_core::Result<()> {
    let param_now = param.as_detached_tensor();
    let grad = if config.coupled() == 0.0 {
        grad.clone()
    } else {
        (grad + (&param_now * config.coupled())?)?
    };
    let first = (exp_avg.detach() + ((&grad - exp_avg.detach())? * (1.0 - config.beta1))?)?;
    let second = ((exp_avg_sq.detach() * config.beta2)? + (grad.sqr()? * (1.0 - config.beta2))?)?;
    let Apply {
        step_size,
        sqrt_correction2,
        eps,
        keep,
    } = Apply::new(step, config);
    let denom = ((second.sqrt()? / sqrt_correction2)? + eps)?;
    let moved = ((param_now * keep)? - ((&first * step_size)? / denom)?)?;
    for (to, from) in [(exp_avg, first), (exp_avg_sq, second)] {
        to.flatten_all()?.slice_set(&from.flatten_all()?, 0, 0)?;
    }
    param.set(&moved)
}

/// Moves one of the moments, given gradient and parameter.
struct Moment {
    moment: Order,
    weight_decay: f64,
}

enum Order {
    First { beta1: f64 },
    Second { beta2: f64 },
}

impl Moment {
    fn run<T: Element>(&self, moment: &mut [T], grad: &[T], param: &[T]) {
        // The closures own their constants: behind a reference, each would be read again after every element written.
        let weight_decay = T::narrow(self.weight_decay);
        // PyTorch leaves the gradient alone without weight decay, so that an infinite parameter makes no NaN.
        let decayed = move |grad: T, param: T| {
            if weight_decay == T::ZERO {
                grad
            } else {
                grad + weight_decay * param
            }
        };
        match self.moment {
            Order::First { beta1 } => {
                let weight = T::narrow(1.0 - beta1);
                zip3(moment, grad, param, move |m, g, p| m + weight * (decayed(g, p) - m));
            }
            Order::Second { beta2 } => {
                let (keep, weight) = (T::narrow(beta2), T::narrow(1.0 - beta2));
                zip3(moment, grad, param, move |v, g, p| {
                    let g = decayed(g, p);
                    v * keep + weight * g * g
                });
            }
        }
    }
}

/// Moves the parameter, given both moments.
struct Apply {
    step_size: f64,
    sqrt_correction2: f64,
    eps: f64,
    /// What is left of the parameter after decoupled decay.
    keep: f64,
}

impl Apply {
    fn new(step: u64, config: &AdamConfig) -> Self {
        let correction = |beta: f64| 1.0 - beta.powf(step as f64);
        Self {
            step_size: config.lr / correction(config.beta1),
            sqrt_correction2: correction(config.beta2).sqrt(),
            eps: config.eps,
            keep: if config.decoupled {
                1.0 - config.lr * config.weight_decay
            } else {
                1.0
            },
        }
    }

    fn run<T: Element>(&self, param: &mut [T], exp_avg: &[T], exp_avg_sq: &[T]) {
        let (step_size, eps) = (T::narrow(self.step_size), T::narrow(self.eps));
        let (sqrt_correction2, keep) = (T::narrow(self.sqrt_correction2), T::narrow(self.keep));
        zip3(param, exp_avg, exp_avg_sq, move |p, m, v| {
            p * keep - step_size * m / (v.sqrt() / sqrt_correction2 + eps)
        });
    }
}

/// `out = f(out, a, b)`, element by element; each element rounds alike in every instruction set.
fn zip3<T: Element>(out: &mut [T], a: &[T], b: &[T], f: impl Fn(T, T, T) -> T + Copy + Send + Sync) {
    Isa::current().dispatch(Pieces { out, a, b, f });
}

/// The whole of [`zip3`].
struct Pieces<'a, T, F> {
    out: &'a mut [T],
    a: &'a [T],
    b: &'a [T],
    f: F,
}

impl<T: Element, F: Fn(T, T, T) -> T + Copy + Send + Sync> Kernel for Pieces<'_, T, F> {
    type Output = ();

    fn run<S: Simd>(self, s: S) {
        let Self { out, a, b, f } = self;
        out.par_chunks_mut(BLOCK)
            .zip(a.par_chunks(BLOCK))
            .zip(b.par_chunks(BLOCK))
            .for_each(|((out, a), b)| s.vectorize(Piece(Pieces { out, a, b, f })));
    }
}

/// One piece of it.
struct Piece<'a, T, F>(Pieces<'a, T, F>);

impl<T: Element, F: Fn(T, T, T) -> T> Kernel for Piece<'_, T, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let Pieces { out, a, b, f } = self.0;
        for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
            *out = f(*out, *a, *b);
        }
    }
}

/// Implements candle's in-place op by `self.run` on the three slices.
macro_rules! inplace {
    ($op:ty, $name:literal) => {
        impl InplaceOp3 for $op {
            fn name(&self) -> &'static str {
                $name
            }

            fn cpu_fwd(
                &self,
                dst: &mut CpuStorage,
                dst_layout: &Layout,
                a: &CpuStorage,
                a_layout: &Layout,
                b: &CpuStorage,
                b_layout: &Layout,
            ) -> candle_core::Result<()> {
                let dtype: DType = candle_core::backend::BackendStorage::dtype(dst);
                dispatch!($name, dtype, T => {
                    let a = element::slice::<T>($name, a, a_layout)?;
                    let b = element::slice::<T>($name, b, b_layout)?;
                    self.run(element::slice_mut::<T>($name, dst, dst_layout)?, a, b);
                    Ok(())
                })
            }
        }
    };
}
inplace!(Moment, "adam moment");
inplace!(Apply, "adam step");

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn composite_agrees_with_the_kernel() -> candle_core::Result<()> {
        for decoupled in [false, true] {
            compare(AdamConfig {
                weight_decay: 0.1,
                decoupled,
                ..AdamConfig::default()
            })?;
        }
        Ok(())
    }

    fn compare(config: AdamConfig) -> candle_core::Result<()> {
        let values: Vec<f64> = (0..15).map(|i| (f64::from(i) * 1.7).sin()).collect();
        let start = Tensor::from_vec(values, (3, 5), &Device::Cpu)?;
        let (fast, slow) = (Var::from_tensor(&start.copy()?)?, Var::from_tensor(&start.copy()?)?);
        let zeros = || Tensor::zeros((3, 5), DType::F64, &Device::Cpu);
        let (fast_m, fast_v, slow_m, slow_v) = (zeros()?, zeros()?, zeros()?, zeros()?);
        for step in 1..=3 {
            let grad = (&start * f64::from(step as u32))?.cos()?;
            adam_step(&fast, &grad, &fast_m, &fast_v, step, &config)?;
            composite(&slow, &grad, &slow_m, &slow_v, step, &config)?;
        }
        for (fast, slow) in [
            (fast.as_tensor(), slow.as_tensor()),
            (&fast_m, &slow_m),
            (&fast_v, &slow_v),
        ] {
            assert!((fast - slow)?.abs()?.max_all()?.to_scalar::<f64>()? < 1e-14);
        }
        let moved = (fast.as_tensor() - &start)?.abs()?.max_all()?.to_scalar::<f64>()?;
        assert!(moved > 1e-3, "{moved}");
        Ok(())
    }

    /// Vectors change no bit: each element goes through the equation by itself, in `f32`, without fused operations.
    #[test]
    fn every_bit_is_the_plain_loops() -> candle_core::Result<()> {
        let config = AdamConfig {
            weight_decay: 0.1,
            ..AdamConfig::default()
        };
        let len = BLOCK + 77;
        let values = |seed: f32| -> Vec<f32> { (0..len).map(|i| (i as f32 * seed).sin()).collect() };
        let (param, grad) = (values(1.7), values(0.3));
        let var = Var::new(&param[..], &Device::Cpu)?;
        let gradient = Tensor::new(&grad[..], &Device::Cpu)?;
        let [m, v] = [Tensor::zeros(len, DType::F32, &Device::Cpu)?, var.zeros_like()?];
        adam_step(&var, &gradient, &m, &v, 1, &config)?;
        let (step_size, eps) = ((config.lr / (1.0 - config.beta1)) as f32, config.eps as f32);
        let sqrt_correction2 = (1.0 - config.beta2).sqrt() as f32;
        for (i, got) in var.to_vec1::<f32>()?.into_iter().enumerate() {
            let g = grad[i] + 0.1 * param[i];
            let m = 0.0 + (1.0 - config.beta1) as f32 * (g - 0.0);
            let v = 0.0 * config.beta2 as f32 + (1.0 - config.beta2) as f32 * g * g;
            let want = param[i] - step_size * m / (v.sqrt() / sqrt_correction2 + eps);
            assert_eq!(got.to_bits(), want.to_bits(), "element {i}: {got} and {want}");
        }
        Ok(())
    }
}
