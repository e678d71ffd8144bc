//! Cross-entropy.

use candle_core::{Device, Tensor, Var};
use kestrel_kernels::{CrossEntropyConfig, cross_entropy_with};

use crate::Result;
use crate::support::{device, distance, values};

#[test]
fn cuda_cross_entropy_agrees_with_the_cpu() -> Result<()> {
    let Some(device) = device() else { return Ok(()) };
    for (rows, classes) in [(1, 2), (7, 10), (128, 10), (33, 1000)] {
        let logits = (values(&[rows, classes], 1) * 8.0)?;
        let labels: Vec<u32> = (0..rows).map(|i| (i * 7 % classes) as u32).collect();
        let labels = Tensor::new(labels, &Device::Cpu)?;
        let soft = candle_nn::ops::softmax(&values(&[rows, classes], 9), 1)?;
        let weights = (values(&[classes], 3).abs()? + 0.1)?;
        for targets in [&labels, &soft] {
            for label_smoothing in [0.0, 0.1] {
                for weighted in [false, true] {
                    let on = |device: &Device| -> Result<[Tensor; 2]> {
                        let logits = Var::from_tensor(&logits.to_device(device)?)?;
                        let config = CrossEntropyConfig {
                            label_smoothing,
                            class_weights: weighted.then(|| weights.to_device(device)).transpose()?,
                        };
                        let loss = cross_entropy_with(&logits, &targets.to_device(device)?, &config)?;
                        let grads = (&loss * 3.0)?.backward()?;
                        Ok([loss, grads.get(&logits).expect("a gradient").clone()])
                    };
                    for (got, expected) in on(&device)?.iter().zip(&on(&Device::Cpu)?) {
                        let off = distance(got, expected)?;
                        assert!(off < 3e-6, "{rows} {classes} {label_smoothing} {weighted}: {off:e}");
                    }
                }
            }
        }
    }
    Ok(())
}

#[test]
fn cuda_labels_out_of_range_make_the_loss_nan() -> Result<()> {
    let Some(device) = device() else { return Ok(()) };
    let logits = values(&[3, 4], 1).to_device(&device)?;
    let labels = Tensor::new(&[1u32, 4, 0], &device)?;
    let loss = cross_entropy_with(&logits, &labels, &CrossEntropyConfig::default())?;
    assert!(loss.to_scalar::<f32>()?.is_nan());
    Ok(())
}
