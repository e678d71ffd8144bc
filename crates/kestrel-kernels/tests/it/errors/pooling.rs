//! What average pooling refuses.

use super::zeros;
use candle_core::{DType, Device, Result, Tensor};
use kestrel_kernels::{Error, adaptive_avg_pool2d, avg_pool2d};

#[test]
fn windows_that_do_not_fit() -> Result<()> {
    let x = zeros(&[1, 2, 4, 5])?;
    for (kernel, stride, padding, of) in [(0, 1, 0, "kernel"), (2, 0, 0, "stride"), (3, 1, 2, "padding")] {
        let error = avg_pool2d(&x, kernel, stride, padding, true).unwrap_err();
        assert!(
            matches!(error, Error::InvalidArgument { op: "avg_pool2d", argument, .. } if argument == of),
            "{error}"
        );
    }
    let error = avg_pool2d(&x, 7, 1, 1, true).unwrap_err();
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
    for (out, of) in [((0, 2), "out_height"), ((2, 0), "out_width")] {
        let error = adaptive_avg_pool2d(&x, out).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("adaptive_avg_pool2d: {of} must be at least 1, got 0")
        );
    }
    Ok(())
}

#[test]
fn images_of_another_shape_or_type() -> Result<()> {
    for shape in [&[2, 4, 4][..], &[1, 2, 0, 4], &[1, 0, 4, 4]] {
        let error = avg_pool2d(&zeros(shape)?, 2, 2, 0, true).unwrap_err();
        assert!(matches!(error, Error::ShapeMismatch { .. }), "{error}");
        let error = adaptive_avg_pool2d(&zeros(shape)?, (1, 1)).unwrap_err();
        assert!(matches!(error, Error::ShapeMismatch { .. }), "{error}");
    }
    let x = Tensor::zeros((1, 1, 2, 2), DType::U32, &Device::Cpu)?;
    let error = adaptive_avg_pool2d(&x, (1, 1)).unwrap_err();
    assert!(matches!(error, Error::DTypeMismatch { got: DType::U32, .. }), "{error}");
    Ok(())
}

/// No images are no error: there is nothing to divide by nothing.
#[test]
fn an_empty_batch_stays_empty() -> Result<()> {
    let x = zeros(&[0, 3, 4, 4])?;
    assert_eq!(avg_pool2d(&x, 2, 2, 0, true)?.dims(), [0, 3, 2, 2]);
    assert_eq!(adaptive_avg_pool2d(&x, (1, 1))?.dims(), [0, 3, 1, 1]);
    Ok(())
}
