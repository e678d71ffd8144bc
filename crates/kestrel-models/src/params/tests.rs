//! Tests of the parameter store.

use super::*;

fn store(seed: u64) -> Params {
    let params = Params::new(seed);
    let vb = params.var_builder(DType::F32, &Device::Cpu);
    let unit = Init::Uniform { lo: -1., up: 1. };
    for (name, n) in [("b.weight", 3), ("a.weight", 2), ("a.running_mean", 2)] {
        let (layer, leaf) = name.split_once('.').unwrap_or((name, ""));
        vb.pp(layer).get_with_hints(n, leaf, unit).unwrap();
    }
    params
}

#[test]
fn variables_are_sorted_and_buffers_are_not_trained() {
    let params = store(0);
    let names = |vars: Vec<(String, Var)>| vars.into_iter().map(|(n, _)| n).collect::<Vec<_>>();
    assert_eq!(names(params.all()), ["a.running_mean", "a.weight", "b.weight"]);
    assert_eq!(names(params.trainable()), ["a.weight", "b.weight"]);
    assert_eq!(params.num_parameters(), 5);
}

#[test]
fn values_depend_on_seed_and_name_alone() {
    let value = |p: &Params, i: usize| p.all()[i].1.to_vec1::<f32>().unwrap();
    assert_eq!(value(&store(1), 1), value(&store(1), 1));
    assert_ne!(value(&store(1), 1), value(&store(2), 1));
    assert_ne!(value(&store(1), 0), value(&store(1), 1));
}

#[test]
fn a_bad_state_dict_names_every_fault_and_changes_nothing() {
    let params = store(0);
    let before = params.state_dict().unwrap();
    let mut dict = store(1).state_dict().unwrap();
    dict.remove("a.weight");
    dict.insert("c.weight".into(), Tensor::zeros(1, DType::F32, &Device::Cpu).unwrap());
    dict.insert(
        "b.weight".into(),
        Tensor::zeros((3, 1), DType::F32, &Device::Cpu).unwrap(),
    );
    let Err(Error::StateDict(mismatch)) = params.load_state_dict(&dict) else {
        panic!("must be refused")
    };
    assert_eq!(mismatch.missing, ["a.weight"]);
    assert_eq!(mismatch.unexpected, ["c.weight"]);
    assert_eq!(mismatch.mismatched.len(), 1);
    for (name, tensor) in params.state_dict().unwrap() {
        assert_eq!(
            tensor.to_vec1::<f32>().unwrap(),
            before[&name].to_vec1::<f32>().unwrap()
        );
    }
}

#[test]
fn pytorchs_batch_counters_are_passed_over() {
    let params = store(0);
    let mut dict = store(1).state_dict().unwrap();
    dict.insert(
        "a.num_batches_tracked".into(),
        Tensor::zeros((), DType::I64, &Device::Cpu).unwrap(),
    );
    params.load_state_dict(&dict).unwrap();
    assert_eq!(
        params.all()[1].1.to_vec1::<f32>().unwrap(),
        store(1).all()[1].1.to_vec1::<f32>().unwrap()
    );
}

#[test]
fn tiny_parameters_are_flushed_and_buffers_stay() {
    let params = store(0);
    let least = 2f32.powi(-100);
    let tensor = |values: &[f32]| Tensor::new(values, &Device::Cpu).unwrap();
    let mut dict = params.state_dict().unwrap();
    dict.insert("a.running_mean".into(), tensor(&[1e-40, 0.5]));
    dict.insert("a.weight".into(), tensor(&[-1e-40, f32::NAN]));
    dict.insert("b.weight".into(), tensor(&[least, -least, least / 2.0]));
    params.load_state_dict(&dict).unwrap();
    let values = |i: usize| params.all()[i].1.to_vec1::<f32>().unwrap();
    assert_eq!(values(2), [least, -least, least / 2.0]);
    params.flush_denormal().unwrap();
    assert_eq!(values(0), [1e-40, 0.5]);
    assert!(values(1)[0] == 0.0 && values(1)[1].is_nan());
    assert_eq!(values(2), [least, -least, 0.0]);
}
