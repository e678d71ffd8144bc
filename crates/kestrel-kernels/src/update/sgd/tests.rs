//! The composite for other devices against the kernel, and storage that is shared.

use super::*;
use candle_core::{DType, Device};

fn configs() -> Vec<SgdConfig> {
    let config = |momentum, dampening, weight_decay, nesterov| SgdConfig {
        lr: 0.1,
        momentum,
        dampening,
        weight_decay,
        nesterov,
    };
    vec![
        config(0.0, 0.0, 0.0, false),
        config(0.0, 0.0, 0.1, false),
        config(0.9, 0.0, 0.1, false),
        config(0.8, 0.3, 0.0, false),
        config(0.9, 0.0, 0.1, true),
    ]
}

#[test]
fn composite_agrees_with_the_kernel() -> candle_core::Result<()> {
    let values: Vec<f64> = (0..15).map(|i| (f64::from(i) * 1.7).sin()).collect();
    let start = Tensor::from_vec(values, (3, 5), &Device::Cpu)?;
    for config in configs() {
        let (fast, slow) = (Var::from_tensor(&start.copy()?)?, Var::from_tensor(&start.copy()?)?);
        // The first step reads nothing from the buffer.
        let unset = || Tensor::full(f64::NAN, (3, 5), &Device::Cpu)?.contiguous();
        let (fast_buffer, slow_buffer) = (unset()?, unset()?);
        for step in 1..=3 {
            let grad = (&start * f64::from(step as u32))?.cos()?;
            let slow_buffer = (config.momentum != 0.0).then_some(&slow_buffer);
            sgd_step(&fast, &grad, Some(&fast_buffer), step, &config)?;
            composite(&slow, &grad, slow_buffer, step, &config)?;
        }
        let distance = |a: &Tensor, b: &Tensor| (a - b)?.abs()?.max_all()?.to_scalar::<f64>();
        assert!(distance(&fast, &slow)? < 1e-14, "{config:?}");
        assert!(distance(&fast, &start)? > 1e-3, "{config:?}");
        if config.momentum == 0.0 {
            assert!(fast_buffer.sum_all()?.to_scalar::<f64>()?.is_nan(), "left alone");
        } else {
            assert!(distance(&fast_buffer, &slow_buffer)? < 1e-14, "{config:?}");
        }
    }
    Ok(())
}

/// Tensors that share their storage are refused; the step would wait for itself.
#[test]
fn shared_storage_is_an_error() -> candle_core::Result<()> {
    let both = Tensor::ones((2, 3), DType::F32, &Device::Cpu)?.contiguous()?;
    let param = Var::from_tensor(&both)?;
    let other = Tensor::ones(3, DType::F32, &Device::Cpu)?.contiguous()?;
    let config = SgdConfig {
        momentum: 0.9,
        ..SgdConfig::default()
    };
    let error = sgd_step(&param, &both, Some(&param.detach()), 1, &config).unwrap_err();
    assert!(error.to_string().contains("share"), "{error}");
    let halves = (both.get(0)?, both.get(1)?);
    let error = sgd_step(&Var::from_tensor(&other)?, &halves.0, Some(&halves.1), 1, &config).unwrap_err();
    assert!(error.to_string().contains("share"), "{error}");
    Ok(())
}
