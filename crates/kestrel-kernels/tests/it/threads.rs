//! Every result is bit-equal for any number of threads.

use crate::inputs::normal;
use candle_core::{DType, Device, Result, Tensor, Var};
use kestrel_kernels::{
    AdamConfig, BatchNormConfig, Conv2dConfig, CrossEntropyConfig, DropoutKey, SgdConfig, adam_step,
    adaptive_avg_pool2d, avg_pool2d, batch_norm_train, channels_last, conv2d, cross_entropy, cross_entropy_with,
    dropout, linear, linear_relu, max_pool2d, relu, sgd_step,
};

/// Runs `f` on pools of 1, 2 and 4 threads and compares every element of its tensors.
#[track_caller]
fn check_threads(f: impl Fn() -> Result<Vec<Tensor>> + Sync) -> Result<()> {
    let run = |threads| -> Result<Vec<Vec<u32>>> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let bits = |t: &Tensor| {
                Ok(t.flatten_all()?
                    .to_vec1::<f32>()?
                    .into_iter()
                    .map(f32::to_bits)
                    .collect())
            };
            f()?.iter().map(bits).collect()
        })
    };
    let one = run(1)?;
    assert!(
        one.iter().all(|t| t.iter().any(|v| *v != 0)),
        "a tensor of zeros proves nothing"
    );
    for threads in [2, 4] {
        for _ in 0..2 {
            assert!(run(threads)? == one, "{threads} threads differ from one");
        }
    }
    Ok(())
}

/// `y` and the gradients of `vars`, when the gradient of `y` is `y` itself.
fn all_of(y: &Tensor, vars: &[&Var]) -> Result<Vec<Tensor>> {
    let grads = (y.sqr()? * 0.5)?.backward()?;
    let mut tensors = vec![y.clone()];
    tensors.extend(vars.iter().map(|var| grads.get(var).unwrap().clone()));
    Ok(tensors)
}

#[test]
fn conv2d_is_bit_equal() -> Result<()> {
    // Whole strips, strips of several images with a ragged end, large images, pointwise, groups.
    for (x, weight, padding, groups) in [
        ([5, 40, 17, 19], [24, 40, 3, 3], 1, 1),
        ([37, 33, 4, 4], [31, 33, 3, 3], 1, 1),
        ([2, 8, 40, 40], [16, 8, 3, 3], 1, 1),
        ([5, 40, 17, 19], [24, 40, 1, 1], 0, 1),
        ([9, 32, 8, 8], [32, 8, 3, 3], 1, 4),
    ] {
        let (x, weight, bias) = (
            normal::<f32>(&x)?,
            normal::<f32>(&weight)?,
            normal::<f32>(&weight[..1])?,
        );
        let config = Conv2dConfig {
            padding,
            groups,
            ..Conv2dConfig::default()
        };
        check_threads(|| all_of(&conv2d(&x, &weight, Some(&bias), &config)?, &[&x, &weight, &bias]))?;
    }
    Ok(())
}

#[test]
fn other_ops_are_bit_equal() -> Result<()> {
    let (x, weight, bias) = (
        normal::<f32>(&[9, 7, 33, 31])?,
        normal::<f32>(&[7])?,
        normal::<f32>(&[7])?,
    );
    check_threads(|| {
        let (mean, var) = (
            Tensor::zeros(7, DType::F32, &Device::Cpu)?,
            Tensor::ones(7, DType::F32, &Device::Cpu)?,
        );
        let y = batch_norm_train(&x, &weight, &bias, &mean, &var, &BatchNormConfig::default())?;
        let mut tensors = all_of(&y, &[&x, &weight, &bias])?;
        tensors.extend([mean, var]);
        Ok(tensors)
    })?;
    check_threads(|| all_of(&max_pool2d(&x, 3, 2, 1)?, &[&x]))?;
    check_threads(|| all_of(&avg_pool2d(&x, 3, 2, 1, false)?, &[&x]))?;
    check_threads(|| all_of(&adaptive_avg_pool2d(&x, (5, 40))?, &[&x]))?;
    check_threads(|| all_of(&channels_last::avg_pool2d(&x, 3, 2, 1, false)?, &[&x]))?;
    check_threads(|| all_of(&channels_last::adaptive_avg_pool2d(&x, (1, 1))?, &[&x]))?;
    check_threads(|| all_of(&relu(&x)?, &[&x]))?;
    check_threads(|| {
        all_of(
            &dropout(
                &x,
                0.5,
                DropoutKey {
                    seed: 1,
                    step: 2,
                    layer: 3,
                },
            )?,
            &[&x],
        )
    })?;
    let (rows, matrix, offset) = (
        normal::<f32>(&[33, 500])?,
        normal::<f32>(&[130, 500])?,
        normal::<f32>(&[130])?,
    );
    check_threads(|| all_of(&linear(&rows, &matrix, Some(&offset))?, &[&rows, &matrix, &offset]))?;
    check_threads(|| all_of(&linear_relu(&rows, &matrix, Some(&offset))?, &[&rows, &matrix, &offset]))?;
    let logits = normal::<f32>(&[1000, 10])?;
    let targets: Vec<u32> = (0..1000).map(|i| i % 10).collect();
    let targets = Tensor::from_vec(targets, 1000, &Device::Cpu)?;
    check_threads(|| all_of(&cross_entropy(&logits, &targets)?, &[&logits]))?;
    let config = CrossEntropyConfig {
        label_smoothing: 0.1,
        class_weights: Some(normal::<f32>(&[10])?.sqr()?),
    };
    let probabilities = normal::<f32>(&[1000, 10])?.sqr()?;
    for targets in [&targets, &probabilities] {
        check_threads(|| all_of(&cross_entropy_with(&logits, targets, &config)?, &[&logits]))?;
    }
    let grad = normal::<f32>(&[50_000])?;
    check_threads(|| {
        let param = Var::from_tensor(&(grad.as_tensor() + 1.0)?)?;
        let (exp_avg, exp_avg_sq) = (param.zeros_like()?, param.zeros_like()?);
        for step in 1..=2 {
            adam_step(&param, &grad, &exp_avg, &exp_avg_sq, step, &AdamConfig::default())?;
        }
        Ok(vec![param.as_tensor().clone(), exp_avg, exp_avg_sq])
    })?;
    check_threads(|| {
        let param = Var::from_tensor(&(grad.as_tensor() + 1.0)?)?;
        let buffer = param.zeros_like()?;
        let config = SgdConfig {
            momentum: 0.9,
            weight_decay: 0.1,
            nesterov: true,
            ..SgdConfig::default()
        };
        for step in 1..=2 {
            sgd_step(&param, &grad, Some(&buffer), step, &config)?;
        }
        Ok(vec![param.as_tensor().clone(), buffer])
    })
}
