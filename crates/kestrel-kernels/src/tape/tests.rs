//! Sections in f32, which are recorded, against the same sections in f64, which are candle's graph.

use candle_core::{DType, Device, Tensor, Var};

use super::*;
use crate::channels_last::{self, Activation, BatchNorm};
use crate::random::{KeyedRng, Purpose};
use crate::{BatchNormConfig, Conv2dConfig};

const SAME: Conv2dConfig = Conv2dConfig {
    stride: 1,
    padding: 1,
    dilation: 1,
    groups: 1,
};

/// Variables by name, made at their first use from their name's hash.
struct Vars {
    dtype: DType,
    made: std::cell::RefCell<Vec<(String, Var)>>,
}

impl Vars {
    fn new(dtype: DType) -> Self {
        Self {
            dtype,
            made: Vec::new().into(),
        }
    }

    /// Normal numbers times `scale`, plus `mean`.
    fn get(&self, name: &str, dims: &[usize], mean: f64, scale: f64) -> Var {
        let mut made = self.made.borrow_mut();
        if let Some((_, var)) = made.iter().find(|(known, _)| known == name) {
            return var.clone();
        }
        let seed = name
            .bytes()
            .fold(7u64, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte.into()));
        let mut rng = KeyedRng::new(seed, Purpose::Init, 0, 0);
        let values: Vec<f32> = (0..dims.iter().product())
            .map(|_| (mean + scale * rng.normal()) as f32)
            .collect();
        let tensor = Tensor::from_vec(values, dims, &Device::Cpu).unwrap();
        let var = Var::from_tensor(&tensor.to_dtype(self.dtype).unwrap()).unwrap();
        made.push((name.to_owned(), var.clone()));
        var
    }

    fn conv(
        &self,
        tape: &mut Tape,
        name: &str,
        x: &Value,
        k: usize,
        training: bool,
        activation: Activation<'_>,
    ) -> Result<Value> {
        let c = x.dims()[3];
        let get = |part: &str, dims: &[usize], mean, scale| self.get(&format!("{name}.{part}"), dims, mean, scale);
        let fan_in = (9 * c) as f64;
        let (weight, bias) = (
            get("weight", &[k, c, 3, 3], 0.0, fan_in.powf(-0.5)),
            get("bias", &[k], 0.5, 0.5),
        );
        // Some channels are turned over, so that a maximum is not the maximum of what was normalised.
        let (gamma, beta) = (get("gamma", &[k], 0.3, 1.0), get("beta", &[k], 0.2, 0.5));
        let (mean, var) = (get("mean", &[k], 0.4, 0.4), get("var", &[k], 2.0, 0.1));
        let batch_norm = BatchNorm {
            weight: &gamma,
            bias: &beta,
            running_mean: &mean,
            running_var: &var,
            config: BatchNormConfig::default(),
            training,
        };
        tape.conv2d_batch_norm(x, &weight, Some(&bias), &SAME, &batch_norm, activation)
    }
}

fn relative(got: &Tensor, want: &Tensor) -> f64 {
    assert_eq!(got.dims(), want.dims());
    let values = |t: &Tensor| {
        t.to_dtype(DType::F64)
            .unwrap()
            .flatten_all()
            .unwrap()
            .to_vec1::<f64>()
            .unwrap()
    };
    // What is not a finite number must be so in both.
    let (got, want): (Vec<f64>, Vec<f64>) = (values(got).into_iter().zip(values(want)))
        .filter(|(a, b)| a.is_finite() || a.to_bits() != b.to_bits() && !(a.is_nan() && b.is_nan()))
        .unzip();
    let norm = want.iter().map(|v| v * v).sum::<f64>().sqrt();
    let error = got.iter().zip(&want).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt();
    if error == 0.0 { 0.0 } else { error / norm }
}

type Net<'a> = &'a (dyn Fn(&Vars, &mut Tape) -> Result<Value> + Sync);

/// The result, the variables after the forward (running statistics move), and their gradients, in the order of their names.
fn run(dtype: DType, net: Net<'_>) -> Result<Vec<(String, Tensor)>> {
    let vars = Vars::new(dtype);
    let y = section(|tape| net(&vars, tape))?;
    // Weighted, so that the gradient of the result is not the same everywhere.
    let weights = vars.get("weights of the loss", y.dims(), 0.3, 1.0).detach();
    let loss = y.mul(&weights)?.sum_all()?;
    let grads = loss.backward()?;
    let moved = backward(&loss)?;
    let alone = for_backward(|| {
        let vars = Vars::new(dtype);
        let y = section(|tape| net(&vars, tape))?;
        let grads = backward(&y.mul(&weights)?.sum_all()?)?;
        Result::Ok((vars, grads))
    })?;
    let mut made = vars.made.into_inner();
    made.sort_by(|(a, _), (b, _)| a.cmp(b));
    let mut tensors = vec![("result".to_owned(), y)];
    for (name, var) in made {
        assert_eq!(grads.get(&var).is_some(), moved.get(&var).is_some(), "{name}");
        if let Some(grad) = grads.get(&var) {
            assert_eq!(relative(moved.get(&var).unwrap(), grad), 0.0, "{name}");
            let same = alone.0.get(&name, var.dims(), 0.0, 0.0);
            assert_eq!(relative(alone.1.get(&same).unwrap(), grad), 0.0, "{name} alone");
            tensors.push((format!("gradient of {name}"), grad.clone()));
        }
        tensors.push((name, var.as_detached_tensor()));
    }
    Ok(tensors)
}

/// Of a convolution's bias before batch statistics the gradient is 0; candle's graph has rounding noise there.
fn check(net: Net<'_>, bound: f64) -> Result<()> {
    let (fast, slow) = (run(DType::F32, net)?, run(DType::F64, net)?);
    let names = |tensors: &[(String, Tensor)]| tensors.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&fast), names(&slow));
    for ((name, fast), (_, slow)) in fast.iter().zip(&slow) {
        if name.starts_with("gradient") && name.ends_with(".bias") && relative(fast, slow) > bound {
            assert!(slow.abs()?.max_all()?.to_scalar::<f64>()? < 1e-10, "{name}");
            continue;
        }
        assert!(relative(fast, slow) <= bound, "{name}: {:.1e}", relative(fast, slow));
    }
    Ok(())
}

/// Two convolutions, the second of which normalises on load, and pooling, which does too.
fn block(vars: &Vars, tape: &mut Tape, dims: &[usize; 4], k: usize, training: bool) -> Result<Value> {
    let x = tape.leaf(&vars.get("x", dims, 0.0, 1.0))?;
    let x = vars.conv(tape, "conv1", &x, k, training, Activation::Relu)?;
    let x = vars.conv(tape, "conv2", &x, k + 1, training, Activation::Relu)?;
    tape.max_pool2d(&x, 2, 2, 0)
}

#[test]
fn a_block_agrees_with_candles_graph() -> Result<()> {
    for (dims, k) in [
        ([3, 8, 8, 16], 32),
        ([2, 7, 9, 9], 17),
        ([2, 2, 3, 8], 8),
        ([1, 6, 5, 3], 16),
        ([2, 5, 4, 70], 65),
    ] {
        for training in [true, false] {
            check(&|vars, tape| block(vars, tape, &dims, k, training), 2e-5)?;
        }
    }
    Ok(())
}

/// A gelu after batch norm is written; it is read by a convolution, by pooling and as a residual, and stands by itself.
#[test]
fn gelu_blocks_agree_with_candles_graph() -> Result<()> {
    for training in [true, false] {
        check(
            &|vars, tape| {
                let x = tape.leaf(&vars.get("x", &[2, 7, 8, 9], 0.0, 1.0))?;
                let x = tape.gelu(&x)?;
                let x = vars.conv(tape, "conv1", &x, 17, training, Activation::Gelu)?;
                let y = vars.conv(tape, "conv2", &x, 17, training, Activation::AddRelu(&x))?;
                let y = tape.max_pool2d(&y, 2, 2, 0)?;
                let y = vars.conv(tape, "conv3", &y, 8, training, Activation::Gelu)?;
                tape.max_pool2d(&y, 3, 3, 0)
            },
            2e-5,
        )?;
    }
    Ok(())
}

/// A first layer, whose input needs no gradient.
#[test]
fn a_first_layer_agrees_with_candles_graph() -> Result<()> {
    check(
        &|vars, tape| {
            let x = tape.leaf(&vars.get("x", &[3, 8, 6, 3], 0.0, 1.0).detach())?;
            let x = vars.conv(tape, "conv1", &x, 16, true, Activation::Relu)?;
            tape.max_pool2d(&x, 3, 2, 1)
        },
        1e-5,
    )
}

/// Identity and normalised residuals, and a value that three ops read.
#[test]
fn residual_blocks_agree_with_candles_graph() -> Result<()> {
    for training in [true, false] {
        check(
            &|vars, tape| {
                let x = tape.leaf(&vars.get("x", &[2, 6, 5, 9], 0.0, 1.0))?;
                let y = vars.conv(tape, "a1", &x, 12, training, Activation::Relu)?;
                let shortcut = vars.conv(tape, "down", &x, 12, training, Activation::None)?;
                let y = vars.conv(tape, "a2", &y, 12, training, Activation::AddRelu(&shortcut))?;
                let z = vars.conv(tape, "b1", &y, 12, training, Activation::Relu)?;
                vars.conv(tape, "b2", &z, 12, training, Activation::AddRelu(&y))
            },
            2e-5,
        )?;
    }
    Ok(())
}

#[test]
fn a_normalised_value_may_be_read_by_any_ops() -> Result<()> {
    check(
        &|vars, tape| {
            let x = tape.leaf(&vars.get("x", &[2, 6, 4, 8], 0.0, 1.0))?;
            let y = vars.conv(tape, "conv", &x, 8, true, Activation::Relu)?;
            let conv = vars.conv(tape, "next", &y, 8, true, Activation::None)?;
            let pool = tape.max_pool2d(&y, 3, 1, 1)?;
            // A residual with a relu of its own is made whole.
            let sum = vars.conv(tape, "last", &pool, 8, true, Activation::AddRelu(&y))?;
            tape.candle(&[&conv, &sum, &y], |t| Ok(((&t[0] * &t[1])? + &t[2])?))
        },
        2e-5,
    )
}

#[test]
fn candles_ops_take_part() -> Result<()> {
    check(
        &|vars, tape| {
            let before = vars.get("before", &[2, 4, 4, 8], 0.0, 1.0);
            // A leaf with a graph of its own.
            let x = tape.leaf(&before.sqr()?)?;
            let scale = vars.get("scale", &[8], 1.0, 0.3);
            let y = vars.conv(tape, "conv", &x, 8, true, Activation::Relu)?;
            let y = tape.candle(&[&y], |y| Ok(y[0].broadcast_mul(&scale)?.tanh()?))?;
            // A convolution that no kernel takes.
            let weight = vars.get("strided", &[4, 2, 3, 3], 0.0, 0.3);
            let config = Conv2dConfig {
                stride: 2,
                groups: 4,
                ..SAME
            };
            tape.conv2d(&y, &weight, None, &config)
        },
        2e-5,
    )
}

/// Convolutions with a relu and no batch norm, as VGG's, and the sum of a pre-activation block, in every form of a value.
#[test]
fn relu_and_add_agree_with_candles_graph() -> Result<()> {
    check(
        &|vars, tape| {
            let x = tape.leaf(&vars.get("x", &[2, 6, 8, 5], 0.0, 1.0))?;
            let weight = |name, c: usize| vars.get(name, &[9, c, 3, 3], 0.0, (c as f64 * 9.0).powf(-0.5));
            let y = tape.conv2d(&x, &weight("first", 5), None, &SAME)?;
            let y = tape.relu(&y)?;
            let z = tape.conv2d(&y, &weight("second", 9), None, &SAME)?;
            let z = tape.add(&z, &y)?;
            // Of a value that is still to be normalised, of one with itself, and of one from candle's graph.
            let normalized = vars.conv(tape, "third", &z, 9, true, Activation::None)?;
            let rectified = tape.relu(&normalized)?;
            let sum = tape.add(&normalized, &rectified)?;
            let sum = tape.add(&sum, &sum)?;
            let graph = tape.in_graph(vars.get("graph", &[2, 6, 8, 9], 0.0, 1.0).sqr()?);
            let sum = tape.add(&graph, &sum)?;
            let constant = tape.leaf(&vars.get("constant", &[2, 6, 8, 9], 0.0, 1.0).detach())?;
            let sum = tape.add(&constant, &sum)?;
            tape.relu(&sum)
        },
        2e-5,
    )
}

#[test]
fn add_refuses_other_shapes_and_types() -> Result<()> {
    let zeros = |dims: &[usize], dtype| Tensor::zeros(dims, dtype, &Device::Cpu);
    for (other, message) in [
        (zeros(&[3, 2], DType::F32)?, "add: expected shape [2, 3], got [3, 2]"),
        (zeros(&[2, 3], DType::F64)?, "add: expected F32, got F64"),
    ] {
        let result = section(|tape| {
            let (a, b) = (tape.leaf(&zeros(&[2, 3], DType::F32)?)?, tape.leaf(&other)?);
            tape.add(&a, &b)
        });
        assert_eq!(
            result.map_err(|error| error.to_string()).err().as_deref(),
            Some(message)
        );
    }
    Ok(())
}

/// Sections within [`Tape::candle`]: the inner one's leaf is a variable that only the outer one knows.
#[test]
fn a_section_within_a_section_passes_gradients_on() -> Result<()> {
    check(
        &|vars, tape| {
            let x = tape.leaf(&vars.get("x", &[2, 8, 6, 8], 0.0, 1.0))?;
            let y = vars.conv(tape, "conv", &x, 8, true, Activation::Relu)?;
            let y = tape.candle(&[&y], |y| channels_last::max_pool2d(&y[0], 2, 2, 0))?;
            let weight = vars.get("inner", &[8, 8, 3, 3], 0.0, 0.1);
            // Read by an inner section and by candle.
            let y = tape.candle(&[&y], |y| {
                let z = channels_last::conv2d(&y[0], &weight, None, &SAME)?;
                Ok((z + &y[0])?)
            })?;
            vars.conv(tape, "last", &y, 8, true, Activation::Relu)
        },
        2e-5,
    )
}

#[test]
fn inference_folds_batch_norm_and_keeps_no_graph() -> Result<()> {
    let net = |vars: &Vars, tape: &mut Tape| {
        let x = tape.leaf(&vars.get("x", &[2, 6, 5, 3], 0.0, 1.0))?;
        let x = vars.conv(tape, "conv0", &x, 9, false, Activation::Relu)?;
        let y = vars.conv(tape, "conv1", &x, 9, false, Activation::None)?;
        let y = vars.conv(tape, "conv2", &y, 9, false, Activation::AddRelu(&x))?;
        let y = vars.conv(tape, "conv3", &y, 9, false, Activation::Gelu)?;
        tape.max_pool2d(&y, 2, 2, 0)
    };
    let fast = inference(|tape| net(&Vars::new(DType::F32), tape))?;
    let exact = inference(|tape| net(&Vars::new(DType::F64), tape))?;
    let recorded = section(|tape| net(&Vars::new(DType::F32), tape))?;
    assert!(!fast.track_op() && !exact.track_op() && recorded.track_op());
    assert!(relative(&fast, &exact) < 2e-6, "{:.1e}", relative(&fast, &exact));
    assert!(
        relative(&recorded, &exact) < 2e-6,
        "{:.1e}",
        relative(&recorded, &exact)
    );
    Ok(())
}

#[test]
fn results_are_bit_equal_for_any_number_of_threads() -> Result<()> {
    let bits = |threads: usize| -> Vec<Vec<u32>> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let net = |vars: &Vars, tape: &mut Tape| block(vars, tape, &[9, 18, 22, 24], 40, true);
        let tensors = pool.install(|| run(DType::F32, &net).unwrap());
        let values = |(_, t): &(String, Tensor)| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        tensors
            .iter()
            .map(|t| values(t).into_iter().map(f32::to_bits).collect())
            .collect()
    };
    let one = bits(1);
    for threads in [2, 4, 4] {
        assert!(bits(threads) == one, "{threads} threads differ from one");
    }
    Ok(())
}

#[test]
fn backward_may_run_twice() -> Result<()> {
    let vars = Vars::new(DType::F32);
    let loss = section(|tape| block(&vars, tape, &[2, 6, 6, 8], 8, true))?
        .sqr()?
        .sum_all()?;
    let x = vars.get("x", &[], 0.0, 0.0);
    let gradient = || -> Result<Vec<f32>> {
        let grads = loss.backward()?;
        Ok(grads.get(&x).unwrap().flatten_all()?.to_vec1()?)
    };
    let first = gradient()?;
    assert!(first.iter().any(|g| *g != 0.0));
    assert_eq!(first, gradient()?);
    Ok(())
}

/// The section gives its result's memory away, but not what the backward reads, nor the caller's.
#[test]
fn results_that_others_hold_are_copied() -> Result<()> {
    let x = Vars::new(DType::F32).get("x", &[2, 3], 0.0, 1.0);
    let same = section(|tape| tape.leaf(&x))?;
    assert_eq!(relative(&same, &x), 0.0);
    assert_eq!(x.flatten_all()?.to_vec1::<f32>()?.len(), 6);
    let doubled = section(|tape| {
        let leaf = tape.leaf(&x)?;
        tape.candle(&[&leaf], |t| Ok(t[0].sqr()?))
    })?;
    let grads = doubled.sum_all()?.backward()?;
    assert!(relative(grads.get(&x).unwrap(), &(x.as_tensor() * 2.0)?) < 1e-6);
    Ok(())
}

/// What the caller took out of a section, as a tensor or as a value, stays whole when the section gives its result away.
#[test]
fn what_leaves_a_section_twice_is_whole_in_both_places() -> Result<()> {
    let vars = Vars::new(DType::F32);
    let image = vars.get("image", &[2, 4, 4, 8], 0.0, 1.0);
    let kernel = vars.get("kernel", &[5, 8, 3, 3], 0.0, 0.1);
    let (rows, weight) = (
        vars.get("rows", &[3, 8], 0.0, 1.0),
        vars.get("weight", &[4, 8], 0.0, 0.5),
    );
    let key = crate::DropoutKey {
        seed: 1,
        step: 2,
        layer: 3,
    };
    type Op<'a> = &'a dyn Fn(&mut Tape) -> Result<Value>;
    let image_leaf = |tape: &mut Tape| tape.leaf(&image);
    let ops: [Op<'_>; 5] = [
        &|tape| {
            let x = tape.leaf(&rows)?;
            tape.linear(&x, &weight, None, false)
        },
        &|tape| {
            let x = image_leaf(tape)?;
            tape.conv2d(&x, &kernel, None, &SAME)
        },
        &|tape| {
            let x = image_leaf(tape)?;
            tape.max_pool2d(&x, 2, 2, 0)
        },
        &|tape| {
            let x = image_leaf(tape)?;
            tape.flatten(&x)
        },
        &|tape| {
            let x = image_leaf(tape)?;
            tape.dropout(&x, 0.5, key)
        },
    ];
    for (number, op) in ops.into_iter().enumerate() {
        let (mut taken, mut kept) = (None, None);
        let alone = section(op)?;
        let with_tensor = section(|tape| {
            let y = op(tape)?;
            taken = Some(y.tensor()?);
            Ok(y)
        })?;
        let with_value = section(|tape| {
            let y = op(tape)?;
            kept = Some(y.clone());
            Ok(y)
        })?;
        let kept = kept.unwrap().tensor()?;
        for other in [taken.unwrap(), kept, with_tensor, with_value] {
            let elements = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert_eq!(elements(&other), elements(&alone), "op {number}");
        }
    }
    Ok(())
}

#[test]
fn a_leaf_that_leads_nowhere_has_no_gradient() -> Result<()> {
    let vars = Vars::new(DType::F32);
    let (x, unused) = (vars.get("x", &[3], 0.0, 1.0), vars.get("unused", &[3], 0.0, 1.0));
    let y = section(|tape| {
        tape.leaf(&unused)?;
        tape.leaf(&unused.sqr()?)?;
        tape.leaf(&x)
    })?;
    let grads = y.sum_all()?.backward()?;
    assert_eq!(grads.get(&x).unwrap().to_vec1::<f32>()?, [1.0; 3]);
    assert!(
        grads
            .get(&unused)
            .is_none_or(|g| g.to_vec1::<f32>().unwrap() == [0.0; 3])
    );
    Ok(())
}

#[test]
fn another_tapes_value_is_refused() -> Result<()> {
    let x = Vars::new(DType::F32).get("x", &[1, 2, 2, 8], 0.0, 1.0);
    let mut other = None;
    section(|tape| {
        let value = tape.leaf(&x)?;
        other = Some(value.clone());
        Ok(value)
    })?;
    let other = other.unwrap();
    let refused = |result: Result<Tensor>| matches!(result, Err(Error::ForeignValue));
    assert!(refused(section(|tape| tape.max_pool2d(&other, 2, 2, 0))));
    assert!(refused(section(|tape| tape.conv2d(&other, &x, None, &SAME))));
    assert!(refused(section(|tape| tape.candle(&[&other], |t| Ok(t[0].clone())))));
    assert!(refused(section(|_| Ok(other.clone()))));
    Ok(())
}

/// A variable that two sections and one of candle's ops lead to.
#[test]
fn gradients_of_sections_and_of_candles_ops_add_up() -> Result<()> {
    let x = Vars::new(DType::F32).get("x", &[5], 0.0, 1.0);
    let leaf = || section(|tape| tape.leaf(&x));
    let loss = ((leaf()? + leaf()?)? * x.as_tensor())?.sum_all()?;
    for grads in [backward(&loss)?, loss.backward()?] {
        assert!(relative(grads.get(&x).unwrap(), &(x.as_tensor() * 4.0)?) < 1e-6);
    }
    Ok(())
}

/// The end of a net: average pooling or flattening, fully connected layers, dropout.
#[test]
fn the_end_of_a_net_agrees_with_candles_graph() -> Result<()> {
    let key = crate::DropoutKey {
        seed: 1,
        step: 2,
        layer: 3,
    };
    for size in [None, Some((1, 1)), Some((2, 3))] {
        check(
            &|vars, tape| {
                let x = tape.leaf(&vars.get("x", &[3, 5, 4, 9], 0.0, 1.0))?;
                let x = vars.conv(tape, "conv", &x, 17, true, Activation::Relu)?;
                let x = match size {
                    Some(size) => tape.adaptive_avg_pool2d(&x, size)?,
                    None => tape.avg_pool2d(&x, 3, 2, 1, false)?,
                };
                let x = tape.flatten(&x)?;
                let inputs = x.dims()[1];
                let get = |name, dims: &[usize]| vars.get(name, dims, 0.1, (inputs as f64).powf(-0.5));
                let (w1, b1, w2) = (get("w1", &[33, inputs]), get("b1", &[33]), get("w2", &[4, 33]));
                let x = tape.linear(&x, &w1, Some(&b1), true)?;
                let x = tape.dropout(&x, 0.3, key)?;
                tape.linear(&x, &w2, None, false)
            },
            2e-5,
        )?;
    }
    Ok(())
}

/// The center of a convolution's sums is the running mean, which may be anywhere at first.
#[test]
fn a_running_mean_far_from_the_mean_costs_no_digits() -> Result<()> {
    for far in [0.0, 4.0, 15.0, 1e2, -1e4, 1e20, f64::NAN, f64::INFINITY] {
        check(
            &|vars, tape| {
                let x = tape.leaf(&vars.get("x", &[3, 6, 6, 8], 0.0, 1.0))?;
                vars.get("conv.mean", &[16], far, 1.0);
                vars.conv(tape, "conv", &x, 16, true, Activation::Relu)
            },
            1e-5,
        )?;
    }
    Ok(())
}
