//! One test an error variant.

mod adam;
mod loss;
mod pooling;
mod sgd;

use candle_core::{DType, Device, Result, Tensor, Var};
use kestrel_kernels::{
    AdamConfig, BatchNormConfig, Conv2dConfig, DropoutKey, Error, adam_step, batch_norm_train, channels_last, conv2d,
    cross_entropy, dropout, linear, linear_relu, max_pool2d,
};

fn zeros(shape: &[usize]) -> Result<Tensor> {
    Tensor::zeros(shape, DType::F32, &Device::Cpu)
}

#[test]
fn shape_mismatch() -> Result<()> {
    let (x, weight) = (zeros(&[1, 4, 5, 5])?, zeros(&[2, 3, 3, 3])?);
    let error = conv2d(&x, &weight, None, &Conv2dConfig::default()).unwrap_err();
    assert!(
        matches!(
            error,
            Error::ShapeMismatch {
                op: "conv2d weight",
                ..
            }
        ),
        "{error}"
    );
    let error = conv2d(
        &x,
        &zeros(&[2, 4, 3, 3])?,
        Some(&zeros(&[3])?),
        &Conv2dConfig::default(),
    )
    .unwrap_err();
    assert_eq!(error.to_string(), "conv2d bias: expected shape [2], got [3]");
    let error = linear(&zeros(&[2, 3])?, &zeros(&[5, 4])?, None).unwrap_err();
    assert_eq!(error.to_string(), "linear weight: expected shape [O, 3], got [5, 4]");
    let error = linear_relu(&zeros(&[2, 3])?, &zeros(&[5, 3])?, Some(&zeros(&[3])?)).unwrap_err();
    assert_eq!(error.to_string(), "linear bias: expected shape [5], got [3]");
    assert_eq!(linear_relu(&zeros(&[0, 3])?, &zeros(&[5, 3])?, None)?.dims(), [0, 5]);
    let error = cross_entropy(&zeros(&[2, 3])?, &Tensor::zeros(3, DType::U32, &Device::Cpu)?).unwrap_err();
    assert!(
        matches!(
            error,
            Error::ShapeMismatch {
                op: "cross_entropy targets",
                ..
            }
        ),
        "{error}"
    );
    Ok(())
}

#[test]
fn dtype_mismatch() -> Result<()> {
    let x = Tensor::zeros((1, 1, 2, 2), DType::U32, &Device::Cpu)?;
    let error = max_pool2d(&x, 2, 2, 0).unwrap_err();
    assert!(matches!(error, Error::DTypeMismatch { got: DType::U32, .. }), "{error}");
    let error = cross_entropy(&zeros(&[2, 3])?, &zeros(&[2])?).unwrap_err();
    assert_eq!(error.to_string(), "cross_entropy targets: expected u32, got F32");
    let weight = zeros(&[1, 1, 1, 1])?.to_dtype(DType::F64)?;
    let error = conv2d(&zeros(&[1, 1, 2, 2])?, &weight, None, &Conv2dConfig::default()).unwrap_err();
    assert!(matches!(error, Error::DTypeMismatch { got: DType::F64, .. }), "{error}");
    Ok(())
}

#[test]
fn invalid_argument() -> Result<()> {
    let x = zeros(&[1, 4, 5, 5])?;
    for p in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
        let error = dropout(
            &x,
            p,
            DropoutKey {
                seed: 0,
                step: 0,
                layer: 0,
            },
        )
        .unwrap_err();
        assert!(
            matches!(
                error,
                Error::InvalidArgument {
                    op: "dropout",
                    argument: "p",
                    ..
                }
            ),
            "{error}"
        );
    }
    let weight = zeros(&[3, 2, 1, 1])?;
    for (config, argument) in [
        (
            Conv2dConfig {
                stride: 0,
                ..Conv2dConfig::default()
            },
            "stride",
        ),
        (
            Conv2dConfig {
                dilation: 0,
                ..Conv2dConfig::default()
            },
            "dilation",
        ),
        (
            Conv2dConfig {
                groups: 0,
                ..Conv2dConfig::default()
            },
            "groups",
        ),
        (
            Conv2dConfig {
                groups: 2,
                ..Conv2dConfig::default()
            },
            "groups",
        ),
    ] {
        let error = conv2d(&x, &weight, None, &config).unwrap_err();
        assert!(
            matches!(error, Error::InvalidArgument { argument: a, .. } if a == argument),
            "{error}"
        );
    }
    for (kernel, stride, padding) in [(0, 1, 0), (2, 0, 0), (3, 1, 2)] {
        let error = max_pool2d(&x, kernel, stride, padding).unwrap_err();
        assert!(matches!(error, Error::InvalidArgument { .. }), "{error}");
    }
    let param = Var::from_tensor(&x)?;
    let (m, v) = (zeros(x.dims())?, zeros(x.dims())?);
    let error = adam_step(&param, &x, &m, &v, 0, &AdamConfig::default()).unwrap_err();
    assert!(
        matches!(error, Error::InvalidArgument { argument: "step", .. }),
        "{error}"
    );
    Ok(())
}

#[test]
fn kernel_too_large() -> Result<()> {
    let x = zeros(&[1, 1, 4, 4])?;
    let config = Conv2dConfig {
        dilation: 2,
        ..Conv2dConfig::default()
    };
    let error = conv2d(&x, &zeros(&[1, 1, 3, 3])?, None, &config).unwrap_err();
    assert!(
        matches!(
            error,
            Error::KernelTooLarge {
                kernel: 5,
                input: 4,
                ..
            }
        ),
        "{error}"
    );
    let error = max_pool2d(&x, 7, 1, 1).unwrap_err();
    assert!(
        matches!(
            error,
            Error::KernelTooLarge {
                kernel: 7,
                input: 6,
                ..
            }
        ),
        "{error}"
    );
    Ok(())
}

/// Sizes whose products are no number, or no tensor's.
#[test]
fn a_padding_that_no_memory_holds() -> Result<()> {
    for batch in [0, 1] {
        let (x, weight) = (zeros(&[batch, 1, 4, 4])?, zeros(&[2, 1, 3, 3])?);
        for padding in [1 << 30, 1 << 40, usize::MAX / 2, usize::MAX] {
            let config = Conv2dConfig {
                padding,
                ..Conv2dConfig::default()
            };
            let last = x.permute((0, 2, 3, 1))?;
            let results = [
                conv2d(&x, &weight, None, &config),
                channels_last::conv2d(&last, &weight, None, &config),
            ];
            for error in results.map(|result| result.unwrap_err()) {
                assert!(
                    matches!(
                        error,
                        Error::InvalidArgument {
                            argument: "padding",
                            ..
                        }
                    ),
                    "{padding}: {error}"
                );
            }
        }
    }
    let x = zeros(&[1, 1, 4, 4])?;
    for op in [max_pool2d, channels_last::max_pool2d] {
        let error = op(&x, usize::MAX, 1, usize::MAX / 2).unwrap_err();
        assert!(
            matches!(
                error,
                Error::InvalidArgument {
                    argument: "padding",
                    ..
                }
            ),
            "{error}"
        );
    }
    Ok(())
}

#[test]
fn target_out_of_range() -> Result<()> {
    let logits = zeros(&[3, 4])?;
    for target in [4, u32::MAX] {
        let targets = Tensor::new(&[3, target, 0], &Device::Cpu)?;
        let error = cross_entropy(&logits, &targets).unwrap_err();
        let Error::TargetOutOfRange {
            index: 1,
            target: got,
            num_classes: 4,
        } = error
        else {
            panic!("{error}")
        };
        assert_eq!(got, target);
    }
    Ok(())
}

/// The running statistics are untouched by a refused batch.
#[test]
fn too_few_values_per_channel() -> Result<()> {
    let (ones, mean, var) = (zeros(&[3])?, zeros(&[3])?, zeros(&[3])?);
    for batch in [0, 1] {
        let x = Tensor::ones((batch, 3, 1, 1), DType::F32, &Device::Cpu)?;
        let error = batch_norm_train(&x, &ones, &ones, &mean, &var, &BatchNormConfig::default()).unwrap_err();
        assert!(matches!(error, Error::TooFewValuesPerChannel { .. }), "{error}");
    }
    assert_eq!(mean.to_vec1::<f32>()?, [0.0; 3]);
    Ok(())
}

#[test]
fn empty_batch() -> Result<()> {
    let error = cross_entropy(&zeros(&[0, 4])?, &Tensor::zeros(0, DType::U32, &Device::Cpu)?).unwrap_err();
    assert!(matches!(error, Error::EmptyBatch { .. }), "{error}");
    Ok(())
}

/// A fault keeps its words on the way through candle, and candle's own errors come back as they were.
#[test]
fn errors_travel_through_candle() -> Result<()> {
    let error = Error::EmptyBatch { op: "cross_entropy" };
    assert!(
        candle_core::Error::from(error)
            .to_string()
            .contains("the batch is empty")
    );
    let error = candle_core::Error::from(Error::Candle(candle_core::Error::Msg("as it was".to_owned())));
    assert_eq!(error.to_string(), "as it was");
    Ok(())
}
