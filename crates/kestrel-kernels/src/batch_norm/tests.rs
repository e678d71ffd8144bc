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
