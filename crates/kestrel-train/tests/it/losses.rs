//! Focal loss, clipping and averages of weights against PyTorch's.

use candle_core::{DType, Device, Tensor, Var};
use kestrel_models::Params;
use kestrel_train::grad_clip::{clip_grad_norm, clip_grad_value};
use kestrel_train::loss::{CrossEntropyLoss, FocalLoss, Loss, Targets};
use kestrel_train::optim::NamedVars;
use kestrel_train::{AverageKind, GradClip, WeightAverage};

use crate::golden::golden;
use crate::optimizers::grads;

fn distance(a: &Tensor, b: &Tensor) -> f64 {
    let (a, b) = (a.to_dtype(DType::F64).unwrap(), b.to_dtype(DType::F64).unwrap());
    (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar().unwrap()
}

#[test]
fn focal_loss_and_its_gradient_are_pytorchs() {
    let golden = golden("focal_loss");
    let classes = golden["classes"].to_dtype(DType::U32).unwrap();
    let weights = golden["weights"].to_vec1::<f64>().unwrap();
    for (gamma, name) in [(0.0, "0.0"), (0.5, "0.5"), (2.0, "2.0")] {
        for (kind, targets) in [
            ("classes", Targets::Classes(&classes)),
            ("soft", Targets::Soft(&golden["soft"])),
        ] {
            let logits = Var::from_tensor(&golden["logits"]).unwrap();
            let loss = FocalLoss::new(gamma, Some(weights.clone())).unwrap();
            let value = loss.forward(&logits, targets).unwrap();
            let error = distance(&value, &golden[&format!("{kind}.{name}.loss")]);
            assert!(error < 1e-12, "{kind} {gamma}: {error}");
            let grads = value.backward().unwrap();
            let error = distance(grads.get(&logits).unwrap(), &golden[&format!("{kind}.{name}.dlogits")]);
            assert!(error < 1e-12, "{kind} {gamma}: {error}");
        }
    }
}

#[test]
fn weights_that_do_not_fit_are_refused() {
    for weights in [vec![], vec![0.0, 0.0], vec![1.0, -1.0], vec![1.0, f64::NAN]] {
        assert!(
            CrossEntropyLoss::new(0.0, Some(weights.clone())).is_err(),
            "{weights:?}"
        );
        assert!(FocalLoss::new(2.0, Some(weights)).is_err());
    }
    assert!(CrossEntropyLoss::new(1.5, None).is_err() && FocalLoss::new(-1.0, None).is_err());
    let logits = Tensor::zeros((2, 3), DType::F32, &Device::Cpu).unwrap();
    let targets = Tensor::new(&[0u32, 1], &Device::Cpu).unwrap();
    let loss = CrossEntropyLoss::new(0.0, Some(vec![1.0, 2.0])).unwrap();
    let error = loss
        .forward(&logits, Targets::Classes(&targets))
        .unwrap_err()
        .to_string();
    assert!(error.contains("2 for 3 classes"), "{error}");
    let beyond = Tensor::new(&[0u32, 3], &Device::Cpu).unwrap();
    assert!(
        FocalLoss::new(2.0, None)
            .unwrap()
            .forward(&logits, Targets::Classes(&beyond))
            .is_err()
    );
}

#[test]
fn clipped_gradients_are_pytorchs() {
    let golden = golden("grad_clip");
    let params: NamedVars = ["a", "b", "c"]
        .map(|name| {
            (
                name.to_owned(),
                Var::from_tensor(&golden[&format!("grad.{name}")].zeros_like().unwrap()).unwrap(),
            )
        })
        .into();
    let store = || {
        grads(
            &params
                .iter()
                .map(|(n, v)| (v, golden[&format!("grad.{n}")].clone()))
                .collect::<Vec<_>>(),
        )
    };
    for (max_norm, name) in [(0.5, "0.5"), (100.0, "100.0")] {
        let mut grads = store();
        let norm = clip_grad_norm(&mut grads, &params, max_norm).unwrap();
        let want = f64::from(golden[&format!("norm.{name}")].to_scalar::<f32>().unwrap());
        assert!((norm / want - 1.0).abs() < 1e-6, "{norm} {want}");
        for (param, var) in &params {
            let error = distance(grads.get(var).unwrap(), &golden[&format!("norm.{name}.{param}")]);
            assert!(error < 1e-7, "{max_norm} {param}: {error}");
        }
    }
    let mut grads = store();
    clip_grad_value(&mut grads, &params, 0.3).unwrap();
    for (param, var) in &params {
        assert_eq!(
            distance(grads.get(var).unwrap(), &golden[&format!("value.{param}")]),
            0.0
        );
    }
    for bad in [0.0, -1.0, f64::NAN] {
        let clip = GradClip {
            max_norm: Some(bad),
            max_value: None,
        };
        assert!(clip.checked().is_err(), "{bad}");
    }
}

#[test]
fn averages_of_weights_are_pytorchs() {
    let golden = golden("averages");
    for (name, kind) in [
        ("ema", AverageKind::Ema { decay: 0.9 }),
        ("ema_fast", AverageKind::Ema { decay: 0.3 }),
        ("swa", AverageKind::Swa { start_epoch: 1 }),
    ] {
        let params = Params::new(0);
        let vb = params.var_builder(DType::F32, &Device::Cpu);
        vb.get((3, 4), "weight").unwrap();
        vb.get(3, "running_mean").unwrap();
        let mut average = WeightAverage::new(kind).unwrap();
        assert!(average.weights().is_none());
        for step in 0..10 {
            for (leaf, var) in params.all() {
                var.set(&golden[&leaf].get(step).unwrap()).unwrap();
            }
            average.update(&params).unwrap();
            for (leaf, got) in average.weights().unwrap() {
                let want = golden[&format!("{name}.{leaf}")].get(step).unwrap();
                let error = distance(got, &want);
                assert!(error < 1e-6, "{name} {leaf}, step {step}: {error}");
            }
        }
    }
    for bad in [AverageKind::Ema { decay: 1.5 }, AverageKind::Swa { start_epoch: 0 }] {
        assert!(WeightAverage::new(bad).is_err());
    }
}
