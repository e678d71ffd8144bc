//! The composite for other devices against the kernel, and what the options come down to.

use super::*;
use candle_core::Var;

/// The loss and its gradient.
fn run(logits: &Var, loss: &Tensor) -> candle_core::Result<(f64, Vec<f64>)> {
    let grads = loss.backward()?;
    let Some(dlogits) = grads.get(logits) else {
        panic!("no gradient")
    };
    Ok((loss.to_scalar::<f64>()?, dlogits.flatten_all()?.to_vec1::<f64>()?))
}

#[track_caller]
fn assert_close(a: &(f64, Vec<f64>), b: &(f64, Vec<f64>)) {
    assert!((a.0 - b.0).abs() < 1e-13, "{} {}", a.0, b.0);
    assert_eq!(a.1.len(), b.1.len());
    for (a, b) in a.1.iter().zip(&b.1) {
        assert!((a - b).abs() < 1e-14, "{a} {b}");
    }
}

fn options() -> candle_core::Result<Vec<CrossEntropyConfig>> {
    let weights = Tensor::new(&[0.5f64, 2.0, 0.0, 1.3], &Device::Cpu)?;
    Ok([0.0, 0.1, 1.0]
        .into_iter()
        .flat_map(|label_smoothing| {
            [None, Some(weights.clone())].map(|class_weights| CrossEntropyConfig {
                label_smoothing,
                class_weights,
            })
        })
        .collect())
}

#[test]
fn composite_agrees_with_the_kernel() -> candle_core::Result<()> {
    let logits = Var::randn(0f64, 3f64, (5, 4), &Device::Cpu)?;
    let classes = Tensor::new(&[3u32, 0, 1, 1, 2], &Device::Cpu)?;
    let probabilities = candle_nn::ops::softmax(&logits.randn_like(0.0, 2.0)?, 1)?;
    for config in options()? {
        for targets in [&classes, &probabilities] {
            let fast = run(&logits, &cross_entropy_with(&logits, targets, &config)?)?;
            let slow = run(&logits, &composite::cross_entropy(&logits, targets, &config)?)?;
            assert_close(&fast, &slow);
            assert!(slow.0 > 0.0 && slow.1.iter().any(|v| *v != 0.0));
        }
    }
    Ok(())
}

/// Probabilities of 0 and 1 are a class; the means differ in what they divide by once there are weights.
#[test]
fn certain_probabilities_are_classes() -> candle_core::Result<()> {
    let logits = Var::randn(0f64, 3f64, (3, 4), &Device::Cpu)?;
    let classes = Tensor::new(&[3u32, 0, 1], &Device::Cpu)?;
    let one_hot = Tensor::new(&[[0f64, 0., 0., 1.], [1., 0., 0., 0.], [0., 1., 0., 0.]], &Device::Cpu)?;
    for config in options()? {
        // The weights of the classes above.
        let divisor = if config.class_weights.is_some() {
            1.3 + 0.5 + 2.0
        } else {
            3.0
        };
        let classes = run(&logits, &cross_entropy_with(&logits, &classes, &config)?)?;
        let soft = run(
            &logits,
            &(cross_entropy_with(&logits, &one_hot, &config)? * (3.0 / divisor))?,
        )?;
        assert_close(&classes, &soft);
    }
    Ok(())
}

#[test]
fn targets_get_no_gradient() -> candle_core::Result<()> {
    let logits = Var::randn(0f64, 1f64, (2, 3), &Device::Cpu)?;
    let targets = Var::rand(0f64, 1f64, (2, 3), &Device::Cpu)?;
    let config = CrossEntropyConfig::default();
    for loss in [
        cross_entropy_with(&logits, &targets, &config)?,
        composite::cross_entropy(&logits, &targets.detach(), &config)?,
    ] {
        let grads = loss.backward()?;
        assert!(grads.get(&targets).is_none() && grads.get(&logits).is_some());
    }
    Ok(())
}

/// Logits of −∞ are classes that are ruled out: they count only where something asks for them.
#[test]
fn a_class_that_is_ruled_out_costs_nothing_unless_it_is_the_target() -> candle_core::Result<()> {
    let logits = Var::new(&[[1f64, f64::NEG_INFINITY, 1.0]], &Device::Cpu)?;
    let (loss, dlogits) = run(&logits, &cross_entropy(&logits, &Tensor::new(&[2u32], &Device::Cpu)?)?)?;
    assert!((loss - 2f64.ln()).abs() < 1e-15, "{loss}");
    assert_eq!(dlogits, [0.5, 0.0, -0.5]);
    let loss = cross_entropy(&logits, &Tensor::new(&[1u32], &Device::Cpu)?)?;
    assert_eq!(loss.to_scalar::<f64>()?, f64::INFINITY);
    Ok(())
}

/// As in PyTorch, a mean over weights that are all 0.
#[test]
fn targets_without_weight_have_no_mean() -> candle_core::Result<()> {
    let logits = Tensor::new(&[[1f64, 2.0]], &Device::Cpu)?;
    let config = CrossEntropyConfig {
        class_weights: Some(Tensor::new(&[1f64, 0.0], &Device::Cpu)?),
        ..CrossEntropyConfig::default()
    };
    let loss = cross_entropy_with(&logits, &Tensor::new(&[1u32], &Device::Cpu)?, &config)?;
    assert!(loss.to_scalar::<f64>()?.is_nan());
    Ok(())
}
