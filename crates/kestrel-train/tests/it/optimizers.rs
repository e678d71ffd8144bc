//! Every optimiser against PyTorch's, step by step, over two parameter groups.

use std::collections::HashMap;

use candle_core::backprop::GradStore;
use candle_core::{Tensor, Var};
use kestrel_kernels::update::{AdamConfig, AdjustLr, LionConfig, MuonConfig, RmsPropConfig, SgdConfig};
use kestrel_train::optim::{
    Adam, AlphaDecay, Combined, Lion, Lookahead, LookaheadConfig, Muon, NamedVars, Optimizer, ParamGroup, RmsProp, Sgd,
    no_decay_on_biases_and_norms,
};

use crate::golden::golden;

fn var(tensor: &Tensor) -> Var {
    Var::from_tensor(&tensor.copy().unwrap()).unwrap()
}

/// A store that holds the given gradients.
pub(crate) fn grads(of: &[(&Var, Tensor)]) -> GradStore {
    let mut loss = Tensor::zeros((), of[0].1.dtype(), of[0].1.device()).unwrap();
    for (var, grad) in of {
        loss = (loss + (var.as_tensor() * grad).unwrap().sum_all().unwrap()).unwrap();
    }
    loss.backward().unwrap()
}

/// Largest difference over largest value.
fn error(got: &Tensor, want: &Tensor) -> f64 {
    let max = |t: Tensor| f64::from(t.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap());
    max((got - want).unwrap()) / max(want.clone())
}

/// Runs an optimiser over the golden gradients of `names` and returns its largest error.
fn largest_error(
    golden: &HashMap<String, Tensor>,
    case: &str,
    names: [&str; 2],
    make: impl Fn(Vec<(String, Var)>) -> Box<dyn Optimizer>,
) -> f64 {
    let vars: NamedVars = names
        .iter()
        .map(|name| ((*name).to_owned(), var(&golden[*name])))
        .collect();
    let mut optimizer = make(vars.clone());
    let mut largest = 0f64;
    for step in 0..7 {
        let of: Vec<_> = vars
            .iter()
            .map(|(name, var)| (var, golden[&format!("grad.{name}")].get(step).unwrap()))
            .collect();
        optimizer.step(&grads(&of)).unwrap();
        for (name, var) in &vars {
            let want = golden[&format!("{case}.{name}")].get(step).unwrap();
            largest = largest.max(error(var, &want));
        }
    }
    largest
}

/// The two groups of the golden file: weight decay and the optimiser's rate, and neither.
fn groups<C>(vars: NamedVars, config: impl Fn(Option<f64>, f64) -> C) -> Vec<ParamGroup<C>> {
    let (decayed, others) = no_decay_on_biases_and_norms(vars);
    assert_eq!((decayed.len(), others.len()), (1, 1));
    vec![
        ParamGroup {
            params: decayed,
            config: config(None, 0.05),
        },
        ParamGroup {
            params: others,
            config: config(Some(0.02), 0.0),
        },
    ]
}

fn sgd(vars: NamedVars, momentum: f64, dampening: f64, nesterov: bool) -> Box<dyn Optimizer> {
    let groups = groups(vars, |lr, weight_decay| SgdConfig {
        lr: lr.unwrap_or(0.1),
        momentum,
        dampening,
        nesterov,
        weight_decay,
    });
    Box::new(Sgd::with_groups(groups).unwrap())
}

fn adam(vars: NamedVars, decoupled: bool) -> Box<dyn Optimizer> {
    let groups = groups(vars, |lr, weight_decay| AdamConfig {
        lr: lr.unwrap_or(0.01),
        beta1: 0.8,
        beta2: 0.95,
        weight_decay,
        decoupled,
        ..AdamConfig::default()
    });
    Box::new(Adam::with_groups(groups).unwrap())
}

fn rmsprop(vars: NamedVars, momentum: f64, centered: bool) -> Box<dyn Optimizer> {
    let groups = groups(vars, |lr, weight_decay| RmsPropConfig {
        lr: lr.unwrap_or(0.01),
        alpha: 0.9,
        momentum,
        centered,
        weight_decay,
        ..RmsPropConfig::default()
    });
    Box::new(RmsProp::with_groups(groups).unwrap())
}

fn lion(vars: NamedVars) -> Box<dyn Optimizer> {
    let groups = groups(vars, |lr, weight_decay| LionConfig {
        lr: lr.unwrap_or(0.01),
        weight_decay,
        ..LionConfig::default()
    });
    Box::new(Lion::with_groups(groups).unwrap())
}

#[test]
fn every_step_of_every_optimiser_is_pytorchs() {
    let golden = golden("optimizers");
    type Make = fn(NamedVars) -> Box<dyn Optimizer>;
    let cases: [(&str, Make); 10] = [
        ("sgd", |v| sgd(v, 0.0, 0.0, false)),
        ("sgd_momentum", |v| sgd(v, 0.9, 0.2, false)),
        ("sgd_nesterov", |v| sgd(v, 0.9, 0.0, true)),
        ("adam", |v| adam(v, false)),
        ("adamw", |v| adam(v, true)),
        ("rmsprop", |v| rmsprop(v, 0.0, false)),
        ("rmsprop_centered", |v| rmsprop(v, 0.8, true)),
        ("lion", lion),
        ("lookahead", |v| {
            let config = LookaheadConfig {
                k: 3,
                ..LookaheadConfig::default()
            };
            Box::new(Lookahead::new(sgd(v, 0.9, 0.0, false), config).unwrap())
        }),
        ("lookahead_decay", |v| {
            let decay = Some(AlphaDecay {
                total_steps: 7,
                power: 3.0,
            });
            let config = LookaheadConfig {
                k: 2,
                alpha: 0.2,
                decay,
            };
            Box::new(Lookahead::new(sgd(v, 0.9, 0.0, false), config).unwrap())
        }),
    ];
    for (case, make) in cases {
        let error = largest_error(&golden, case, ["a", "b"], make);
        assert!(error < 1e-6, "{case}: {error}");
    }
}

fn muon(vars: NamedVars, plain: bool) -> Box<dyn Optimizer> {
    let config = if plain {
        MuonConfig {
            lr: 0.02,
            weight_decay: 0.0,
            momentum: 0.4,
            nesterov: false,
            adjust_lr: AdjustLr::MatchRmsAdamw,
            ..MuonConfig::default()
        }
    } else {
        MuonConfig {
            lr: 0.02,
            weight_decay: 0.1,
            ..MuonConfig::default()
        }
    };
    Box::new(Muon::new(vars, config).unwrap())
}

/// With PyTorch's iteration kept in `f32` to rounding, and near to it as it is, in bfloat16.
#[test]
fn every_step_of_muon_is_pytorchs() {
    let golden = golden("optimizers");
    for (name, plain) in [("muon", false), ("muon_plain", true)] {
        let error = largest_error(&golden, name, ["wide", "tall"], |v| muon(v, plain));
        assert!(error < 1e-5, "{name}: {error}");
        let rounded = largest_error(&golden, &format!("{name}_bfloat16"), ["wide", "tall"], |v| {
            muon(v, plain)
        });
        assert!(rounded < 2e-2 && rounded > 1e-5, "{name}: {rounded}");
    }
}

/// Buffers follow as the parameters do, and are in the state.
#[test]
fn lookahead_takes_buffers_along() {
    let of = |values: [f32; 2]| Var::new(&values, &candle_core::Device::Cpu).unwrap();
    let build = || {
        let (param, buffer) = (of([0.0, 0.0]), of([0.0, 4.0]));
        let inner = Box::new(Sgd::new(vec![("w".to_owned(), param)], SgdConfig::default()).unwrap());
        let config = LookaheadConfig {
            k: 2,
            ..LookaheadConfig::default()
        };
        let lookahead = Lookahead::new(inner, config).unwrap();
        let buffers = vec![("running_mean".to_owned(), buffer.clone())];
        (buffer, lookahead.with_buffers(buffers).unwrap())
    };
    let (buffer, mut lookahead) = build();
    let other_var = of([0.0, 0.0]);
    let none = grads(&[(&other_var, other_var.zeros_like().unwrap())]);
    buffer.set(&of([2.0, 2.0])).unwrap();
    lookahead.step(&none).unwrap();
    assert_eq!(buffer.to_vec1::<f32>().unwrap(), [2.0, 2.0]);
    let (other, mut resumed) = build();
    resumed.load_state_dict(&lookahead.state_dict().unwrap()).unwrap();
    other.set(&buffer).unwrap();
    for (buffer, lookahead) in [(&buffer, &mut lookahead), (&other, &mut resumed)] {
        lookahead.step(&none).unwrap();
        assert_eq!(buffer.to_vec1::<f32>().unwrap(), [1.0, 3.0]);
    }
}

/// The convolution weights by Muon and the rest by AdamW, each as alone.
#[test]
fn combined_optimisers_move_their_own_and_resume() {
    let golden = golden("optimizers");
    let build = || {
        let vars: NamedVars = ["a", "b", "wide", "tall"]
            .map(|n| (n.to_owned(), var(&golden[n])))
            .into();
        let (convs, rest) = Muon::split(vars.clone());
        let parts = vec![muon(convs, false), adam(rest, true)];
        (vars, Combined::new(parts).unwrap())
    };
    let (vars, mut combined) = build();
    assert_eq!(combined.lrs(), [0.02, 0.01, 0.02]);
    let (others, mut resumed) = build();
    let step = |vars: &NamedVars, combined: &mut Combined, step: usize| {
        let of: Vec<_> = vars
            .iter()
            .map(|(name, var)| (var, golden[&format!("grad.{name}")].get(step).unwrap()))
            .collect();
        combined.step(&grads(&of)).unwrap();
    };
    for i in 0..7 {
        step(&vars, &mut combined, i);
        if i == 3 {
            resumed.load_state_dict(&combined.state_dict().unwrap()).unwrap();
            for ((_, to), (_, from)) in others.iter().zip(&vars) {
                to.set(&from.as_detached_tensor()).unwrap();
            }
        } else if i > 3 {
            step(&others, &mut resumed, i);
        }
        for (name, var) in &vars {
            let case = if matches!(name.as_str(), "a" | "b") {
                "adamw"
            } else {
                "muon"
            };
            let want = golden[&format!("{case}.{name}")].get(i).unwrap();
            assert!(error(var, &want) < 1e-5, "{name}, step {i}");
        }
    }
    for ((name, a), (_, b)) in vars.iter().zip(&others) {
        assert_eq!(error(a, b), 0.0, "{name}");
    }
    combined.set_lrs(&[0.5, 0.6, 0.7]);
    assert_eq!(combined.lrs(), [0.5, 0.6, 0.7]);
    // What does not fit the second part leaves the first as it was.
    let before = combined.state_dict().unwrap();
    let mut bad = build().1.state_dict().unwrap();
    bad.remove("1.exp_avg.a");
    assert!(combined.load_state_dict(&bad).is_err());
    let after = combined.state_dict().unwrap();
    assert_eq!(
        error(&after["0.momentum_buffer.wide"], &before["0.momentum_buffer.wide"]),
        0.0
    );
    let twice = vec![
        sgd(vec![vars[0].clone(), vars[1].clone()], 0.0, 0.0, false),
        lion(vars[..2].to_vec()),
    ];
    assert!(Combined::new(twice).is_err());
}

/// Several pieces of work, on one, two and four threads.
#[test]
fn the_thread_count_changes_no_bit() {
    let wave = |shape: &[usize], seed: f32| {
        let count = shape.iter().product::<usize>();
        let values: Vec<f32> = (0..count).map(|i| (i as f32 * seed).sin()).collect();
        Tensor::from_vec(values, shape, &candle_core::Device::Cpu).unwrap()
    };
    let run = |which: usize| -> Vec<u32> {
        let vars: NamedVars = [("a", vec![50, 40, 5, 5]), ("b", vec![20_011])]
            .map(|(name, shape)| (name.to_owned(), var(&wave(&shape, 1.7))))
            .into();
        let mut optimizer: Box<dyn Optimizer> = match which {
            0 => lion(vars.clone()),
            1 => rmsprop(vars.clone(), 0.9, true),
            2 => adam(vars.clone(), true),
            3 => muon(vars[..1].to_vec(), false),
            _ => {
                let config = LookaheadConfig {
                    k: 2,
                    ..LookaheadConfig::default()
                };
                Box::new(Lookahead::new(sgd(vars.clone(), 0.9, 0.0, true), config).unwrap())
            }
        };
        for seed in [0.3, 0.9] {
            let of: Vec<_> = vars.iter().map(|(_, var)| (var, wave(var.dims(), seed))).collect();
            let mut store = grads(&of);
            kestrel_train::grad_clip::clip_grad_norm(&mut store, &vars, 1.0).unwrap();
            optimizer.step(&store).unwrap();
        }
        let bits = |(_, var): &(String, Var)| var.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        vars.iter().flat_map(bits).map(f32::to_bits).collect()
    };
    for which in 0..5 {
        let with = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| run(which))
        };
        let one = with(1);
        assert!(with(2) == one && with(4) == one, "{which}");
    }
}
