//! The composite for other devices against the kernel.

use super::*;
use candle_core::Var;

#[test]
fn composite_agrees_with_the_kernel() -> candle_core::Result<()> {
    for (kernel, stride, padding) in [(2, 2, 0), (3, 2, 1), (3, 1, 1), (2, 3, 1)] {
        // Rounded, so that windows hold ties.
        let values = Tensor::randn(0f64, 2f64, (2, 3, 7, 8), &Device::Cpu)?.round()?;
        let x = Var::from_tensor(&values)?;
        let geometry = Geometry::channels_first(OP, &x, kernel, stride, padding)?;
        let outputs = [
            max_pool2d(&x, kernel, stride, padding)?,
            composite::max_pool2d(&x, &geometry)?,
        ];
        let weights = outputs[0].randn_like(0.0, 1.0)?;
        let mut results = Vec::new();
        for y in &outputs {
            let grads = (y * &weights)?.backward()?;
            let Some(dx) = grads.get(&x) else { panic!("no gradient") };
            results.push((y.flatten_all()?.to_vec1::<f64>()?, dx.flatten_all()?.to_vec1::<f64>()?));
        }
        assert_eq!(results[0].0, results[1].0);
        for (fast, slow) in results[0].1.iter().zip(&results[1].1) {
            assert!((fast - slow).abs() < 1e-12, "{fast} {slow}");
        }
        assert!(results[0].1.contains(&0.0) && results[0].1.iter().any(|v| *v != 0.0));
    }
    Ok(())
}

#[test]
fn composite_lets_nan_through() -> candle_core::Result<()> {
    let x = Var::new(&[[[[1f32, f32::NAN], [9., 2.]]]], &Device::Cpu)?;
    let y = composite::max_pool2d(&x, &Geometry::channels_first(OP, &x, 2, 2, 0)?)?;
    assert!(y.flatten_all()?.to_vec1::<f32>()?[0].is_nan());
    let grads = y.backward()?;
    let Some(dx) = grads.get(&x) else { panic!("no gradient") };
    assert_eq!(dx.flatten_all()?.to_vec1::<f32>()?, [0., 1., 0., 0.]);
    Ok(())
}
