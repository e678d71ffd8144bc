//! The composite for other devices against the kernel.

use super::*;
use candle_core::{Device, Var};

/// Output, gradients of `vars` and running statistics.
fn run(
    x: &Var,
    weight: &Var,
    bias: &Var,
    op: impl Fn(&Tensor, &Tensor) -> candle_core::Result<Tensor>,
) -> candle_core::Result<Vec<Vec<f64>>> {
    let mean = Tensor::new(&[0.5f64, -1.0, 2.0], &Device::Cpu)?;
    let var = Tensor::new(&[1.5f64, 0.5, 2.0], &Device::Cpu)?;
    let y = op(&mean, &var)?;
    let grads = y.sqr()?.mul(&y)?.backward()?;
    let mut tensors = vec![y.clone(), mean, var];
    for var in [x, weight, bias] {
        let Some(grad) = grads.get(var) else {
            panic!("no gradient")
        };
        tensors.push(grad.clone());
    }
    tensors.iter().map(|t| t.flatten_all()?.to_vec1()).collect()
}

#[test]
fn composite_agrees_with_the_kernel() -> candle_core::Result<()> {
    let config = BatchNormConfig {
        eps: 1e-3,
        momentum: 0.3,
    };
    for shape in [&[4, 3, 3, 5][..], &[6, 3]] {
        let x = Var::randn(1f64, 2f64, shape, &Device::Cpu)?;
        let (weight, bias) = (
            Var::randn(0f64, 1f64, 3, &Device::Cpu)?,
            Var::randn(0f64, 1f64, 3, &Device::Cpu)?,
        );
        let pairs = [
            (
                run(&x, &weight, &bias, |m, v| {
                    Ok(batch_norm_train(&x, &weight, &bias, m, v, &config)?)
                })?,
                run(&x, &weight, &bias, |m, v| {
                    composite::train(&x, &weight, &bias, m, v, &config)
                })?,
            ),
            (
                run(&x, &weight, &bias, |m, v| {
                    Ok(batch_norm_eval(&x, &weight, &bias, m, v, 1e-3)?)
                })?,
                run(&x, &weight, &bias, |m, v| {
                    composite::eval(&x, &weight, &bias, m, v, 1e-3)
                })?,
            ),
        ];
        for (fast, slow) in pairs {
            for (tensor, (fast, slow)) in fast.iter().zip(&slow).enumerate() {
                let scale = slow.iter().fold(0.0, |max: f64, v| max.max(v.abs()));
                assert!(scale > 0.0);
                for (fast, slow) in fast.iter().zip(slow) {
                    assert!((fast - slow).abs() < 1e-11 * scale, "tensor {tensor}: {fast} {slow}");
                }
            }
        }
    }
    Ok(())
}

#[test]
fn a_nan_shows_in_the_running_statistics_of_its_channel() -> candle_core::Result<()> {
    let config = BatchNormConfig::default();
    let ones = |n: usize| Tensor::ones(n, candle_core::DType::F32, &Device::Cpu);
    let values = [1.0, f32::NAN, 2.0, 5.0, 3.0, 4.0];
    let first = Tensor::from_slice(&values, (3, 2, 1, 1), &Device::Cpu)?;
    for last in [false, true] {
        let (mean, var) = (ones(2)?, ones(2)?);
        if last {
            let x = crate::channels_last::to_channels_last(&first)?;
            crate::channels_last::batch_norm_relu_train(&x, &ones(2)?, &ones(2)?, &mean, &var, &config)?;
        } else {
            batch_norm_train(&first, &ones(2)?, &ones(2)?, &mean, &var, &config)?;
        }
        for running in [mean, var] {
            let running = running.to_vec1::<f32>()?;
            assert!(running[0].is_finite() && running[1].is_nan(), "{last}: {running:?}");
        }
    }
    Ok(())
}
