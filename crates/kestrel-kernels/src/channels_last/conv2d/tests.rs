//! Channels-last against channels-first, in values and in every gradient.

use candle_core::{DType, Device, Tensor, Var};

use crate::channels_last::{self, Activation, BatchNorm, to_channels_last};
use crate::random::{KeyedRng, Purpose};
use crate::tape;
use crate::{BatchNormConfig, Conv2dConfig, Result};

fn random(index: u64, dims: &[usize]) -> Tensor {
    let mut rng = KeyedRng::new(1, Purpose::Init, 0, index);
    let values: Vec<f32> = (0..dims.iter().product()).map(|_| rng.normal() as f32).collect();
    Tensor::from_vec(values, dims, &Device::Cpu).unwrap()
}

fn relative(got: &Tensor, want: &Tensor) -> f64 {
    assert_eq!(got.dims(), want.dims());
    let norm = |t: &Tensor| {
        t.to_dtype(DType::F64)
            .unwrap()
            .sqr()
            .unwrap()
            .sum_all()
            .unwrap()
            .to_scalar::<f64>()
            .unwrap()
    };
    let difference = (got.to_dtype(DType::F64).unwrap() - want.to_dtype(DType::F64).unwrap()).unwrap();
    (norm(&difference) / norm(want).max(f64::MIN_POSITIVE)).sqrt()
}

/// Value and gradients `[y, dx, dweight, dbias]` of `Σ y²` for inputs in channels-first order, in `dtype`.
fn run(last: bool, dtype: DType, n: [usize; 4], k: usize, r: usize, config: &Conv2dConfig) -> Result<Vec<Tensor>> {
    let [batch, h, w, c] = n;
    let x = Var::from_tensor(&random(0, &[batch, c, h, w]).to_dtype(dtype)?)?;
    run_on(last, &x, k, r, config)
}

/// As [`run`], for a given input; its gradient is left out if it is no variable.
fn run_on(last: bool, x: &Tensor, k: usize, r: usize, config: &Conv2dConfig) -> Result<Vec<Tensor>> {
    let (dtype, c) = (x.dtype(), x.dim(1)?);
    let var = |index, dims: &[usize]| Var::from_tensor(&random(index, dims).to_dtype(dtype).unwrap());
    let weight = var(1, &[k, c / config.groups, r, r])?;
    let bias = var(2, &[k])?;
    let y = if last {
        let y = channels_last::conv2d(&to_channels_last(x)?, &weight, Some(&bias), config)?;
        assert!(y.is_contiguous());
        y.permute((0, 3, 1, 2))?
    } else {
        crate::conv2d(x, &weight, Some(&bias), config)?
    };
    let grads = y.sqr()?.sum_all()?.backward()?;
    let tensors = [x, &weight, &bias]
        .into_iter()
        .filter_map(|tensor| grads.get(tensor).cloned());
    Ok(std::iter::once(y.contiguous()?).chain(tensors).collect())
}

#[test]
fn agrees_with_the_channels_first_op() -> Result<()> {
    let same = Conv2dConfig {
        padding: 1,
        ..Conv2dConfig::default()
    };
    let cases = [
        ([2, 8, 8, 16], 24, 3, same),
        ([1, 1, 1, 8], 1, 3, same),
        ([3, 7, 13, 9], 5, 3, same),
        ([2, 9, 5, 8], 16, 3, Conv2dConfig::default()),
        // Shapes that the kernels do not take.
        ([2, 8, 8, 3], 8, 3, same),
        ([2, 9, 9, 8], 8, 3, Conv2dConfig { stride: 2, ..same }),
        ([2, 6, 6, 8], 4, 1, Conv2dConfig::default()),
        (
            [1, 9, 9, 8],
            8,
            3,
            Conv2dConfig {
                groups: 4,
                dilation: 2,
                ..Conv2dConfig::default()
            },
        ),
    ];
    for (n, k, r, config) in cases {
        for (i, (got, want)) in run(true, DType::F32, n, k, r, &config)?
            .iter()
            .zip(run(false, DType::F64, n, k, r, &config)?)
            .enumerate()
        {
            let error = relative(got, &want);
            assert!(error <= 5e-6, "{n:?} {k} {r} {config:?}, tensor {i}: {error:.1e}");
        }
        for (got, want) in
            run(true, DType::F64, n, k, r, &config)?
                .iter()
                .zip(run(false, DType::F64, n, k, r, &config)?)
        {
            assert!(relative(got, &want) < 1e-14);
        }
    }
    Ok(())
}

#[test]
fn a_first_layer_agrees_with_the_channels_first_op() -> Result<()> {
    for ([n, h, w, c], k, r, padding) in [
        ([3, 8, 8, 3], 16, 3, 1),
        ([1, 5, 7, 1], 3, 3, 0),
        ([2, 9, 6, 4], 8, 5, 2),
    ] {
        let config = Conv2dConfig {
            padding,
            ..Conv2dConfig::default()
        };
        let x = random(0, &[n, c, h, w]);
        let got = run_on(true, &x, k, r, &config)?;
        let want = run_on(false, &x.to_dtype(DType::F64)?, k, r, &config)?;
        assert_eq!((got.len(), want.len()), (3, 3));
        for (got, want) in got.iter().zip(&want) {
            assert!(relative(got, want) <= 1e-6, "{h}x{w}x{c}: {:.1e}", relative(got, want));
        }
    }
    Ok(())
}

#[test]
fn the_same_errors() {
    let config = Conv2dConfig {
        padding: 1,
        ..Conv2dConfig::default()
    };
    let x = random(0, &[1, 8, 8, 16]);
    let check = |x: &Tensor, weight: &Tensor, bias: &Tensor| {
        channels_last::conv2d(x, weight, Some(bias), &config)
            .unwrap_err()
            .to_string()
    };
    let (weight, bias) = (random(1, &[4, 16, 3, 3]), random(2, &[4]));
    assert!(check(&x, &random(1, &[4, 8, 3, 3]), &bias).contains("[4, 8, 3, 3]"));
    assert!(check(&x, &weight, &random(2, &[5])).contains("[5]"));
    assert!(check(&random(0, &[8, 8, 16]), &weight, &bias).contains("[8, 8, 16]"));
    assert!(check(&x, &weight.to_dtype(DType::F64).unwrap(), &bias).contains("F64"));
}

#[test]
fn no_gradient_is_worked_out_that_nothing_needs() -> Result<()> {
    let config = Conv2dConfig {
        padding: 1,
        ..Conv2dConfig::default()
    };
    let weight = Var::from_tensor(&random(1, &[8, 8, 3, 3]))?;
    let x = random(0, &[1, 4, 4, 8]);
    let y = channels_last::conv2d(&x, &weight, None, &config)?;
    let grads = y.sum_all()?.backward()?;
    assert!(grads.get(&weight).is_some() && grads.get(&x).is_none());
    Ok(())
}

#[test]
fn pooling_in_the_convolution_is_pooling_after_it() -> Result<()> {
    let config = |stride| Conv2dConfig {
        padding: 1,
        stride,
        ..Conv2dConfig::default()
    };
    // Outputs of even sides by Winograd with both strides; then what is pooled by itself.
    let cases = [
        ([2, 8, 6, 16], 20, 1),
        ([1, 4, 10, 8], 3, 1),
        ([2, 12, 8, 8], 16, 2),
        ([2, 7, 6, 16], 8, 1),
        ([2, 8, 8, 3], 8, 1),
    ];
    for ([n, h, w, c], k, stride) in cases {
        let mut x = random(0, &[n, h, w, c]);
        let nan = Tensor::full(f32::NAN, (1, 1, 1, c), &Device::Cpu)?;
        x = x.slice_assign(&[0..1, 1..2, 1..2, 0..c], &nan)?;
        let (weight, conv_bias) = (random(1, &[k, c, 3, 3]), random(2, &[k]));
        let [scale, shift, mean] = [3, 4, 5].map(|index| random(index, &[k]));
        let batch_norm = BatchNorm {
            weight: &scale,
            bias: &shift,
            running_mean: &mean,
            running_var: &random(6, &[k]).sqr()?,
            config: BatchNormConfig::default(),
            training: false,
        };
        let config = config(stride);
        let fused = tape::inference(|tape| {
            let x = tape.leaf(&x)?;
            tape.conv2d_batch_norm_relu_max_pool(&x, &weight, Some(&conv_bias), &config, &batch_norm)
        })?;
        let separate = tape::inference(|tape| {
            let x = tape.leaf(&x)?;
            let y = tape.conv2d_batch_norm(&x, &weight, Some(&conv_bias), &config, &batch_norm, Activation::Relu)?;
            tape.max_pool2d(&y, 2, 2, 0)
        })?;
        assert_eq!(fused.dims(), separate.dims());
        let values = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let (fused, separate) = (values(&fused), values(&separate));
        assert!(fused.iter().any(|y| y.is_nan()) && fused.iter().any(|y| *y > 0.0));
        for (fused, separate) in fused.iter().zip(&separate) {
            assert!(fused == separate || fused.is_nan() && separate.is_nan());
        }
    }
    Ok(())
}

#[test]
fn pooling_in_a_convolution_with_batch_statistics_is_pooling_after_it() -> Result<()> {
    let config = |stride| Conv2dConfig {
        padding: 1,
        stride,
        ..Conv2dConfig::default()
    };
    // Winograd with both strides, channels that are no whole vector, several blocks of tiles; then what is pooled by itself.
    for ([n, h, w, c], k, stride, zero) in [
        ([2, 8, 6, 16], 20, 1, false),
        ([1, 4, 10, 8], 3, 1, false),
        ([9, 32, 32, 8], 64, 1, false),
        ([2, 12, 8, 8], 16, 2, false),
        ([2, 8, 6, 16], 20, 1, true),
        ([2, 7, 6, 16], 8, 1, false),
    ] {
        // The last image is of one colour, so that all its pixels but those at the edges tie.
        let x = random(0, &[n, h, w, c]);
        let flat = Tensor::full(0.5f32, (1, h, w, c), &Device::Cpu)?;
        let x = Var::from_tensor(&x.slice_assign(&[n - 1..n, 0..h, 0..w, 0..c], &flat)?)?;
        // Channels that fall with the convolution's output, and where asked for some that do not depend on it.
        let scale = |channel: usize| match channel % 5 {
            0 | 3 => 1.0,
            4 if zero => -0.0,
            _ => -0.5,
        };
        let scale = Var::from_vec((0..k).map(scale).collect::<Vec<f32>>(), k, &Device::Cpu)?;
        let [shift, bias] = [2, 3].map(|index| Var::from_tensor(&random(index, &[k])).unwrap());
        let weight = Var::from_tensor(&random(1, &[k, c, 3, 3]))?;
        let dy = random(4, &[n, h / stride / 2, w / stride / 2, k]);
        let run = |fused: bool| -> Result<Vec<Tensor>> {
            let (mean, var) = (random(5, &[k]).copy()?, Tensor::ones(k, DType::F32, &Device::Cpu)?);
            let batch_norm = BatchNorm {
                weight: &scale,
                bias: &shift,
                running_mean: &mean,
                running_var: &var,
                config: BatchNormConfig::default(),
                training: true,
            };
            let config = config(stride);
            let y = tape::section(|tape| {
                let x = tape.leaf(&x)?;
                if fused {
                    return tape.conv2d_batch_norm_relu_max_pool(&x, &weight, Some(&bias), &config, &batch_norm);
                }
                let y = tape.conv2d_batch_norm(&x, &weight, Some(&bias), &config, &batch_norm, Activation::Relu)?;
                tape.max_pool2d(&y, 2, 2, 0)
            })?;
            let grads = (&y * &dy)?.sum_all()?.backward()?;
            let grads = [&x, &weight, &scale, &shift, &bias].map(|var| grads.get(var).unwrap().clone());
            Ok([vec![y, mean, var], grads.to_vec()].concat())
        };
        let (fused, separate) = (run(true)?, run(false)?);
        for (i, (fused, separate)) in fused.iter().zip(&separate).enumerate() {
            assert_eq!(fused.dims(), separate.dims());
            // Outputs and running statistics are the same numbers; sums of gradients are taken in another order.
            let bound = if i < 3 { 0.0 } else { 2e-6 };
            let error = relative(fused, &separate.to_dtype(DType::F64)?);
            assert!(error <= bound, "{h}x{w} {c} to {k}, tensor {i}: {error:.1e}");
        }
    }
    Ok(())
}

#[test]
fn winograd_can_be_left_out() -> Result<()> {
    let config = Conv2dConfig {
        padding: 1,
        ..Conv2dConfig::default()
    };
    let (x, weight) = (random(0, &[2, 9, 9, 16]), random(1, &[8, 16, 3, 3]));
    let conv = || channels_last::conv2d(&x, &weight, None, &config);
    let fast = conv()?;
    let direct = channels_last::without_winograd(conv)?;
    let exact = channels_last::conv2d(&x.to_dtype(DType::F64)?, &weight.to_dtype(DType::F64)?, None, &config)?;
    assert!(2.0 * relative(&direct, &exact) < relative(&fast, &exact));
    assert_eq!(relative(&conv()?, &fast), 0.0, "the switch is set back");
    Ok(())
}
