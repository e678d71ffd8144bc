//! Gradients in f64 against central differences, on contiguous and on permuted inputs: those of the ops of the crate's root.
//! The kernels that are for f32 alone are held to these ops by the unit tests beside them, and to PyTorch by the golden files.

use crate::inputs::{distinct, normal, normal_like};
use candle_core::{DType, Device, Result, Tensor, Var};
use kestrel_kernels::{
    BatchNormConfig, Conv2dConfig, CrossEntropyConfig, DropoutKey, adaptive_avg_pool2d, avg_pool2d, batch_norm_eval,
    batch_norm_train, conv2d, cross_entropy, cross_entropy_with, dropout, gelu, linear, linear_relu, max_pool2d, relu,
};

/// Checks the gradient of every element of `vars` under `f`, whose output is weighted at random.
#[track_caller]
fn check_gradients(vars: &[&Var], f: impl Fn() -> Result<Tensor>) -> Result<()> {
    const STEP: f64 = 1e-5;
    let weights = normal_like(&f()?)?;
    let loss = || (f()? * &weights)?.sum_all();
    let value = || loss()?.to_scalar::<f64>();
    let grads = loss()?.backward()?;
    for (number, var) in vars.iter().enumerate() {
        let grad = grads
            .get(var)
            .unwrap_or_else(|| panic!("no gradient for variable {number}"));
        assert_eq!(grad.dims(), var.dims());
        let grad = grad.flatten_all()?.to_vec1::<f64>()?;
        let start = var.flatten_all()?.to_vec1::<f64>()?;
        let scale = grad.iter().fold(1.0, |max: f64, g| max.max(g.abs()));
        for (i, grad) in grad.iter().enumerate() {
            let at = |offset: f64| {
                let mut moved = start.clone();
                moved[i] += offset;
                var.set(&Tensor::from_vec(moved, var.shape(), &Device::Cpu)?)?;
                value()
            };
            let difference = (at(STEP)? - at(-STEP)?) / (2.0 * STEP);
            at(0.0)?;
            let error = (difference - grad).abs();
            assert!(
                error <= 1e-7 * scale,
                "variable {number}, element {i}: {grad}, by differences {difference}"
            );
        }
    }
    Ok(())
}

#[test]
fn conv2d_gradients() -> Result<()> {
    let config = |stride, padding, dilation, groups| Conv2dConfig {
        stride,
        padding,
        dilation,
        groups,
    };
    for (x, weight, config) in [
        ([2, 3, 5, 4], [2, 3, 3, 3], config(1, 1, 1, 1)),
        ([1, 2, 5, 7], [3, 2, 3, 2], config(2, 1, 1, 1)),
        ([3, 4, 4, 5], [4, 2, 2, 2], config(1, 0, 2, 2)),
        ([2, 3, 3, 5], [2, 3, 1, 1], config(1, 0, 1, 1)),
        ([1, 2, 4, 3], [2, 2, 1, 1], config(2, 0, 1, 1)),
        // An image smaller than the kernel, which padding makes legal; and a stride that skips pixels.
        ([1, 1, 1, 2], [2, 1, 3, 3], config(1, 1, 1, 1)),
        ([1, 1, 7, 7], [1, 1, 2, 2], config(3, 0, 1, 1)),
    ] {
        let (x, weight, bias) = (
            normal::<f64>(&x)?,
            normal::<f64>(&weight)?,
            normal::<f64>(&weight[..1])?,
        );
        check_gradients(&[&x, &weight, &bias], || Ok(conv2d(&x, &weight, Some(&bias), &config)?))?;
        check_gradients(&[&x, &weight], || Ok(conv2d(&x, &weight, None, &config)?))?;
    }
    Ok(())
}

/// Images stored `[N, H, W, C]`, weights stored `[R, S, C, K]`.
#[test]
fn conv2d_gradients_of_permuted_inputs() -> Result<()> {
    let (x, weight) = (normal::<f64>(&[2, 5, 4, 3])?, normal::<f64>(&[3, 3, 3, 2])?);
    let config = Conv2dConfig {
        padding: 1,
        ..Conv2dConfig::default()
    };
    check_gradients(&[&x, &weight], || {
        Ok(conv2d(
            &x.permute((0, 3, 1, 2))?,
            &weight.permute((3, 2, 0, 1))?,
            None,
            &config,
        )?)
    })
}

/// A gradient that nothing needs is not computed, and the others do not change.
#[test]
fn conv2d_skips_what_needs_no_gradient() -> Result<()> {
    let (x, weight, bias) = (
        normal::<f64>(&[2, 3, 5, 4])?,
        normal::<f64>(&[2, 3, 3, 3])?,
        normal::<f64>(&[2])?,
    );
    let (x_const, weight_const) = (x.as_detached_tensor(), weight.as_detached_tensor());
    let config = Conv2dConfig::default();
    let all = conv2d(&x, &weight, Some(&bias), &config)?.backward()?;
    let only_x = conv2d(&x, &weight_const, Some(&bias.as_detached_tensor()), &config)?.backward()?;
    let only_weight = conv2d(&x_const, &weight, None, &config)?.backward()?;
    assert!(only_x.get(&weight_const).is_none() && only_weight.get(&x_const).is_none());
    for (one, var) in [(&only_x, &x), (&only_weight, &weight)] {
        let (one, all) = (one.get(var).unwrap(), all.get(var).unwrap());
        assert_eq!(
            one.flatten_all()?.to_vec1::<f64>()?,
            all.flatten_all()?.to_vec1::<f64>()?
        );
    }
    Ok(())
}

#[test]
fn gelu_gradients() -> Result<()> {
    let x = normal::<f64>(&[4, 3, 5])?;
    check_gradients(&[&x], || Ok(gelu(&x)?))?;
    check_gradients(&[&x], || Ok(gelu(&x.permute((2, 0, 1))?)?))
}

#[test]
fn batch_norm_gradients() -> Result<()> {
    for shape in [&[3, 2, 3, 5][..], &[1, 3, 2, 1], &[5, 3]] {
        let channels = &shape[1..2];
        let (x, weight, bias) = (
            normal::<f64>(shape)?,
            normal::<f64>(channels)?,
            normal::<f64>(channels)?,
        );
        let (mean, var) = (normal::<f64>(channels)?, normal::<f64>(channels)?.sqr()?);
        check_gradients(&[&x, &weight, &bias], || {
            Ok(batch_norm_train(
                &x,
                &weight,
                &bias,
                &mean.copy()?,
                &var.copy()?,
                &BatchNormConfig::default(),
            )?)
        })?;
        check_gradients(&[&x, &weight, &bias], || {
            Ok(batch_norm_eval(&x, &weight, &bias, &mean, &var, 1e-5)?)
        })?;
    }
    Ok(())
}

/// Images stored `[N, H, W, C]`; in evaluation nothing is computed for a frozen layer's weight.
#[test]
fn batch_norm_gradients_of_permuted_and_frozen_inputs() -> Result<()> {
    let (x, weight, bias) = (
        normal::<f64>(&[2, 3, 4, 3])?,
        normal::<f64>(&[3])?,
        normal::<f64>(&[3])?,
    );
    let (mean, var) = (
        Tensor::zeros(3, DType::F64, &Device::Cpu)?,
        Tensor::ones(3, DType::F64, &Device::Cpu)?,
    );
    check_gradients(&[&x, &weight, &bias], || {
        let x = x.permute((0, 3, 1, 2))?;
        Ok(batch_norm_train(
            &x,
            &weight,
            &bias,
            &mean.copy()?,
            &var.copy()?,
            &BatchNormConfig::default(),
        )?)
    })?;
    let frozen = weight.as_detached_tensor();
    check_gradients(&[&x], || {
        Ok(batch_norm_eval(
            &x.permute((0, 3, 1, 2))?,
            &frozen,
            &frozen,
            &mean,
            &var,
            1e-5,
        )?)
    })
}

#[test]
fn max_pool2d_gradients() -> Result<()> {
    for (shape, kernel, stride, padding) in [
        ([2, 2, 6, 4], 2, 2, 0),
        ([1, 2, 7, 9], 3, 2, 1),
        ([1, 1, 5, 5], 3, 1, 1),
        ([2, 1, 7, 5], 2, 3, 1),
        // An image smaller than the window, which padding makes legal.
        ([1, 2, 1, 2], 3, 2, 1),
    ] {
        let x = distinct(&shape)?;
        check_gradients(&[&x], || Ok(max_pool2d(&x, kernel, stride, padding)?))?;
    }
    let x = distinct(&[2, 6, 5, 3])?;
    check_gradients(&[&x], || Ok(max_pool2d(&x.permute((0, 3, 1, 2))?, 3, 2, 1)?))
}

#[test]
fn avg_pool2d_gradients() -> Result<()> {
    for (shape, kernel, stride, padding) in [
        ([2, 2, 6, 4], 2, 2, 0),
        ([1, 2, 7, 9], 3, 2, 1),
        ([1, 1, 5, 5], 3, 1, 1),
        ([2, 1, 7, 5], 2, 3, 1),
        ([2, 3, 1, 1], 1, 1, 0),
        // An image smaller than the window, which padding makes legal.
        ([1, 2, 1, 2], 3, 2, 1),
    ] {
        let x = normal::<f64>(&shape)?;
        for count_include_pad in [false, true] {
            check_gradients(&[&x], || {
                Ok(avg_pool2d(&x, kernel, stride, padding, count_include_pad)?)
            })?;
        }
    }
    let x = normal::<f64>(&[2, 6, 5, 3])?;
    check_gradients(&[&x], || Ok(avg_pool2d(&x.permute((0, 3, 1, 2))?, 3, 2, 1, false)?))
}

#[test]
fn adaptive_avg_pool2d_gradients() -> Result<()> {
    for (shape, out) in [
        ([2, 3, 7, 5], (1, 1)),
        ([1, 2, 6, 4], (3, 2)),
        ([2, 1, 7, 5], (3, 4)),
        ([1, 2, 1, 1], (1, 1)),
        ([1, 2, 2, 3], (5, 4)),
    ] {
        let x = normal::<f64>(&shape)?;
        check_gradients(&[&x], || Ok(adaptive_avg_pool2d(&x, out)?))?;
        check_gradients(&[&x], || Ok(adaptive_avg_pool2d(&x.permute((1, 0, 3, 2))?, out)?))?;
    }
    Ok(())
}

#[test]
fn linear_gradients() -> Result<()> {
    for (rows, inputs, outputs) in [(1, 1, 1), (3, 5, 2), (2, 3, 70), (1, 66, 3)] {
        let (x, weight) = (normal::<f64>(&[rows, inputs])?, normal::<f64>(&[outputs, inputs])?);
        let bias = normal::<f64>(&[outputs])?;
        check_gradients(&[&x, &weight, &bias], || Ok(linear(&x, &weight, Some(&bias))?))?;
        check_gradients(&[&x, &weight], || Ok(linear(&x, &weight, None)?))?;
    }
    let (x, weight) = (normal::<f64>(&[4, 3])?, normal::<f64>(&[4, 2])?);
    check_gradients(&[&x, &weight], || Ok(linear(&x.t()?, &weight.t()?, None)?))
}

#[test]
fn linear_relu_gradients() -> Result<()> {
    for (rows, inputs, outputs) in [(1, 1, 1), (3, 5, 2), (2, 3, 70), (17, 6, 3)] {
        let (x, weight) = (normal::<f64>(&[rows, inputs])?, normal::<f64>(&[outputs, inputs])?);
        // Off 0 by more than a step, so that no difference crosses the bend.
        let bias = (normal::<f64>(&[outputs])?.as_tensor() + 0.3)?;
        let near = linear(&x, &weight, Some(&bias))?.abs()?.min_all()?.to_scalar::<f64>()?;
        assert!(near > 1e-3, "{near}");
        let bias = Var::from_tensor(&bias)?;
        check_gradients(&[&x, &weight, &bias], || Ok(linear_relu(&x, &weight, Some(&bias))?))?;
    }
    let (x, weight) = (normal::<f64>(&[4, 3])?, normal::<f64>(&[4, 2])?);
    check_gradients(&[&x, &weight], || Ok(linear_relu(&x.t()?, &weight.t()?, None)?))
}

#[test]
fn relu_gradients() -> Result<()> {
    let x = distinct(&[3, 5])?;
    check_gradients(&[&x], || Ok(relu(&x)?))?;
    check_gradients(&[&x], || Ok(relu(&x.t()?)?))
}

#[test]
fn cross_entropy_gradients() -> Result<()> {
    let targets = |targets: &[u32]| Tensor::new(targets, &Device::Cpu);
    for (shape, targets) in [
        ([3, 5], targets(&[4, 0, 2])?),
        ([1, 1], targets(&[0])?),
        ([1, 7], targets(&[6])?),
        ([4, 2], targets(&[0; 4])?),
    ] {
        let logits = normal::<f64>(&shape)?;
        check_gradients(&[&logits], || Ok(cross_entropy(&logits, &targets)?))?;
    }
    let logits = normal::<f64>(&[5, 3])?;
    check_gradients(&[&logits], || Ok(cross_entropy(&logits.t()?, &targets(&[4, 0, 2])?)?))
}

/// Logits, probabilities and class weights that are views with strides.
#[test]
fn cross_entropy_gradients_with_options() -> Result<()> {
    let weights = normal::<f64>(&[4, 2])?.sqr()?.narrow(1, 1, 1)?.squeeze(1)?;
    let probabilities = normal::<f64>(&[4, 3])?.sqr()?.t()?;
    let classes = Tensor::new(&[[3u32, 9], [0, 9], [3, 9]], &Device::Cpu)?
        .narrow(1, 0, 1)?
        .squeeze(1)?;
    for (label_smoothing, class_weights) in [(0.0, Some(&weights)), (0.3, None), (0.2, Some(&weights)), (1.0, None)] {
        let config = CrossEntropyConfig {
            label_smoothing,
            class_weights: class_weights.cloned(),
        };
        for targets in [&classes, &probabilities] {
            let logits = normal::<f64>(&[4, 3])?;
            check_gradients(&[&logits], || Ok(cross_entropy_with(&logits.t()?, targets, &config)?))?;
            let copied = cross_entropy_with(&logits.t()?.contiguous()?, &targets.contiguous()?, &config)?;
            let strided = cross_entropy_with(&logits.t()?, targets, &config)?;
            assert_eq!(copied.to_scalar::<f64>()?, strided.to_scalar::<f64>()?);
        }
    }
    Ok(())
}

#[test]
fn dropout_gradients() -> Result<()> {
    let key = DropoutKey {
        seed: 1,
        step: 2,
        layer: 3,
    };
    let x = normal::<f64>(&[7, 11])?;
    for p in [0.0, 0.3, 1.0] {
        check_gradients(&[&x], || Ok(dropout(&x, p, key)?))?;
        check_gradients(&[&x], || Ok(dropout(&x.t()?, p, key)?))?;
    }
    Ok(())
}
