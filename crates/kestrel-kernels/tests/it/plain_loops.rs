//! Values against plain loops over awkward shapes, and properties that a formula does not show.

use crate::inputs::{normal, normal_like};
use candle_core::{DType, Device, Result, Tensor, Var};
use kestrel_kernels::{
    AdamConfig, BatchNormConfig, Conv2dConfig, DropoutKey, SgdConfig, adam_step, batch_norm_train, conv2d,
    cross_entropy, dropout, max_pool2d, sgd_step,
};
use proptest::prelude::*;

/// The definition, in seven loops. Shapes are those of `conv2d`.
fn conv2d_by_loops(x: &Tensor, weight: &Tensor, config: &Conv2dConfig, out: [usize; 4]) -> Result<Vec<f64>> {
    let (_, channels, height, width) = x.dims4()?;
    let (out_channels, group_in, kernel_height, kernel_width) = weight.dims4()?;
    let (x, weight) = (
        x.flatten_all()?.to_vec1::<f64>()?,
        weight.flatten_all()?.to_vec1::<f64>()?,
    );
    let mut y = Vec::new();
    for n in 0..out[0] {
        for k in 0..out[1] {
            let group = k / (out_channels / config.groups);
            for p in 0..out[2] {
                for q in 0..out[3] {
                    let mut sum = 0.0;
                    for c in 0..group_in {
                        for r in 0..kernel_height {
                            for s in 0..kernel_width {
                                let row = (p * config.stride + r * config.dilation).wrapping_sub(config.padding);
                                let column = (q * config.stride + s * config.dilation).wrapping_sub(config.padding);
                                if row < height && column < width {
                                    let plane = n * channels + group * group_in + c;
                                    sum += x[(plane * height + row) * width + column]
                                        * weight[((k * group_in + c) * kernel_height + r) * kernel_width + s];
                                }
                            }
                        }
                    }
                    y.push(sum);
                }
            }
        }
    }
    Ok(y)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn conv2d_equals_its_definition(
        batch in 0usize..4, group_in in 1usize..4, group_out in 1usize..5, groups in 1usize..4,
        height in 1usize..24, width in 1usize..24, kernel_height in 1usize..5, kernel_width in 1usize..5,
        stride in 1usize..4, padding in 0usize..4, dilation in 1usize..3,
    ) {
        let config = Conv2dConfig { stride, padding, dilation, groups };
        let fits = |size: usize, kernel: usize| size + 2 * padding > dilation * (kernel - 1);
        prop_assume!(fits(height, kernel_height) && fits(width, kernel_width));
        let x = normal::<f64>(&[batch, groups * group_in, height, width]).unwrap();
        let weight_shape = [groups * group_out, group_in, kernel_height, kernel_width];
        let weight = normal::<f64>(&weight_shape).unwrap();
        let y = conv2d(&x, &weight, None, &config).unwrap();
        let out = |size: usize, kernel: usize| (size + 2 * padding - dilation * (kernel - 1) - 1) / stride + 1;
        let shape = [batch, groups * group_out, out(height, kernel_height), out(width, kernel_width)];
        prop_assert_eq!(y.dims(), &shape);
        let expected = conv2d_by_loops(&x, &weight, &config, shape).unwrap();
        for (got, expected) in y.flatten_all().unwrap().to_vec1::<f64>().unwrap().iter().zip(expected) {
            prop_assert!((got - expected).abs() < 1e-12, "{} {}", got, expected);
        }
        // The op is linear in each argument, so that <y, dy> = <x, dx> = <weight, dweight>.
        if batch > 0 {
            let dot = |a: &Tensor, b: &Tensor| (a * b).unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap();
            let dy = normal_like(&y).unwrap();
            let grads = (&y * &dy).unwrap().backward().unwrap();
            let of_y = dot(&y, &dy);
            for var in [&x, &weight] {
                let of_var = dot(var, grads.get(var).unwrap());
                prop_assert!((of_var - of_y).abs() < 1e-10, "{} {}", of_var, of_y);
            }
        }
    }
}

#[test]
fn a_tie_goes_to_the_first_maximum() -> Result<()> {
    let x = Var::new(&[[[[1f32, 5., 5.], [5., 0., 5.], [5., 5., 5.]]]], &Device::Cpu)?;
    let dx = max_pool2d(&x, 2, 1, 0)?
        .backward()?
        .get(&x)
        .unwrap()
        .flatten_all()?
        .to_vec1::<f32>()?;
    // Windows by their top left corner: (0,0) and (0,1) take (0,1); (1,0) takes (1,0); (1,1) takes (1,2).
    assert_eq!(dx, [0., 2., 0., 1., 0., 1., 0., 0., 0.]);
    let x = Var::zeros((1, 1, 4, 4), DType::F32, &Device::Cpu)?;
    let dx = max_pool2d(&x, 2, 2, 0)?
        .backward()?
        .get(&x)
        .unwrap()
        .flatten_all()?
        .to_vec1::<f32>()?;
    assert_eq!(dx, [1., 0., 1., 0., 0., 0., 0., 0., 1., 0., 1., 0., 0., 0., 0., 0.]);
    Ok(())
}

#[test]
fn nan_wins_a_window_and_takes_its_gradient() -> Result<()> {
    let x = Var::new(&[[[[1f32, f32::NAN], [9., 2.]]]], &Device::Cpu)?;
    let y = max_pool2d(&x, 2, 2, 0)?;
    assert!(y.flatten_all()?.to_vec1::<f32>()?[0].is_nan());
    let dx = y.backward()?.get(&x).unwrap().flatten_all()?.to_vec1::<f32>()?;
    assert_eq!(dx, [0., 1., 0., 0.]);
    Ok(())
}

/// Negative values at the border lose to no padding, and a window of −∞ has its gradient at its first pixel.
#[test]
fn padding_is_minus_infinity() -> Result<()> {
    let x = Var::new(
        &[[[[-3f32, -2.], [f32::NEG_INFINITY, f32::NEG_INFINITY]]]],
        &Device::Cpu,
    )?;
    let y = max_pool2d(&x, 2, 2, 1)?;
    assert_eq!(
        y.flatten_all()?.to_vec1::<f32>()?,
        [-3., -2., f32::NEG_INFINITY, f32::NEG_INFINITY]
    );
    let dx = y.backward()?.get(&x).unwrap().flatten_all()?.to_vec1::<f32>()?;
    assert_eq!(dx, [1., 1., 1., 1.]);
    Ok(())
}

/// A mean ten million standard deviations from 0, and between two floats: sums in f32 would leave nothing of the variance,
/// and a rounded mean nothing of the values.
#[test]
fn batch_norm_of_a_large_mean() -> Result<()> {
    let x = Tensor::new(
        &[[[[16777216f32, 16777218.]]], [[[16777220., 16777220.]]]],
        &Device::Cpu,
    )?;
    let (one, zero) = (Tensor::new(&[1f32], &Device::Cpu)?, Tensor::new(&[0f32], &Device::Cpu)?);
    let (mean, var) = (zero.copy()?, one.copy()?);
    let config = BatchNormConfig {
        eps: 0.0,
        momentum: 1.0,
    };
    let y = batch_norm_train(&x, &one, &zero, &mean, &var, &config)?
        .flatten_all()?
        .to_vec1::<f32>()?;
    let unit = 1.0 / 2.75f32.sqrt();
    for (got, expected) in y.into_iter().zip([-2.5, -0.5, 1.5, 1.5]) {
        assert!((got - expected * unit).abs() < 1e-5, "{got} {expected}");
    }
    assert!((var.to_vec1::<f32>()?[0] - 11.0 / 3.0).abs() < 1e-6);
    Ok(())
}

#[test]
fn cross_entropy_of_extreme_logits_is_finite() -> Result<()> {
    let logits = Var::new(&[[1000f32, -1000., 0.], [-2000., -2000., -2000.]], &Device::Cpu)?;
    let loss = cross_entropy(&logits, &Tensor::new(&[1u32, 2], &Device::Cpu)?)?;
    let expected = (2000.0 + 3f32.ln()) / 2.0;
    assert!((loss.to_scalar::<f32>()? - expected).abs() < 1e-3);
    let dlogits = loss.backward()?.get(&logits).unwrap().flatten_all()?.to_vec1::<f32>()?;
    let sixth = 1.0 / 6.0;
    for (got, expected) in dlogits.into_iter().zip([0.5, -0.5, 0., sixth, sixth, sixth - 0.5]) {
        assert!((got - expected).abs() < 1e-6, "{got} {expected}");
    }
    Ok(())
}

#[test]
fn dropout_keeps_its_share_and_the_mean() -> Result<()> {
    let x = Tensor::ones((100, 1000), DType::F32, &Device::Cpu)?;
    let draw = |p, step| {
        dropout(
            &x,
            p,
            DropoutKey {
                seed: 4,
                step,
                layer: 0,
            },
        )?
        .flatten_all()?
        .to_vec1::<f32>()
    };
    for p in [0.1, 0.5, 0.9] {
        let y = draw(p, 0)?;
        let dropped = y.iter().filter(|v| **v == 0.0).count() as f64 / y.len() as f64;
        // Five standard deviations of the share.
        assert!(
            (dropped - p).abs() < 5.0 * (p * (1.0 - p) / y.len() as f64).sqrt(),
            "{p}: {dropped}"
        );
        assert!(
            y.iter()
                .all(|v| *v == 0.0 || (f64::from(*v) - 1.0 / (1.0 - p)).abs() < 1e-5)
        );
        assert_eq!(y, draw(p, 0)?);
        assert_ne!(y, draw(p, 1)?);
    }
    assert_eq!(draw(0.0, 0)?, vec![1.0; 100_000]);
    assert_eq!(draw(1.0, 0)?, vec![0.0; 100_000]);
    Ok(())
}

/// A parameter updated in place is the one that the next forward reads, and the caller's gradient stays as it was.
#[test]
fn adam_moves_the_variable_itself() -> Result<()> {
    let param = Var::new(&[1f64, 2.], &Device::Cpu)?;
    let alias = param.as_tensor().clone();
    let grad = Tensor::new(&[[3f64, 0.], [-4., 0.]], &Device::Cpu)?.t()?.get(0)?;
    let (exp_avg, exp_avg_sq) = (param.zeros_like()?, param.zeros_like()?);
    adam_step(
        &param,
        &grad,
        &exp_avg,
        &exp_avg_sq,
        1,
        &AdamConfig {
            lr: 0.5,
            ..AdamConfig::default()
        },
    )?;
    // The first step is lr times the gradient's sign.
    for (got, expected) in alias.to_vec1::<f64>()?.into_iter().zip([0.5, 2.5]) {
        assert!((got - expected).abs() < 1e-7, "{got}");
    }
    assert_eq!(grad.to_vec1::<f64>()?, [3., -4.]);
    Ok(())
}

/// A strided gradient, and one of a parameter without elements.
#[test]
fn sgd_moves_the_variable_itself() -> Result<()> {
    let param = Var::new(&[1f64, 2.], &Device::Cpu)?;
    let alias = param.as_tensor().clone();
    let grad = Tensor::new(&[[3f64, 0.], [-4., 0.]], &Device::Cpu)?.t()?.get(0)?;
    let buffer = param.zeros_like()?;
    let config = SgdConfig {
        lr: 0.5,
        momentum: 0.5,
        ..SgdConfig::default()
    };
    for step in 1..=2 {
        sgd_step(&param, &grad, Some(&buffer), step, &config)?;
    }
    assert_eq!(buffer.to_vec1::<f64>()?, [4.5, -6.]);
    assert_eq!(alias.to_vec1::<f64>()?, [1. - 1.5 - 2.25, 2. + 2. + 3.]);
    assert_eq!(grad.to_vec1::<f64>()?, [3., -4.]);
    let none = Var::zeros(0, DType::F64, &Device::Cpu)?;
    sgd_step(&none, &none.zeros_like()?, Some(&none.zeros_like()?), 1, &config)?;
    Ok(())
}
