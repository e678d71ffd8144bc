//! Convolution on channels-last tensors: Winograd where it pays, patches for a first layer, the channels-first op elsewhere.

use std::cell::Cell;

use candle_core::{CpuStorage, CustomOp2, CustomOp3, DType, Device, Layout, Shape, Tensor};

use super::{small_input, to_channels_first, to_channels_last};
use crate::conv2d::Conv2dConfig;
use crate::conv2d::geometry::Geometry;
use crate::conv2d::winograd::{self, Winograd, Workspace, hooks};
use crate::{Result, element};

const OP: &str = "channels_last conv2d";

/// Cross-correlation of a batch of images with a kernel; [`crate::conv2d()`] in another layout, with the same numbers to
/// rounding.
///
/// `f32` on the CPU with stride 1, dilation 1 and one group runs by Winograd transforms, whose relative error is about 1e-6,
/// for a 3x3 kernel and at least 8 input channels; and by strips of patches for fewer input channels that need no gradient,
/// as a net's first layer has. All else is the channels-first op's. The backward computes no gradient for an argument that no variable leads
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
            element::require_shape("channels_last conv2d bias", bias, &[op.output[3]])?;
            x.apply_op3(&weight, &bias.contiguous()?, op)?
        }
        None => x.apply_op2(&weight, op)?,
    })
}

/// The kernel for these arguments, if one takes them.
fn fast(x: &Tensor, channels_first: &Tensor, weight: &Tensor, config: &Conv2dConfig) -> Result<Option<FastOp>> {
    let g = Geometry::new(channels_first, weight, config)?;
    let plain = g.stride == 1 && g.dilation == 1 && g.groups == 1 && g.batch > 0;
    if !(x.device().is_cpu() && x.dtype() == DType::F32 && plain) {
        return Ok(None);
    }
    let input = [g.batch, g.height, g.width, g.in_channels];
    let algorithm = if g.in_channels >= FEW_CHANNELS {
        // What Winograd's own checks refuse, such as another kernel size, is the general op's.
        let fits = g.kernel_height == 3 && g.kernel_width == 3 && g.padding <= 2 && WINOGRAD.get();
        let shape = winograd::Shape::new(input, g.out_channels, g.padding)
            .ok()
            .filter(|_| fits);
        shape.map(|shape| Algorithm::Winograd(Winograd::new(shape)))
    } else {
        // That kernel has no gradient for its input, and images need none.
        (g.kernel_height == g.kernel_width && !x.track_op()).then_some(Algorithm::SmallInput {
            input,
            kernel: g.kernel_height,
            padding: g.padding,
        })
    };
    let output = [g.batch, g.out_height, g.out_width, g.out_channels];
    Ok(algorithm.map(|algorithm| FastOp { algorithm, output }))
}

thread_local! {
    static WINOGRAD: Cell<bool> = const { Cell::new(true) };
}

/// Runs `f` with every convolution of this thread by direct products, without Winograd transforms: several times slower, with
/// a tenth of the rounding error. For telling rounding from a fault.
pub fn without_winograd<T>(f: impl FnOnce() -> T) -> T {
    /// Sets the switch back, also where `f` panics.
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            WINOGRAD.set(self.0);
        }
    }
    let _restore = Restore(WINOGRAD.replace(false));
    f()
}

/// Below this many input channels, a strip of patches times the weight is faster than Winograd's transforms.
const FEW_CHANNELS: usize = 8;

/// The op that candle's autograd records; arguments are contiguous `f32`.
struct FastOp {
    algorithm: Algorithm,
    output: [usize; 4],
}

enum Algorithm {
    Winograd(Winograd),
    SmallInput {
        input: [usize; 4],
        kernel: usize,
        padding: usize,
    },
}

impl FastOp {
    fn forward(&self, x: &[f32], weight: &[f32], bias: Option<&[f32]>) -> (CpuStorage, Shape) {
        let mut y = vec![0.0; self.output.iter().product()];
        match (&self.algorithm, bias) {
            (Algorithm::Winograd(winograd), Some(bias)) => Workspace::with_local(|ws| {
                winograd.forward_with(x, &hooks::Identity, weight, &hooks::Bias { bias }, &mut y, ws);
            }),
            (Algorithm::Winograd(winograd), None) => {
                Workspace::with_local(|ws| winograd.forward(x, weight, &mut y, ws));
            }
            (Algorithm::SmallInput { input, kernel, padding }, bias) => {
                small_input::forward(x, *input, weight, bias, self.output[3], *kernel, *padding, &mut y);
            }
        }
        (CpuStorage::F32(y), Shape::from(self.output.to_vec()))
    }

    /// Gradients of input and weight, each only if something needs it.
    fn backward(
        &self,
        x: &Tensor,
        weight: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        element::with_slice::<f32, _>(OP, grad, |dy| {
            let dx = match &self.algorithm {
                Algorithm::Winograd(winograd) if x.track_op() => {
                    let mut dx = vec![0.0; x.elem_count()];
                    element::with_slice::<f32, _>(OP, weight, |w| {
                        Workspace::with_local(|ws| winograd.backward_data(dy, w, &mut dx, ws));
                    })?;
                    Some(Tensor::from_vec(dx, x.shape(), &Device::Cpu)?)
                }
                _ => None,
            };
            if !weight.track_op() {
                return Ok((dx, None));
            }
            let mut dw = vec![0.0; weight.elem_count()];
            element::with_slice::<f32, _>(OP, x, |x| match &self.algorithm {
                Algorithm::Winograd(winograd) => {
                    Workspace::with_local(|ws| winograd.backward_weights(x, dy, &mut dw, ws));
                }
                Algorithm::SmallInput { input, kernel, padding } => {
                    small_input::backward_weights(x, *input, dy, self.output[3], *kernel, *padding, &mut dw);
                }
            })?;
            Ok((dx, Some(Tensor::from_vec(dw, weight.shape(), &Device::Cpu)?)))
        })?
    }
}

impl CustomOp2 for FastOp {
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

impl CustomOp3 for FastOp {
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
        if !bias.track_op() {
            return Ok((dx, dweight, None));
        }
        let dbias = element::with_slice::<f32, _>(OP, grad, |dy| small_input::bias_gradient(dy, self.output[3]))?;
        Ok((dx, dweight, Some(Tensor::from_vec(dbias, bias.shape(), &Device::Cpu)?)))
    }
}

#[cfg(test)]
mod tests;
