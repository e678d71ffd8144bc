//! Initial values of parameters, seeded, in PyTorch's distributions.
//!
//! candle draws from the thread's generator, which cannot be seeded on the CPU, and its convolution default is
//! Kaiming-normal; PyTorch's is not. Here a parameter's values are a function of the seed and its name.

use candle_core::{DType, Device, Result, Shape, Tensor};
pub use candle_nn::Init;
use candle_nn::init::{FanInOut, NonLinearity, NormalOrUniform};
use kestrel_kernels::random::{KeyedRng, Purpose, name_key};

use crate::Parameter;

/// PyTorch's default for the weight of a convolution or linear layer: `U(-1/sqrt(fan_in), 1/sqrt(fan_in))`, and for
/// its bias.
///
/// # Source
/// `torch.nn.Conv2d.reset_parameters` and `torch.nn.Linear.reset_parameters`:
/// `kaiming_uniform_(weight, a=sqrt(5))`, whose gain is `sqrt(1/3)`, so its bound is `sqrt(3) * sqrt(1/3) / sqrt(fan_in)`.
pub fn default_uniform(fan_in: usize) -> Init {
    let bound = 1.0 / (fan_in.max(1) as f64).sqrt();
    Init::Uniform { lo: -bound, up: bound }
}

/// torchvision's ResNets' for the weight of a convolution: `N(0, 2 / fan_out)`, `fan_out = c_out · k²`.
///
/// # Source
/// `torch.nn.init.kaiming_normal_(weight, mode="fan_out", nonlinearity="relu")`.
pub fn kaiming_normal_fan_out() -> Init {
    Init::Kaiming {
        dist: NormalOrUniform::Normal,
        fan: FanInOut::FanOut,
        non_linearity: NonLinearity::ReLU,
    }
}

/// Sets as many of a convolution's filters as it has inputs, from the first on, to Dirac's delta: filter `i` gives input `i` as
/// it is. The others keep their values.
///
/// # Shapes
/// `[out, in, k, k]`, `k` odd.
///
/// # Errors
/// Where the parameter has another rank.
///
/// # Source
/// `torch.nn.init.dirac_(weight[:weight.size(1)])`.
pub fn set_dirac(weight: &Parameter) -> crate::Result<()> {
    let (filters, inputs, height, width) = weight.tensor().dims4()?;
    let size = inputs * height * width;
    let mut values = weight.tensor().to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
    let centre = height / 2 * width + width / 2;
    for (i, filter) in values
        .chunks_exact_mut(size.max(1))
        .enumerate()
        .take(filters.min(inputs))
    {
        filter.fill(0.0);
        filter[i * height * width + centre] = 1.0;
    }
    weight.set(&Tensor::from_vec(values, weight.tensor().shape(), &Device::Cpu)?)
}

/// Draws a tensor; equal arguments give equal values on every machine and thread.
pub(crate) fn draw(init: &Init, shape: &Shape, seed: u64, name: &str, dtype: DType, device: &Device) -> Result<Tensor> {
    let mut rng = KeyedRng::new(seed, Purpose::Init, 0, name_key(name));
    let n = shape.elem_count();
    let mut normal = |mean: f64, stdev: f64| (0..n).map(|_| mean + stdev * rng.normal()).collect::<Vec<f64>>();
    let values = match init {
        Init::Const(value) => vec![*value; n],
        Init::Randn { mean, stdev } => normal(*mean, *stdev),
        Init::Uniform { lo, up } => uniform(seed, name, n, *lo, *up),
        Init::Kaiming {
            dist,
            fan,
            non_linearity,
        } => {
            let fan = fan_of(fan, shape);
            let stdev = non_linearity.gain() / (fan as f64).sqrt();
            match dist {
                NormalOrUniform::Normal => normal(0.0, stdev),
                NormalOrUniform::Uniform => {
                    let bound = 3f64.sqrt() * stdev;
                    uniform(seed, name, n, -bound, bound)
                }
            }
        }
    };
    Tensor::from_vec(values, shape, &Device::Cpu)?
        .to_dtype(dtype)?
        .to_device(device)
}

fn uniform(seed: u64, name: &str, n: usize, lo: f64, up: f64) -> Vec<f64> {
    let mut rng = KeyedRng::new(seed, Purpose::Init, 0, name_key(name));
    (0..n).map(|_| lo + (up - lo) * f64::from(rng.uniform())).collect()
}

/// PyTorch's fans: `shape[1] * receptive field` in, `shape[0] * receptive field` out.
fn fan_of(fan: &FanInOut, shape: &Shape) -> usize {
    let dims = shape.dims();
    let field: usize = dims.iter().skip(2).product();
    let side = match fan {
        FanInOut::FanIn => dims.get(1),
        FanInOut::FanOut => dims.first(),
    };
    (side.copied().unwrap_or(1) * field).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(init: Init, shape: (usize, usize, usize, usize)) -> (f64, f64, f64) {
        let t = draw(&init, &shape.into(), 0, "conv1.weight", DType::F64, &Device::Cpu).unwrap();
        let v = t.flatten_all().unwrap().to_vec1::<f64>().unwrap();
        let mean = v.iter().sum::<f64>() / v.len() as f64;
        let var = v.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / v.len() as f64;
        (mean, var.sqrt(), v.iter().fold(0.0, |m, x| x.abs().max(m)))
    }

    #[test]
    fn default_is_pytorchs_bound() {
        let (mean, stdev, max) = stats(default_uniform(64 * 9), (64, 64, 3, 3));
        let bound = 1.0 / 24.0;
        assert!(mean.abs() < 1e-3 && max <= bound && max > 0.999 * bound, "{mean} {max}");
        assert!((stdev - bound / 3f64.sqrt()).abs() < 1e-3 * bound * 10.0, "{stdev}");
    }

    #[test]
    fn kaiming_normal_fan_out_is_torchvisions_resnet() {
        let (_, stdev, _) = stats(kaiming_normal_fan_out(), (128, 32, 3, 3));
        let expected = (2.0f64 / (128.0 * 9.0)).sqrt();
        assert!((stdev / expected - 1.0).abs() < 0.02, "{stdev} {expected}");
    }
}
