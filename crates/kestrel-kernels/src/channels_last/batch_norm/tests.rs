//! The fused op against the channels-first pair, in f32 and in f64, and against itself on other numbers of threads.

use super::*;
use candle_core::{DType, Device, Var};

const CONFIG: BatchNormConfig = BatchNormConfig {
    eps: 1e-3,
    momentum: 0.3,
};

/// One channel, odd channels and positions, one image, and several pieces of work with a ragged end.
const SHAPES: [[usize; 4]; 7] = [
    [5, 3, 7, 1],
    [1, 5, 5, 3],
    [3, 3, 5, 17],
    [2, 8, 8, 64],
    [7, 33, 31, 17],
    [3, 41, 43, 64],
    [2, 3, 3, 200],
];

fn channels_first(x: &Tensor) -> Result<Tensor> {
    Ok(x.permute((0, 3, 1, 2))?)
}

fn channels_last(y: &Tensor) -> Result<Tensor> {
    Ok(y.permute((0, 2, 3, 1))?.contiguous()?)
}

/// Values about `mean` that look random and are the same in every run.
fn values(seed: u64, shape: &[usize], mean: f64) -> candle_core::Result<Var> {
    let scatter = |index: u64| {
        let mixed = (index + (seed << 32)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mixed = (mixed ^ (mixed >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mean + ((mixed >> 40) as f64 / (1u64 << 23) as f64 - 1.0) * 2.0
    };
    let values: Vec<f32> = (0..shape.iter().product::<usize>() as u64)
        .map(|index| scatter(index) as f32)
        .collect();
    Var::from_vec(values, shape, &Device::Cpu)
}

/// An op of `x`, `weight`, `bias` and the running mean and variance.
type Op<'a> = &'a dyn Fn(&Tensor, &Tensor, &Tensor, &Tensor, &Tensor) -> Result<Tensor>;

fn train(x: &Tensor, weight: &Tensor, bias: &Tensor, mean: &Tensor, var: &Tensor) -> Result<Tensor> {
    batch_norm_relu_train(x, weight, bias, mean, var, &CONFIG)
}

fn eval(x: &Tensor, weight: &Tensor, bias: &Tensor, mean: &Tensor, var: &Tensor) -> Result<Tensor> {
    batch_norm_relu_eval(x, weight, bias, mean, var, CONFIG.eps)
}

fn unfused_train(x: &Tensor, weight: &Tensor, bias: &Tensor, mean: &Tensor, var: &Tensor) -> Result<Tensor> {
    let y = batch_norm_train(&channels_first(x)?, weight, bias, mean, var, &CONFIG)?;
    channels_last(&relu(&y)?)
}

fn unfused_eval(x: &Tensor, weight: &Tensor, bias: &Tensor, mean: &Tensor, var: &Tensor) -> Result<Tensor> {
    let y = batch_norm_eval(&channels_first(x)?, weight, bias, mean, var, CONFIG.eps)?;
    channels_last(&relu(&y)?)
}

/// The fused op with a gelu in place of the relu, and the unfused pair.
fn with_gelu(training: bool, fused: bool, [x, weight, bias, mean, var]: [&Tensor; 5]) -> Result<Tensor> {
    let batch_norm = BatchNorm {
        weight,
        bias,
        running_mean: mean,
        running_var: var,
        config: CONFIG,
        training,
    };
    if fused {
        return tape::section(|tape| {
            let x = tape.leaf(x)?;
            tape.batch_norm(&x, &batch_norm, Activation::Gelu)
        });
    }
    let x = channels_first(x)?;
    let y = if training {
        batch_norm_train(&x, weight, bias, mean, var, &CONFIG)?
    } else {
        batch_norm_eval(&x, weight, bias, mean, var, CONFIG.eps)?
    };
    channels_last(&gelu(&y)?)
}

/// `y`, the running statistics, and the gradients of `x`, `weight` and `bias`.
fn run(shape: &[usize; 4], dtype: DType, op: Op<'_>) -> candle_core::Result<Vec<Tensor>> {
    let channels = &shape[3..];
    let var = |seed, shape: &[usize], mean| Var::from_tensor(&values(seed, shape, mean)?.to_dtype(dtype)?);
    let (x, weight, bias) = (var(1, shape, 3.0)?, var(12, channels, 1.0)?, var(3, channels, 1.0)?);
    let (running_mean, running_var) = (var(4, channels, 3.0)?, var(5, channels, 2.5)?);
    let y = op(&x, &weight, &bias, &running_mean, &running_var)?;
    assert!(y.is_contiguous());
    let grads = (&y * var(6, shape, 0.5)?.as_tensor())?.sum_all()?.backward()?;
    let mut tensors = vec![y, running_mean.as_tensor().clone(), running_var.as_tensor().clone()];
    for var in [&x, &weight, &bias] {
        let Some(grad) = grads.get(var) else {
            panic!("no gradient")
        };
        assert_eq!(grad.shape(), var.shape());
        tensors.push(grad.clone());
    }
    Ok(tensors)
}

/// `‖fast − slow‖ / ‖slow‖` stays below `bound`.
#[track_caller]
fn assert_close(fast: &[Tensor], slow: &[Tensor], bound: f64) -> candle_core::Result<()> {
    let values = |t: &Tensor| t.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>();
    assert_eq!(fast.len(), slow.len());
    for (index, (fast, slow)) in fast.iter().zip(slow).enumerate() {
        assert_eq!(fast.dims(), slow.dims());
        let (fast, slow) = (values(fast)?, values(slow)?);
        let norm = slow.iter().map(|v| v * v).sum::<f64>().sqrt();
        let error = fast.iter().zip(&slow).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt();
        assert!(norm > 0.0, "tensor {index} is all zeros, which proves nothing");
        assert!(error <= bound * norm, "tensor {index}: {error} of {norm}");
    }
    Ok(())
}

#[test]
fn agrees_with_the_channels_first_pair() -> candle_core::Result<()> {
    for shape in &SHAPES {
        for (fused, unfused) in [(&train as Op<'_>, &unfused_train as Op<'_>), (&eval, &unfused_eval)] {
            let fast = run(shape, DType::F32, fused)?;
            assert_close(&fast, &run(shape, DType::F32, unfused)?, 1e-5)?;
            assert_close(&fast, &run(shape, DType::F64, fused)?, 1e-5)?;
        }
    }
    Ok(())
}

#[test]
fn gelu_agrees_with_the_channels_first_pair() -> candle_core::Result<()> {
    for shape in &SHAPES {
        for training in [true, false] {
            let op = |fused| move |x: &_, w: &_, b: &_, m: &_, v: &_| with_gelu(training, fused, [x, w, b, m, v]);
            let fast = run(shape, DType::F32, &op(true))?;
            assert_close(&fast, &run(shape, DType::F32, &op(false))?, 1e-5)?;
            assert_close(&fast, &run(shape, DType::F64, &op(true))?, 1e-5)?;
        }
    }
    Ok(())
}

/// They become ±1 but for eps, and the gradient of `x` all but cancels, so it is left out.
#[test]
fn two_values_a_channel_suffice() -> candle_core::Result<()> {
    let (fast, slow) = (
        run(&[2, 1, 1, 40], DType::F32, &train)?,
        run(&[2, 1, 1, 40], DType::F64, &unfused_train)?,
    );
    assert_close(&fast[..3], &slow[..3], 1e-5)?;
    assert_close(&fast[4..], &slow[4..], 1e-5)
}

/// A mean between two floats: what is left over of it counts for every value.
#[test]
fn a_mean_that_is_no_float_costs_no_digits() -> candle_core::Result<()> {
    let x = [16_777_216f32, 16_777_218.0, 16_777_220.0, 16_777_220.0];
    let dy = [1f32, -2.0, 0.5, 3.0];
    let run = |dtype: DType, last: bool| -> candle_core::Result<Vec<Tensor>> {
        let x = Var::from_tensor(&Tensor::new(&x, &Device::Cpu)?.reshape((2, 1, 2, 1))?.to_dtype(dtype)?)?;
        let dy = Tensor::new(&dy, &Device::Cpu)?.reshape((2, 1, 2, 1))?.to_dtype(dtype)?;
        let (weight, bias) = (Var::ones(1, dtype, &Device::Cpu)?, Var::zeros(1, dtype, &Device::Cpu)?);
        let (mean, var) = (
            Tensor::zeros(1, dtype, &Device::Cpu)?,
            Tensor::zeros(1, dtype, &Device::Cpu)?,
        );
        let batch_norm = BatchNorm {
            weight: &weight,
            bias: &bias,
            running_mean: &mean,
            running_var: &var,
            config: CONFIG,
            training: true,
        };
        // One channel lies in memory alike in both layouts.
        let y = match last {
            true => tape::section(|tape| {
                let x = tape.leaf(&x)?;
                tape.batch_norm(&x, &batch_norm, Activation::None)
            })?,
            false => batch_norm_train(&x.reshape((2, 1, 1, 2))?, &weight, &bias, &mean, &var, &CONFIG)?,
        };
        let y = y.reshape((2, 1, 2, 1))?;
        let grads = y.mul(&dy)?.sum_all()?.backward()?;
        let of = |var: &Var| grads.get(var).cloned();
        Ok([Some(y), Some(mean), Some(var), of(&x), of(&weight), of(&bias)]
            .into_iter()
            .flatten()
            .collect())
    };
    let exact = run(DType::F64, false)?;
    assert_eq!(exact.len(), 6);
    for last in [false, true] {
        assert_close(&run(DType::F32, last)?, &exact, 1e-6)?;
    }
    Ok(())
}

/// A mean a thousand times the deviation, where a plain sum of squares in f32 would have no digits left.
#[test]
fn a_large_mean_costs_no_digits() -> candle_core::Result<()> {
    let x = values(7, &[4, 17, 19, 5], 2000.0)?;
    let tensors = |dtype| -> candle_core::Result<[Tensor; 3]> {
        let x = x.to_dtype(dtype)?;
        let (zeros, weight) = (
            Tensor::zeros(5, dtype, &Device::Cpu)?,
            Var::ones(5, dtype, &Device::Cpu)?,
        );
        let (mean, var) = (zeros.copy()?, zeros.copy()?);
        let grads = train(&x, &weight, &zeros, &mean, &var)?.sum_all()?.backward()?;
        let Some(dweight) = grads.get(&weight) else {
            panic!("no gradient")
        };
        Ok([mean, var, dweight.clone()])
    };
    assert_close(&tensors(DType::F32)?, &tensors(DType::F64)?, 1e-6)
}

#[test]
fn is_bit_equal_for_any_number_of_threads() -> candle_core::Result<()> {
    let bits = |threads: usize, shape: &[usize; 4]| -> candle_core::Result<Vec<Vec<u32>>> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        let tensors = pool
            .map_err(candle_core::Error::wrap)?
            .install(|| run(shape, DType::F32, &train))?;
        let bits = |t: &Tensor| Ok(t.flatten_all()?.to_vec1()?.into_iter().map(f32::to_bits).collect());
        tensors.iter().map(bits).collect()
    };
    for shape in &SHAPES[4..6] {
        assert!(shape.iter().product::<usize>() > 3 * pass::PIECE, "too few pieces");
        let one = bits(1, shape)?;
        for threads in [2, 4, 4] {
            assert!(bits(threads, shape)? == one, "{threads} threads differ from one");
        }
    }
    Ok(())
}

/// Not-a-number and infinity, in a channel each, and the gate exactly at 0 in a third.
#[test]
fn follows_the_pair_at_nan_infinity_and_zero() -> candle_core::Result<()> {
    let mut pixels = [[0.5f32, -1.0, 2.0]; 40];
    for (index, pixel) in pixels.iter_mut().enumerate() {
        pixel[0] += index as f32;
        pixel[1] *= index as f32;
    }
    (pixels[7][0], pixels[9][1]) = (f32::NAN, f32::INFINITY);
    for (fused, unfused) in [(&train as Op<'_>, &unfused_train as Op<'_>), (&eval, &unfused_eval)] {
        let bits = |op: Op<'_>| -> candle_core::Result<Vec<Vec<Option<u32>>>> {
            let x = Var::from_vec(pixels.concat(), (1, 8, 5, 3), &Device::Cpu)?;
            let (weight, bias) = (
                Var::new(&[1f32, 1.0, 1.0], &Device::Cpu)?,
                Var::new(&[0f32; 3], &Device::Cpu)?,
            );
            let (mean, var) = (
                Tensor::new(&[1f32, 0.0, 2.0], &Device::Cpu)?,
                Tensor::new(&[1f32; 3], &Device::Cpu)?,
            );
            let y = op(&x, &weight, &bias, &mean, &var)?;
            let grads = y.sum_all()?.backward()?;
            let mut tensors = vec![y, mean, var];
            tensors.extend(
                [&x, &weight, &bias]
                    .map(|var| grads.get(var).cloned())
                    .into_iter()
                    .flatten(),
            );
            assert_eq!(tensors.len(), 6);
            let kind = |v: f32| (!v.is_nan()).then_some(if v.is_finite() { u32::from(v > 0.0) } else { v.to_bits() });
            let kinds = |t: &Tensor| Ok(t.flatten_all()?.to_vec1()?.into_iter().map(kind).collect());
            tensors.iter().map(kinds).collect()
        };
        assert_eq!(bits(fused)?, bits(unfused)?);
    }
    Ok(())
}

#[test]
fn takes_any_strides_and_gives_only_the_gradients_needed() -> candle_core::Result<()> {
    let x = values(1, &[2, 17, 5, 3], 0.0)?;
    let (weight, bias) = (values(2, &[17], 1.0)?.detach(), values(3, &[17], 0.0)?.detach());
    let (mean, var) = (bias.zeros_like()?, weight.ones_like()?.contiguous()?);
    let strided = x.permute((0, 2, 3, 1))?;
    let y = eval(&strided, &weight, &bias, &mean, &var)?;
    assert_close(
        std::slice::from_ref(&y),
        &[unfused_eval(&strided, &weight, &bias, &mean, &var)?],
        1e-6,
    )?;
    let grads = y.sum_all()?.backward()?;
    assert!(grads.get(&x).is_some() && grads.get(&weight).is_none() && grads.get(&bias).is_none());
    let bias = Var::from_tensor(&bias)?;
    let grads = train(&strided.detach(), &weight, &bias, &mean, &var)?
        .sum_all()?
        .backward()?;
    assert!(grads.get(&x).is_none() && grads.get(&weight).is_none() && grads.get(&bias).is_some());
    Ok(())
}

#[test]
fn errors_leave_the_running_statistics_untouched() -> candle_core::Result<()> {
    let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu);
    let (three, four) = (zeros(&[3])?, zeros(&[4])?);
    let (mean, var) = (zeros(&[3])?, zeros(&[3])?);
    let x = (zeros(&[2, 2, 2, 3])? + 1.0)?;
    let shape = |result: Result<Tensor>| matches!(result, Err(Error::ShapeMismatch { .. }));
    assert!(shape(train(&x, &four, &three, &mean, &var)));
    assert!(shape(train(&x, &three, &four, &mean, &var)));
    assert!(shape(train(&x, &three, &three, &mean, &four)));
    assert!(shape(eval(&x, &three, &three, &four, &var)));
    assert!(shape(train(&zeros(&[2, 2, 3])?, &three, &three, &mean, &var)));
    let one = train(&(zeros(&[1, 1, 1, 3])? + 1.0)?, &three, &three, &mean, &var);
    assert!(matches!(one, Err(Error::TooFewValuesPerChannel { got }) if got == [1, 1, 1, 3]));
    let double = train(&x, &three.to_dtype(DType::F64)?, &three, &mean, &var);
    assert!(matches!(double, Err(Error::DTypeMismatch { .. })));
    for (dtype, other) in [(DType::F32, DType::F64), (DType::F64, DType::F32)] {
        let [x, residual] = [x.to_dtype(dtype)?, x.to_dtype(other)?];
        let parameters = [&three, &three, &mean, &var].map(|tensor| tensor.to_dtype(dtype));
        let [weight, bias, mean, var] = parameters;
        let (weight, bias, mean, var) = (weight?, bias?, mean?, var?);
        let batch_norm = BatchNorm {
            weight: &weight,
            bias: &bias,
            running_mean: &mean,
            running_var: &var,
            config: CONFIG,
            training: true,
        };
        let error = tape::section(|tape| {
            let (x, residual) = (tape.leaf(&x)?, tape.leaf(&residual)?);
            tape.batch_norm(&x, &batch_norm, Activation::AddRelu(&residual))
        });
        let expected = format!("batch_norm residual: expected {dtype:?}, got {other:?}");
        assert_eq!(error.map_err(|error| error.to_string()).err(), Some(expected));
        assert_eq!(mean.to_dtype(DType::F64)?.to_vec1::<f64>()?, [0.0; 3]);
    }
    let strided = zeros(&[3, 2])?.narrow(1, 0, 1)?.squeeze(1)?;
    assert!(train(&x, &three, &three, &mean, &strided).is_err());
    assert_eq!(
        (mean.to_vec1::<f32>()?, var.to_vec1::<f32>()?),
        (vec![0.0; 3], vec![0.0; 3])
    );
    train(&x, &three, &three, &mean, &var)?;
    assert!(mean.to_vec1::<f32>()?.iter().all(|v| *v > 0.0));
    Ok(())
}
