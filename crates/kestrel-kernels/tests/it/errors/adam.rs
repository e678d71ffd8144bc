//! What a step of Adam refuses, and that nothing has moved then.

use super::zeros;
use candle_core::{Result, Var};
use kestrel_kernels::update::{AdamSlot, adam_step_all};
use kestrel_kernels::{AdamConfig, adam_step};

#[test]
fn constants_outside_their_range() -> Result<()> {
    let plain = AdamConfig::default();
    for (config, message) in [
        (AdamConfig { lr: f64::NAN, ..plain }, "lr must be at least 0, got NaN"),
        (AdamConfig { lr: -1.0, ..plain }, "lr must be at least 0, got -1"),
        (
            AdamConfig { beta1: 1.0, ..plain },
            "beta1 must be at least 0 and below 1, got 1",
        ),
        (
            AdamConfig { beta2: -0.5, ..plain },
            "beta2 must be at least 0 and below 1, got -0.5",
        ),
        (AdamConfig { eps: -1.0, ..plain }, "eps must be at least 0, got -1"),
        (
            AdamConfig {
                weight_decay: f64::NAN,
                ..plain
            },
            "weight_decay must be at least 0, got NaN",
        ),
    ] {
        let (param, m, v) = (Var::from_tensor(&zeros(&[2])?)?, zeros(&[2])?, zeros(&[2])?);
        let error = adam_step(&param, &zeros(&[2])?.ones_like()?, &m, &v, 1, &config).unwrap_err();
        assert_eq!(error.to_string(), format!("adam_step: {message}"));
        for tensor in [param.as_tensor(), &m, &v] {
            assert_eq!(tensor.to_vec1::<f32>()?, [0.0; 2]);
        }
    }
    Ok(())
}

/// Of many parameters, the first stays where it is because of a fault in the last.
#[test]
fn a_fault_in_one_of_many_parameters_moves_none() -> Result<()> {
    let (first, last) = (Var::from_tensor(&zeros(&[2, 3])?)?, Var::from_tensor(&zeros(&[4])?)?);
    let grad = zeros(&[2, 3])?.ones_like()?;
    let (m, v, other) = (zeros(&[2, 3])?, zeros(&[2, 3])?, zeros(&[4])?);
    let slot = |param, grad, exp_avg, exp_avg_sq| AdamSlot {
        param,
        grad,
        exp_avg,
        exp_avg_sq,
    };
    let slots = [slot(&first, &grad, &m, &v), slot(&last, &grad, &other, &other)];
    assert!(adam_step_all(&slots, 1, &AdamConfig::default(), None).is_err());
    for tensor in [first.as_tensor(), &m, &v] {
        assert_eq!(tensor.flatten_all()?.to_vec1::<f32>()?, [0.0; 6]);
    }
    Ok(())
}
