//! The composite for other devices against the kernels, and the fused relu against the separate one.

use super::*;
use candle_core::Var;

/// `y` and the gradients of `vars`, when that of `y` is `dy`.
fn all_of(y: Tensor, dy: &Tensor, vars: &[&Var]) -> candle_core::Result<Vec<Tensor>> {
    let grads = (&y * dy)?.backward()?;
    let mut tensors = vec![y];
    for var in vars {
        let Some(grad) = grads.get(var) else {
            panic!("no gradient")
        };
        tensors.push(grad.clone());
    }
    Ok(tensors)
}

#[test]
fn composite_agrees_with_the_kernel() -> candle_core::Result<()> {
    // More than one block of columns in every product.
    let x = Var::randn(0f64, 1f64, (5, 131), &Device::Cpu)?;
    let weight = Var::randn(0f64, 1f64, (67, 131), &Device::Cpu)?;
    let bias = Var::randn(0f64, 1f64, 67, &Device::Cpu)?;
    let dy = Tensor::randn(0f64, 1f64, (5, 67), &Device::Cpu)?;
    let fast = all_of(linear(&x, &weight, Some(&bias))?, &dy, &[&x, &weight, &bias])?;
    let slow = all_of(composite(&x, &weight, Some(&bias))?, &dy, &[&x, &weight, &bias])?;
    for (fast, slow) in fast.iter().zip(&slow) {
        assert_eq!(fast.dims(), slow.dims());
        assert!((fast - slow)?.abs()?.max_all()?.to_scalar::<f64>()? < 1e-11);
        assert!(slow.abs()?.max_all()?.to_scalar::<f64>()? > 0.1);
    }
    Ok(())
}

/// To the bit, with a bias and without, of contiguous and of transposed arguments.
#[test]
fn linear_relu_is_relu_of_linear() -> candle_core::Result<()> {
    let x = Var::randn(0f32, 1f32, (19, 21), &Device::Cpu)?;
    let weight = Var::randn(0f32, 1f32, (21, 70), &Device::Cpu)?;
    let bias = Var::randn(0f32, 1f32, 70, &Device::Cpu)?;
    let dy = Tensor::randn(0f32, 1f32, (19, 70), &Device::Cpu)?;
    for bias in [None, Some(&bias)] {
        let vars: Vec<&Var> = [&x, &weight].into_iter().chain(bias).collect();
        let bias = bias.map(|bias| bias.as_tensor());
        let fused = all_of(linear_relu(&x, &weight.t()?, bias)?, &dy, &vars)?;
        let separate = all_of(crate::relu(&linear(&x, &weight.t()?, bias)?)?, &dy, &vars)?;
        for (fused, separate) in fused.iter().zip(&separate) {
            assert_eq!(
                fused.flatten_all()?.to_vec1::<f32>()?,
                separate.flatten_all()?.to_vec1::<f32>()?
            );
        }
        let y = fused[0].flatten_all()?.to_vec1::<f32>()?;
        assert!(y.contains(&0.0) && y.iter().any(|y| *y > 0.0) && y.iter().all(|y| *y >= 0.0));
    }
    Ok(())
}

#[test]
fn linear_relu_lets_nan_through() -> candle_core::Result<()> {
    let x = Tensor::new(&[[f32::NAN], [-1.0]], &Device::Cpu)?;
    let y = linear_relu(&x, &Tensor::new(&[[1f32]], &Device::Cpu)?, None)?
        .flatten_all()?
        .to_vec1::<f32>()?;
    assert!(y[0].is_nan());
    assert_eq!(y[1], 0.0);
    Ok(())
}
