//! The scope, the rounding itself, and every op: channels-last against channels-first, and against exact arithmetic.

use candle_core::{Device, Tensor, Var};

use super::round::{round, round_elements};
use super::{Precision, UnknownPrecision, autocast, current};
use crate::channels_last::{self, Activation, BatchNorm, to_channels_last};
use crate::random::{KeyedRng, Purpose};
use crate::{
    BatchNormConfig, Conv2dConfig, Result, batch_norm_eval, batch_norm_train, conv2d, linear, linear_relu, tape,
};

fn random(index: u64, dims: &[usize]) -> Tensor {
    let mut rng = KeyedRng::new(3, Purpose::Init, 0, index);
    let values: Vec<f32> = (0..dims.iter().product()).map(|_| rng.normal() as f32).collect();
    Tensor::from_vec(values, dims, &Device::Cpu).unwrap()
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn scopes_nest_and_end_also_by_a_panic() {
    assert_eq!(current(), Precision::F32);
    autocast(Precision::Bf16, || {
        assert_eq!(current(), Precision::Bf16);
        autocast(Precision::F32, || assert_eq!(current(), Precision::F32));
        let panicked = std::panic::catch_unwind(|| autocast(Precision::F16, || panic!("in the scope")));
        assert!(panicked.is_err());
        assert_eq!(current(), Precision::Bf16);
        // Another thread has a scope of its own.
        assert_eq!(std::thread::spawn(current).join().unwrap(), Precision::F32);
    });
    assert_eq!(current(), Precision::F32);
}

#[test]
fn names_round_trip() {
    for precision in [Precision::F32, Precision::Bf16, Precision::F16] {
        assert_eq!(precision.to_string().parse(), Ok(precision));
        assert_eq!(format!("{:?}", precision.dtype()).to_lowercase(), precision.name());
    }
    let got = "fp16".to_owned();
    assert_eq!("fp16".parse::<Precision>(), Err(UnknownPrecision { got }));
}

/// Ties go to the even neighbour; what is too large for `f16` is infinite; what is too small for it is 0.
#[test]
fn rounds_to_nearest_even() {
    let cases = [
        // 8 bits of precision: neighbours of 1 are 2^-7 apart.
        (Precision::Bf16, 1.0 + 2f32.powi(-8), 1.0),
        (Precision::Bf16, 1.0 + 3.0 * 2f32.powi(-8), 1.0 + 2f32.powi(-6)),
        (
            Precision::Bf16,
            1.0 + 2f32.powi(-8) + 2f32.powi(-20),
            1.0 + 2f32.powi(-7),
        ),
        (Precision::Bf16, 1e30, f32::from_bits(0x714a_0000)),
        (Precision::Bf16, f32::MAX, f32::INFINITY),
        // 11 bits: 2^-10 apart.
        (Precision::F16, 1.0 + 2f32.powi(-11), 1.0),
        (Precision::F16, 1.0 + 3.0 * 2f32.powi(-11), 1.0 + 2f32.powi(-9)),
        (Precision::F16, 65519.0, 65504.0),
        (Precision::F16, 65520.0, f32::INFINITY),
        (Precision::F16, -1e6, f32::NEG_INFINITY),
        (Precision::F16, 2f32.powi(-24), 2f32.powi(-24)),
        (Precision::F16, 2f32.powi(-25), 0.0),
        (Precision::F32, 1.0 + f32::EPSILON, 1.0 + f32::EPSILON),
    ];
    for (precision, from, want) in cases {
        // Wide enough for the vectors of the conversion, and for its remainder.
        let mut got = [from; 277];
        round_elements(&mut got, precision);
        let wrong = got.iter().find(|got| **got != want);
        assert_eq!(wrong, None, "{from} in {precision} is {want}");
        let mut nan = [f32::NAN; 3];
        round_elements(&mut nan, precision);
        assert!(nan.iter().all(|x| x.is_nan()));
    }
}

/// Value and gradients of the mean of `y²` of a block, by the two layouts' ops.
fn block(last: bool, groups: usize, training: bool) -> Result<Vec<Vec<f32>>> {
    let var = |index, dims: &[usize]| Var::from_tensor(&random(index, dims));
    let x = var(0, &[3, 16, 6, 5])?;
    let weight = var(1, &[16, 16 / groups, 3, 3])?;
    let (bias, gamma, beta) = (var(2, &[16])?, var(3, &[16])?, var(4, &[16])?);
    // Away from 0: what is divided by its root must stay among the numbers of f16.
    let (mean, running_var) = (random(5, &[16]), (random(6, &[16]).sqr()? + 1.0)?);
    let (fc, fc_bias) = (var(7, &[4, 16 * 30])?, var(8, &[4])?);
    let config = Conv2dConfig {
        padding: 1,
        groups,
        ..Conv2dConfig::default()
    };
    let y = if last {
        let norm = BatchNorm {
            weight: &gamma,
            bias: &beta,
            running_mean: &mean,
            running_var: &running_var,
            config: BatchNormConfig::default(),
            training,
        };
        let images = to_channels_last(&x)?;
        tape::section(|tape| {
            let x = tape.leaf(&images)?;
            let y = tape.conv2d_batch_norm(&x, &weight, Some(&bias), &config, &norm, Activation::AddRelu(&x))?;
            let y = tape.flatten(&y)?;
            tape.linear(&y, &fc, Some(&fc_bias), true)
        })?
    } else {
        let y = conv2d(&x, &weight, Some(&bias), &config)?;
        let y = if training {
            batch_norm_train(&y, &gamma, &beta, &mean, &running_var, &BatchNormConfig::default())?
        } else {
            batch_norm_eval(&y, &gamma, &beta, &mean, &running_var, 1e-5)?
        };
        let y = crate::relu(&round(&(&y + x.as_tensor())?, current())?)?;
        linear_relu(&y.flatten_from(1)?, &fc, Some(&fc_bias))?
    };
    let grads = y.sqr()?.mean_all()?.backward()?;
    let leaves = [&x, &weight, &bias, &gamma, &beta, &fc, &fc_bias];
    let grads = leaves.iter().map(|leaf| values(grads.get(leaf).unwrap()));
    Ok(std::iter::once(values(&y))
        .chain(grads)
        .chain([values(&mean), values(&running_var)])
        .collect())
}

fn distance(a: &[f32], b: &[f32]) -> f64 {
    let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
    let difference = norm(&mut a.iter().zip(b).map(|(a, b)| f64::from(a - b)));
    difference / norm(&mut b.iter().map(|b| f64::from(*b))).max(f64::MIN_POSITIVE)
}

/// The layouts round at the same places, so that they differ by what `f32` adds up in another order, and by the roundings
/// that this tips over: few, each of one unit.
#[test]
fn layouts_agree() -> Result<()> {
    for (groups, training) in [(1, true), (1, false), (2, true)] {
        let run = |precision, last| autocast(precision, || block(last, groups, training));
        let exact = run(Precision::F32, true)?;
        for (precision, unit) in [(Precision::Bf16, 2f64.powi(-8)), (Precision::F16, 2f64.powi(-11))] {
            let (last, first) = (run(precision, true)?, run(precision, false)?);
            for (i, ((last, first), exact)) in last.iter().zip(&first).zip(&exact).enumerate() {
                // A bias before batch statistics has the gradient 0, of which rounding alone is left.
                if training && i == 3 {
                    continue;
                }
                let apart = distance(last, first);
                assert!(apart <= unit / 4.0, "{precision}, {groups}, {training}: {i}: {apart}");
                // In evaluation the running statistics, the last two, stay.
                let moved = training || i < 8;
                assert!(
                    !moved || distance(last, exact) > 0.0,
                    "{precision}: {i} was not rounded"
                );
            }
        }
    }
    Ok(())
}

/// Every number that a convolution and a linear layer give is one of the type.
#[test]
fn results_and_gradients_are_of_the_type() -> Result<()> {
    for precision in [Precision::Bf16, Precision::F16] {
        let var = |index, dims: &[usize]| Var::from_tensor(&random(index, dims));
        let (x, weight, bias) = (var(0, &[2, 9, 8, 16])?, var(1, &[16, 16, 3, 3])?, var(2, &[16])?);
        let same = Conv2dConfig {
            padding: 1,
            ..Conv2dConfig::default()
        };
        let y = autocast(precision, || channels_last::conv2d(&x, &weight, Some(&bias), &same))?;
        let (rows, fc) = (var(3, &[7, 5])?, var(4, &[3, 5])?);
        let z = autocast(precision, || linear(&rows, &fc, None))?;
        // The scope has ended: the record knows its precision.
        let (of_y, of_z) = (y.sqr()?.sum_all()?.backward()?, z.sqr()?.sum_all()?.backward()?);
        let grads = [&x, &weight, &bias].map(|var| of_y.get(var).unwrap().clone());
        let more = [&rows, &fc].map(|var| of_z.get(var).unwrap().clone());
        for tensor in grads.iter().chain(&more).chain([&y, &z]) {
            let got = values(tensor);
            let mut rounded = got.clone();
            round_elements(&mut rounded, precision);
            assert!(got == rounded, "{precision}: {:?}", tensor.dims());
        }
    }
    Ok(())
}

/// `f16` overflows to infinity where `f32` does not, forward and backward; `bf16` does not.
#[test]
fn f16_overflows() -> Result<()> {
    let x = Var::new(&[[300f32, 1.0]], &Device::Cpu)?;
    let weight = Var::new(&[[300f32, 1.0], [1.0, 1.0]], &Device::Cpu)?;
    let run = |precision, scale: f64| -> Result<(Vec<f32>, Vec<f32>)> {
        let y = autocast(precision, || linear(&x, &weight, None))?;
        let grads = (&y * scale)?.sum_all()?.backward()?;
        Ok((values(&y), values(grads.get(&weight).unwrap())))
    };
    assert_eq!(
        run(Precision::F16, 1.0)?,
        (vec![f32::INFINITY, 301.0], vec![300.0, 1.0, 300.0, 1.0])
    );
    let (_, grads) = run(Precision::F16, 1000.0)?;
    assert_eq!(grads, [f32::INFINITY, 1000.0, f32::INFINITY, 1000.0]);
    let (y, grads) = run(Precision::Bf16, 1000.0)?;
    assert!(y.iter().chain(&grads).all(|x| x.is_finite()));
    Ok(())
}

/// `f64` is left alone, as PyTorch leaves it.
#[test]
fn f64_is_not_rounded() -> Result<()> {
    let x = random(0, &[3, 4]).to_dtype(candle_core::DType::F64)?;
    let weight = random(1, &[2, 4]).to_dtype(candle_core::DType::F64)?;
    let plain = linear(&x, &weight, None)?.to_vec2::<f64>()?;
    let cast = autocast(Precision::Bf16, || linear(&x, &weight, None))?.to_vec2::<f64>()?;
    assert_eq!(plain, cast);
    Ok(())
}
