//! What cross-entropy refuses.

use super::zeros;
use candle_core::{DType, Device, Result, Tensor};
use kestrel_kernels::{CrossEntropyConfig, Error, cross_entropy, cross_entropy_with};

#[test]
fn options_outside_their_range_or_shape() -> Result<()> {
    let (logits, targets) = (zeros(&[2, 3])?, Tensor::zeros(2, DType::U32, &Device::Cpu)?);
    for label_smoothing in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
        let config = CrossEntropyConfig {
            label_smoothing,
            ..CrossEntropyConfig::default()
        };
        let error = cross_entropy_with(&logits, &targets, &config).unwrap_err();
        assert!(
            matches!(
                error,
                Error::InvalidArgument {
                    op: "cross_entropy",
                    argument: "label_smoothing",
                    ..
                }
            ),
            "{error}"
        );
    }
    for (weights, message) in [
        (zeros(&[2])?, "cross_entropy class_weights: expected shape [3], got [2]"),
        (
            zeros(&[3])?.to_dtype(DType::F64)?,
            "cross_entropy class_weights: expected F32, got F64",
        ),
    ] {
        let config = CrossEntropyConfig {
            class_weights: Some(weights),
            ..CrossEntropyConfig::default()
        };
        let error = cross_entropy_with(&logits, &targets, &config).unwrap_err();
        assert_eq!(error.to_string(), message);
    }
    Ok(())
}

#[test]
fn targets_of_another_shape_or_type() -> Result<()> {
    let logits = zeros(&[2, 3])?;
    for (targets, message) in [
        (
            zeros(&[2, 4])?,
            "cross_entropy targets: expected shape [2, 3], got [2, 4]",
        ),
        (
            Tensor::zeros((2, 3), DType::U32, &Device::Cpu)?,
            "cross_entropy targets: expected F32, got U32",
        ),
        (
            Tensor::zeros((2, 1, 1), DType::U32, &Device::Cpu)?,
            "cross_entropy targets: expected shape [2], got [2, 1, 1]",
        ),
        (zeros(&[2])?, "cross_entropy targets: expected u32, got F32"),
    ] {
        assert_eq!(cross_entropy(&logits, &targets).unwrap_err().to_string(), message);
    }
    Ok(())
}

/// A class that the logits do not have is refused with options too; so are a batch and a row of nothing.
#[test]
fn nothing_to_choose_from() -> Result<()> {
    let config = CrossEntropyConfig {
        label_smoothing: 1.0,
        class_weights: None,
    };
    let error = cross_entropy_with(&zeros(&[1, 3])?, &Tensor::new(&[3u32], &Device::Cpu)?, &config).unwrap_err();
    assert!(matches!(error, Error::TargetOutOfRange { target: 3, .. }), "{error}");
    let error = cross_entropy_with(&zeros(&[0, 3])?, &zeros(&[0, 3])?, &config).unwrap_err();
    assert!(matches!(error, Error::EmptyBatch { .. }), "{error}");
    let error = cross_entropy_with(&zeros(&[2, 0])?, &zeros(&[2, 0])?, &config).unwrap_err();
    assert!(matches!(error, Error::ShapeMismatch { .. }), "{error}");
    Ok(())
}
