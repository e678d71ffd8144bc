//! Convolution on channels-last tensors: Winograd where it pays, the channels-first op elsewhere.

use candle_core::{CpuStorage, CustomOp2, CustomOp3, DType, Device, Layout, Shape, Tensor};

use super::{to_channels_first, to_channels_last};
use crate::conv2d::Conv2dConfig;
use crate::conv2d::geometry::Geometry;
use crate::conv2d::winograd::{self, Winograd, Workspace};
use crate::{Result, element};

const OP: &str = "channels_last conv2d";

/// Cross-correlation of a batch of images with a kernel; [`crate::conv2d()`] in another layout, with the same numbers to
/// rounding.
///
/// `f32` on the CPU with a 3x3 kernel, stride 1, padding up to 2, one group and at least 8 input channels runs by Winograd
/// transforms, whose relative error is about 1e-6. The backward computes no gradient for an argument that no variable leads
/// to.
///
/// # Shapes
/// `x` `[N, H, W, C]`, `weight` `[K, C/G, R, S]` (PyTorch's order), `bias` `[K]`; the result is `[N, P, Q, K]`, contiguous.
///
/// # Errors
/// Those of [`crate::conv2d()`].
///
/// # Source
/// `torch.nn.functional.conv2d` with `memory_format=torch.channels_last`; Lavin and Gray 2016.
pub fn conv2d(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, config: &Conv2dConfig) -> Result<Tensor> {
    element::require_float(OP, x)?;
    let channels_first = to_channels_first(OP, x)?;
    let Some(op) = fast(x, &channels_first, weight, config)? else {
        return Ok(to_channels_last(&crate::conv2d(
            &channels_first,
            weight,
            bias,
            config,
        )?)?);
    };
    element::require_same_dtype("channels_last conv2d weight", weight, x)?;
    let (x, weight) = (x.contiguous()?, weight.contiguous()?);
    Ok(match bias {
        Some(bias) => {
            element::require_same_dtype("channels_last conv2d bias", bias, &x)?;
            element::require_shape("channels_last conv2d bias", bias, &[op.winograd.shape().output()[3]])?;
            x.apply_op3(&weight, &bias.contiguous()?, op)?
        }
        None => x.apply_op2(&weight, op)?,
    })
}

/// The kernel for these arguments, if it takes them.
fn fast(x: &Tensor, channels_first: &Tensor, weight: &Tensor, config: &Conv2dConfig) -> Result<Option<WinogradOp>> {
    let g = Geometry::new(channels_first, weight, config)?;
    let plain = g.stride == 1 && g.dilation == 1 && g.groups == 1 && g.padding <= 2;
    let square = g.kernel_height == 3 && g.kernel_width == 3;
    if !(x.device().is_cpu() && x.dtype() == DType::F32 && plain && square && g.in_channels >= 8) {
        return Ok(None);
    }
    // A shape that Winograd's own checks refuse, such as an empty batch, is the general op's.
    let shape = winograd::Shape::new([g.batch, g.height, g.width, g.in_channels], g.out_channels, g.padding);
    Ok(shape.ok().map(|shape| WinogradOp {
        winograd: Winograd::new(shape),
    }))
}

/// The op that candle's autograd records; arguments are contiguous `f32`.
struct WinogradOp {
    winograd: Winograd,
}

impl WinogradOp {
    fn forward(&self, x: &[f32], weight: &[f32], bias: Option<&[f32]>) -> (CpuStorage, Shape) {
        let dims = self.winograd.shape().output();
        let mut y = vec![0.0; dims.iter().product()];
        Workspace::with_local(|ws| match bias {
            Some(bias) => {
                let epilogue = winograd::hooks::Bias { bias };
                self.winograd
                    .forward_with(x, &winograd::hooks::Identity, weight, &epilogue, &mut y, ws);
            }
            None => self.winograd.forward(x, weight, &mut y, ws),
        });
        (CpuStorage::F32(y), Shape::from(dims.to_vec()))
    }

    /// Gradients of input and weight, each only if something needs it.
    fn backward(
        &self,
        x: &Tensor,
        weight: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        element::with_slice::<f32, _>(OP, grad, |dy| {
            let dx = if x.track_op() {
                let mut dx = vec![0.0; x.elem_count()];
                element::with_slice::<f32, _>(OP, weight, |w| {
                    Workspace::with_local(|ws| self.winograd.backward_data(dy, w, &mut dx, ws));
                })?;
                Some(Tensor::from_vec(dx, x.shape(), &Device::Cpu)?)
            } else {
                None
            };
            let dweight = if weight.track_op() {
                let mut dw = vec![0.0; weight.elem_count()];
                element::with_slice::<f32, _>(OP, x, |x| {
                    Workspace::with_local(|ws| self.winograd.backward_weights(x, dy, &mut dw, ws));
                })?;
                Some(Tensor::from_vec(dw, weight.shape(), &Device::Cpu)?)
            } else {
                None
            };
            Ok((dx, dweight))
        })?
    }
}

impl CustomOp2 for WinogradOp {
    fn name(&self) -> &'static str {
        OP
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let x = element::slice::<f32>(OP, x, x_layout)?;
        Ok(self.forward(x, element::slice::<f32>(OP, weight, weight_layout)?, None))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _y: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        self.backward(x, weight, grad)
    }
}

impl CustomOp3 for WinogradOp {
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
        let x = element::slice::<f32>(OP, x, x_layout)?;
        let weight = element::slice::<f32>(OP, weight, weight_layout)?;
        let bias = element::slice::<f32>(OP, bias, bias_layout)?;
        Ok(self.forward(x, weight, Some(bias)))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _y: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (dx, dweight) = self.backward(x, weight, grad)?;
        let dbias = if bias.track_op() {
            Some(grad.flatten_to(2)?.sum(0)?)
        } else {
            None
        };
        Ok((dx, dweight, dbias))
    }
}

#[cfg(test)]
mod tests;
