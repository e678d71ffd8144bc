//! What a step of SGD refuses, and that nothing has moved then.

use super::zeros;
use candle_core::{DType, Result, Tensor, Var};
use kestrel_kernels::update::{SgdSlot, sgd_step_all};
use kestrel_kernels::{SgdConfig, sgd_step};

/// The message of a refused step; parameter and buffer are still all 0.
#[track_caller]
fn refused(grad: &Tensor, buffer: Option<&Tensor>, step: u64, config: &SgdConfig) -> Result<String> {
    let param = Var::from_tensor(&zeros(&[2, 3])?)?;
    let error = sgd_step(&param, grad, buffer, step, config).unwrap_err();
    for tensor in [param.as_tensor()].into_iter().chain(buffer) {
        let sum = tensor.abs()?.sum_all()?.to_dtype(DType::F64)?.to_scalar::<f64>()?;
        assert_eq!(sum, 0.0);
    }
    Ok(error.to_string())
}

#[test]
fn constants_outside_their_range() -> Result<()> {
    let (grad, buffer) = (zeros(&[2, 3])?.ones_like()?, zeros(&[2, 3])?);
    let plain = SgdConfig::default();
    let momentum = SgdConfig { momentum: 0.9, ..plain };
    for (config, message) in [
        (SgdConfig { lr: -1.0, ..plain }, "lr must be at least 0, got -1"),
        (SgdConfig { lr: f64::NAN, ..plain }, "lr must be at least 0, got NaN"),
        (
            SgdConfig {
                momentum: -0.5,
                ..plain
            },
            "momentum must be at least 0, got -0.5",
        ),
        (
            SgdConfig {
                weight_decay: -2.0,
                ..plain
            },
            "weight_decay must be at least 0, got -2",
        ),
        (
            SgdConfig {
                nesterov: true,
                ..plain
            },
            "momentum must be more than 0 with nesterov, got 0",
        ),
        (
            SgdConfig {
                nesterov: true,
                dampening: 0.1,
                ..momentum
            },
            "dampening must be 0 with nesterov, got 0.1",
        ),
    ] {
        assert_eq!(
            refused(&grad, Some(&buffer), 1, &config)?,
            format!("sgd_step: {message}")
        );
    }
    assert_eq!(
        refused(&grad, None, 1, &momentum)?,
        "sgd_step: momentum must be 0 without a momentum buffer, got 0.9"
    );
    assert_eq!(
        refused(&grad, Some(&buffer), 0, &momentum)?,
        "sgd_step: step must be at least 1, got 0"
    );
    Ok(())
}

#[test]
fn tensors_of_another_shape_type_or_order() -> Result<()> {
    let config = SgdConfig {
        momentum: 0.9,
        ..SgdConfig::default()
    };
    let grad = zeros(&[2, 3])?.ones_like()?;
    assert_eq!(
        refused(&zeros(&[3, 2])?, Some(&zeros(&[2, 3])?), 1, &config)?,
        "sgd_step grad: expected shape [2, 3], got [3, 2]"
    );
    assert_eq!(
        refused(&grad, Some(&zeros(&[2])?), 1, &config)?,
        "sgd_step momentum_buffer: expected shape [2, 3], got [2]"
    );
    assert_eq!(
        refused(&grad, Some(&zeros(&[2, 3])?.to_dtype(DType::F64)?), 1, &config)?,
        "sgd_step momentum_buffer: expected F32, got F64"
    );
    let message = refused(&grad, Some(&zeros(&[3, 2])?.t()?), 1, &config)?;
    assert!(message.contains("contiguous"), "{message}");
    Ok(())
}

/// Of many parameters, the first stays where it is because of a fault in the last.
#[test]
fn a_fault_in_one_of_many_parameters_moves_none() -> Result<()> {
    let config = SgdConfig {
        momentum: 0.9,
        ..SgdConfig::default()
    };
    let (first, last) = (Var::from_tensor(&zeros(&[2, 3])?)?, Var::from_tensor(&zeros(&[4])?)?);
    let (grad, buffer, bad) = (zeros(&[2, 3])?.ones_like()?, zeros(&[2, 3])?, zeros(&[3])?);
    let slot = |param, grad, momentum_buffer| SgdSlot {
        param,
        grad,
        momentum_buffer,
    };
    let last_buffer = zeros(&[4])?;
    for last in [slot(&last, &bad, Some(&last_buffer)), slot(&last, &last_buffer, None)] {
        assert!(sgd_step_all(&[slot(&first, &grad, Some(&buffer)), last], 1, &config, None).is_err());
        for tensor in [first.as_tensor(), &buffer] {
            assert_eq!(tensor.flatten_all()?.to_vec1::<f32>()?, [0.0; 6]);
        }
    }
    Ok(())
}
