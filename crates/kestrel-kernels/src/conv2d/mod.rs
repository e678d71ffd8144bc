//! Two-dimensional convolution: the op, its checks, and the choice of algorithm by shape.
//!
//! The CPU algorithm is `im2col`: strips of patches that stay in cache, multiplied by the weight. Another algorithm is
//! slotted in by a test on `Geometry` in the methods of `Conv2dOp`, which alone call `im2col`.

mod composite;
pub mod direct;
pub(crate) mod geometry;
pub mod hooks;
mod im2col;
mod slices;
pub mod winograd;
mod workspace;

#[cfg(doc)]
use crate::Error;
use crate::element::{self, Element, dispatch};
use crate::{Result, autocast};
use candle_core::{CpuStorage, CustomOp2, CustomOp3, DType, Device, Layout, Shape, Tensor};
use geometry::Geometry;
pub use workspace::Workspace;

/// How the kernel moves over the image; the same for height and width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv2dConfig {
    /// Distance between neighbouring windows.
    pub stride: usize,
    /// Rows and columns of zeros added on each side.
    pub padding: usize,
    /// Distance between neighbouring taps of the kernel.
    pub dilation: usize,
    /// Number of groups into which input and output channels are cut.
    pub groups: usize,
}

impl Default for Conv2dConfig {
    fn default() -> Self {
        Self {
            stride: 1,
            padding: 0,
            dilation: 1,
            groups: 1,
        }
    }
}

/// Cross-correlation of a batch of images with a kernel.
///
/// ```text
/// y[n, k, p, q] = bias[k] + Σ_c Σ_r Σ_s weight[k, c, r, s] · x[n, g·C/G + c, p·stride + r·dilation − padding,
///                                                                        q·stride + s·dilation − padding]
/// P = (H + 2·padding − dilation·(R − 1) − 1) / stride + 1, rounded down; g = k / (K/G)
/// ```
///
/// The backward computes no gradient for an argument that no variable leads to.
///
/// # Shapes
/// `x` `[N, C, H, W]`, `weight` `[K, C/G, R, S]`, `bias` `[K]`; the result is `[N, K, P, Q]`.
///
/// # Errors
/// [`Error::ShapeMismatch`], [`Error::DTypeMismatch`], [`Error::InvalidArgument`] for a stride, dilation or number of
/// groups of 0, groups that do not divide the channels, or a padding that makes an output of 2^60 elements or more,
/// [`Error::KernelTooLarge`].
///
/// # Source
/// `torch.nn.functional.conv2d`; proved by `tests/golden/conv2d.safetensors`.
pub fn conv2d(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, config: &Conv2dConfig) -> Result<Tensor> {
    const OP: &str = "conv2d";
    element::require_float(OP, x)?;
    element::require_same_dtype("conv2d weight", weight, x)?;
    let geometry = Geometry::new(x, weight, config)?;
    if let Some(bias) = bias {
        element::require_same_dtype("conv2d bias", bias, x)?;
        element::require_shape("conv2d bias", bias, &[geometry.out_channels])?;
    }
    if let Some(precision) = autocast::of_tensor(x) {
        return autocast::rounded(precision, [x, weight], bias, |x, weight, bias| {
            conv2d(x, weight, bias, config)
        });
    }
    if !x.device().is_cpu() {
        return Ok(composite::conv2d(x, weight, bias, &geometry)?);
    }
    let (x, weight) = (x.contiguous()?, weight.contiguous()?);
    let op = Conv2dOp { geometry };
    let y = match bias {
        Some(bias) => x.apply_op3(&weight, &bias.contiguous()?, op)?,
        None => x.apply_op2(&weight, op)?,
    };
    Ok(y)
}

/// The op that candle's autograd records; arguments are contiguous.
struct Conv2dOp {
    geometry: Geometry,
}

impl Conv2dOp {
    fn forward<T: Element>(&self, x: &[T], weight: &[T], bias: Option<&[T]>) -> (CpuStorage, Shape) {
        let g = &self.geometry;
        let y = im2col::forward(g, x, weight, bias);
        (
            T::to_cpu_storage_owned(y),
            Shape::from((g.batch, g.out_channels, g.out_height, g.out_width)),
        )
    }

    /// Gradients of input and weight, each only if something needs it.
    fn backward<T: Element>(
        &self,
        x: &Tensor,
        weight: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        const OP: &str = "conv2d backward";
        let g = &self.geometry;
        element::with_slice::<T, _>(OP, grad, |dy| {
            let dx = if x.track_op() {
                let dx = element::with_slice::<T, _>(OP, weight, |weight| im2col::backward_data(g, weight, dy))?;
                Some(Tensor::from_vec(dx, x.shape(), &Device::Cpu)?)
            } else {
                None
            };
            let dweight = if weight.track_op() {
                let dweight = element::with_slice::<T, _>(OP, x, |x| im2col::backward_weight(g, x, dy))?;
                Some(Tensor::from_vec(dweight, weight.shape(), &Device::Cpu)?)
            } else {
                None
            };
            Ok((dx, dweight))
        })?
    }

    fn backward_bias<T: Element>(&self, bias: &Tensor, grad: &Tensor) -> candle_core::Result<Option<Tensor>> {
        if !bias.track_op() {
            return Ok(None);
        }
        let g = &self.geometry;
        let sums = element::with_slice::<T, _>("conv2d backward", grad, |dy| {
            im2col::backward_bias(dy, g.out_channels, g.out_positions())
        })?;
        Ok(Some(Tensor::from_vec(sums, bias.shape(), &Device::Cpu)?))
    }
}

impl CustomOp2 for Conv2dOp {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        const OP: &str = "conv2d";
        dispatch!(OP, dtype(x), T => {
            let x = element::slice::<T>(OP, x, x_layout)?;
            let weight = element::slice::<T>(OP, weight, weight_layout)?;
            Ok(self.forward(x, weight, None))
        })
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _y: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        dispatch!("conv2d", grad.dtype(), T => self.backward::<T>(x, weight, grad))
    }
}

impl CustomOp3 for Conv2dOp {
    fn name(&self) -> &'static str {
        "conv2d"
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
        const OP: &str = "conv2d";
        dispatch!(OP, dtype(x), T => {
            let x = element::slice::<T>(OP, x, x_layout)?;
            let weight = element::slice::<T>(OP, weight, weight_layout)?;
            let bias = element::slice::<T>(OP, bias, bias_layout)?;
            Ok(self.forward(x, weight, Some(bias)))
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
        dispatch!("conv2d", grad.dtype(), T => {
            let (dx, dweight) = self.backward::<T>(x, weight, grad)?;
            Ok((dx, dweight, self.backward_bias::<T>(bias, grad)?))
        })
    }
}

fn dtype(storage: &CpuStorage) -> DType {
    candle_core::backend::BackendStorage::dtype(storage)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The composite for other devices against the kernel, in values and in every gradient.
    #[test]
    fn composite_agrees_with_the_kernel() -> candle_core::Result<()> {
        use crate::conv2d::composite;
        use candle_core::Var;
        let configs = [
            (1, 1, 1, 1, 6, 7),
            (2, 1, 1, 1, 7, 8),
            (2, 0, 2, 1, 9, 10),
            (3, 2, 1, 2, 8, 6),
            (1, 0, 1, 4, 5, 5),
        ];
        for (stride, padding, dilation, groups, height, width) in configs {
            let config = Conv2dConfig {
                stride,
                padding,
                dilation,
                groups,
            };
            let x = Var::randn(0f64, 1f64, (2, 4, height, width), &Device::Cpu)?;
            let weight = Var::randn(0f64, 1f64, (8, 4 / groups, 3, 3), &Device::Cpu)?;
            let bias = Var::randn(0f64, 1f64, 8, &Device::Cpu)?;
            let geometry = Geometry::new(&x, &weight, &config)?;
            let fast = conv2d(&x, &weight, Some(&bias), &config)?;
            let slow = composite::conv2d(&x, &weight, Some(&bias), &geometry)?;
            let scale = fast.randn_like(0.0, 1.0)?;
            let (fast_grads, slow_grads) = ((&fast * &scale)?.backward()?, (&slow * &scale)?.backward()?);
            let mut pairs = vec![(fast.clone(), slow.clone())];
            for var in [&x, &weight, &bias] {
                let grads = (fast_grads.get(var), slow_grads.get(var));
                let (Some(fast), Some(slow)) = grads else {
                    panic!("no gradient: {grads:?}")
                };
                pairs.push((fast.clone(), slow.clone()));
            }
            for (fast, slow) in pairs {
                let error = (&fast - &slow)?.sqr()?.sum_all()?.to_scalar::<f64>()?;
                let norm = slow.sqr()?.sum_all()?.to_scalar::<f64>()?;
                assert!(norm > 0.0 && error <= 1e-24 * norm, "{config:?}: {error} of {norm}");
            }
        }
        Ok(())
    }
}
