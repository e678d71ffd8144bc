//! States, groups and options of the optimisers that treat each parameter by itself.

use super::*;
use crate::optim::{Adam, Lion, Muon, RmsProp, Sgd};
use kestrel_kernels::update::{AdamConfig, LionConfig, MuonConfig, RmsPropConfig, SgdConfig};

fn var(values: &[f32]) -> Var {
    Var::from_tensor(
        &Tensor::new(values, &Device::Cpu)
            .unwrap()
            .reshape((1, values.len()))
            .unwrap(),
    )
    .unwrap()
}

fn adam(lr: f64) -> Result<(Adam, Var)> {
    let var = var(&[1.0, -2.0]);
    let config = AdamConfig {
        lr,
        ..AdamConfig::default()
    };
    Ok((Adam::new(vec![("w".into(), var.clone())], config)?, var))
}

fn descend(optimizer: &mut dyn Optimizer, var: &Var) {
    let loss = var.sqr().unwrap().sum_all().unwrap();
    optimizer.step(&loss.backward().unwrap()).unwrap();
}

fn values(var: &Var) -> Vec<f32> {
    var.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn state_round_trip_continues_bit_for_bit() {
    let make = |which: usize, params: NamedVars| -> Box<dyn Optimizer> {
        match which {
            0 => Box::new(Adam::new(params, AdamConfig::default()).unwrap()),
            1 => Box::new(
                Sgd::new(
                    params,
                    SgdConfig {
                        lr: 0.1,
                        momentum: 0.9,
                        dampening: 0.5,
                        ..SgdConfig::default()
                    },
                )
                .unwrap(),
            ),
            2 => Box::new(
                RmsProp::new(
                    params,
                    RmsPropConfig {
                        momentum: 0.9,
                        centered: true,
                        ..RmsPropConfig::default()
                    },
                )
                .unwrap(),
            ),
            3 => Box::new(Lion::new(params, LionConfig::default()).unwrap()),
            _ => Box::new(Muon::new(params, MuonConfig::default()).unwrap()),
        }
    };
    for which in 0..5 {
        let (a, b) = (var(&[1.0, -2.0]), var(&[1.0, -2.0]));
        let mut straight = make(which, vec![("w".into(), a.clone())]);
        let mut resumed = make(which, vec![("w".into(), b.clone())]);
        for _ in 0..3 {
            descend(straight.as_mut(), &a);
        }
        resumed.load_state_dict(&straight.state_dict().unwrap()).unwrap();
        b.set(&a.as_detached_tensor()).unwrap();
        for _ in 0..3 {
            descend(straight.as_mut(), &a);
            descend(resumed.as_mut(), &b);
        }
        assert_eq!(values(&a), values(&b), "{which}");
        assert_ne!(values(&a), [1.0, -2.0], "{which}");
    }
}

#[test]
fn a_state_that_does_not_fit_changes_nothing() {
    let (mut adam, var) = adam(0.1).unwrap();
    descend(&mut adam, &var);
    let before = adam.state_dict().unwrap();
    let mut bad = before.clone();
    bad.insert("step".into(), Tensor::new(&[77i64], &Device::Cpu).unwrap());
    bad.remove("exp_avg_sq.w");
    let error = adam.load_state_dict(&bad).unwrap_err().to_string();
    assert!(error.contains("exp_avg_sq.w"), "{error}");
    let after = adam.state_dict().unwrap();
    assert_eq!(
        after["step"].to_vec1::<i64>().unwrap(),
        before["step"].to_vec1::<i64>().unwrap()
    );
}

#[test]
fn values_that_make_no_sense_are_refused() {
    for lr in [f64::NAN, -1.0, f64::INFINITY] {
        assert!(adam(lr).is_err(), "{lr}");
    }
    let nesterov = SgdConfig {
        nesterov: true,
        ..SgdConfig::default()
    };
    assert!(Sgd::new(Vec::new(), nesterov).is_err());
    let alpha = RmsPropConfig {
        alpha: 1.5,
        ..RmsPropConfig::default()
    };
    assert!(RmsProp::new(Vec::new(), alpha).is_err());
}

#[test]
fn each_group_has_its_options_and_each_parameter_its_count() {
    let (a, b) = (var(&[1.0, 1.0]), var(&[1.0, 1.0]));
    let group = |name: &str, var: &Var, lr| ParamGroup {
        params: vec![(name.to_owned(), var.clone())],
        config: SgdConfig {
            lr,
            momentum: 0.5,
            ..SgdConfig::default()
        },
    };
    let mut sgd = Sgd::with_groups(vec![group("a", &a, 0.1), group("b", &b, 0.2)]).unwrap();
    assert_eq!(sgd.lrs(), [0.1, 0.2]);
    descend(&mut sgd, &a);
    assert_eq!(values(&b), [1.0, 1.0], "no gradient, no step");
    let steps = sgd.state_dict().unwrap()["step"].to_vec1::<i64>().unwrap();
    assert_eq!(steps, [1, 0]);
    let mut other = Sgd::with_groups(vec![group("a", &a, 0.1), group("b", &b, 0.2)]).unwrap();
    other.load_state_dict(&sgd.state_dict().unwrap()).unwrap();
    assert_eq!(other.state_dict().unwrap()["step"].to_vec1::<i64>().unwrap(), [1, 0]);
    sgd.set_lrs(&[0.3, 0.4]);
    assert_eq!(sgd.lrs(), [0.3, 0.4]);
    let twice = Sgd::with_groups(vec![group("a", &a, 0.1), group("a", &b, 0.2)]);
    assert!(twice.err().unwrap().to_string().contains("a twice"));
}
