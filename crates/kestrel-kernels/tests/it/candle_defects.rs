//! Defects of candle that this crate works around. A test here fails when candle mends one.

use candle_core::{Device, Result, Tensor, Var};
use kestrel_kernels::max_pool2d;

/// `[1, 2, 3, 4]` in a 2x2 window: the whole gradient belongs to the 4.
#[test]
fn max_pool2d_gives_the_maximum_the_whole_gradient() -> Result<()> {
    let x = Var::new(&[[[[1f32, 2.], [3., 4.]]]], &Device::Cpu)?;
    let dx = max_pool2d(&x, 2, 2, 0)?
        .backward()?
        .get(&x)
        .unwrap()
        .flatten_all()?
        .to_vec1::<f32>()?;
    assert_eq!(dx, [0., 0., 0., 1.]);
    Ok(())
}

#[test]
fn candle_still_gives_the_maximum_a_quarter() -> Result<()> {
    let x = Var::new(&[[[[1f32, 2.], [3., 4.]]]], &Device::Cpu)?;
    let dx = x
        .max_pool2d(2)?
        .backward()?
        .get(&x)
        .unwrap()
        .flatten_all()?
        .to_vec1::<f32>()?;
    assert_eq!(dx, [0., 0., 0., 0.25]);
    Ok(())
}

#[test]
fn candle_still_refuses_the_backward_of_overlapping_windows() -> Result<()> {
    let x = Var::zeros((1, 1, 5, 5), candle_core::DType::F32, &Device::Cpu)?;
    let y = x.max_pool2d_with_stride(3, 2)?;
    assert!(y.backward().is_err());
    assert!(max_pool2d(&x, 3, 2, 0)?.backward().is_ok());
    Ok(())
}

/// candle's cross-entropy takes a label of `u32::MAX` as a loss of 0.
#[test]
fn candle_still_takes_a_target_of_minus_one() -> Result<()> {
    let logits = Tensor::new(&[[0f32, 1., 2.]], &Device::Cpu)?;
    let loss = candle_nn::loss::cross_entropy(&logits, &Tensor::new(&[u32::MAX], &Device::Cpu)?)?;
    assert_eq!(loss.to_scalar::<f32>()?, 0.0);
    Ok(())
}
