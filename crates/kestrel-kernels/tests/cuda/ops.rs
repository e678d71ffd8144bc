//! Convolutions, batch norm, blocks and pools.

use candle_core::{Device, Tensor};
use kestrel_kernels::autocast::Precision;
use kestrel_kernels::channels_last::{Activation, BatchNorm};
use kestrel_kernels::tape::{self, Tape, Value};
use kestrel_kernels::{BatchNormConfig, Conv2dConfig, DropoutKey, Error};

use crate::Result;
use crate::support::{BOUNDS, Setting, compare, compare_within, device, distance, identity_of, norm_of, values};

#[test]
fn cuda_convolutions_agree_with_the_cpu() -> Result<()> {
    // Batch, height, width, channels in and out, kernel, stride, padding, dilation, groups.
    for [n, h, w, c, k, r, stride, padding, dilation, groups] in [
        [2, 8, 8, 16, 32, 3, 1, 1, 1, 1],
        [3, 7, 5, 3, 8, 3, 1, 1, 1, 1],
        [1, 9, 9, 8, 8, 3, 2, 1, 1, 1],
        [2, 6, 6, 16, 24, 1, 1, 0, 1, 1],
        [2, 7, 7, 16, 24, 1, 2, 0, 1, 1],
        [1, 32, 30, 3, 16, 7, 2, 3, 1, 1],
        [2, 9, 11, 4, 6, 3, 1, 2, 2, 1],
        [2, 8, 8, 8, 16, 3, 1, 1, 1, 2],
        [2, 5, 5, 5, 7, 2, 1, 0, 1, 1],
    ] {
        let config = Conv2dConfig {
            stride,
            padding,
            dilation,
            groups,
        };
        let params = [values(&[k, c / groups, r, r], 2), values(&[k], 3)];
        let name = format!("conv {:?}", [n, h, w, c, k, r, stride, padding, dilation, groups]);
        compare(&name, &values(&[n, h, w, c], 1), &params, &[], &|tape, x, s| {
            tape.conv2d(x, &s.params[0], Some(&s.params[1]), &config)
        })?;
    }
    Ok(())
}

#[test]
fn cuda_batch_norm_agrees_with_the_cpu() -> Result<()> {
    for [n, h, w, c] in [
        [2, 4, 4, 8],
        [4, 9, 7, 64],
        [3, 5, 5, 3],
        [2, 16, 16, 24],
        [16, 14, 14, 512],
        [1, 1, 2, 16],
    ] {
        let ([weight, bias], [mean, var]) = norm_of(c);
        let buffers = [mean, var, identity_of(c)];
        // The CPU rounds a batch norm before it adds a residual, a GPU only the sum: of few bits that would tip relus that are
        // nearly tied, whose gradients are not a rounding apart.
        let far = far_from_0(c, 30.0)?;
        // Far from 0, where sums of squares lose digits.
        let x = (values(&[n, h, w, c], 1) * 2.0)?.affine(1.0, 3.0)?;
        for training in [true, false] {
            for which in 0..4 {
                let name = format!("batch norm {:?} training {training} activation {which}", [n, h, w, c]);
                // Of two values a channel the gradient is 0 but for rounding.
                let noise = if n * h * w == 2 { &[1][..] } else { &[] };
                let narrow_bias = if which == 3 { &far } else { &bias };
                for (bounds, bias) in [(&BOUNDS[..1], &bias), (&BOUNDS[1..], narrow_bias)] {
                    let params = [weight.clone(), bias.clone()];
                    compare_within(bounds, noise, &name, &x, &params, &buffers, &|tape, x, s| {
                        normalized(tape, x, s, training, which)
                    })?;
                }
            }
        }
    }
    Ok(())
}

/// A batch norm of what a convolution leaves as it is, so that on a GPU it has the precision's type.
fn normalized(tape: &mut Tape, x: &Value, s: &Setting, training: bool, which: usize) -> Result<Value> {
    let x = &tape.conv2d(x, &s.buffers[2], None, &Conv2dConfig::default())?;
    let batch_norm = BatchNorm {
        weight: &s.params[0],
        bias: &s.params[1],
        running_mean: &s.buffers[0],
        running_var: &s.buffers[1],
        config: BatchNormConfig::default(),
        training,
    };
    let activation = match which {
        0 => Activation::None,
        1 => Activation::Relu,
        2 => Activation::Gelu,
        _ => Activation::AddRelu(x),
    };
    tape.batch_norm(x, &batch_norm, activation)
}

#[test]
fn cuda_pooled_convolutions_in_inference_agree_with_the_cpu() -> Result<()> {
    let Some(gpu) = device() else { return Ok(()) };
    // With sides that Winograd pools on the CPU, and without.
    for size in [8, 7] {
        let run = |device: &Device| -> Result<Tensor> {
            let on_device = |tensor: &Tensor| tensor.to_device(device);
            let ([weight, bias], [mean, var]) = norm_of(16);
            let [weight, bias, mean, var] = [
                on_device(&weight)?,
                on_device(&bias)?,
                on_device(&mean)?,
                on_device(&var)?,
            ];
            let batch_norm = BatchNorm {
                weight: &weight,
                bias: &bias,
                running_mean: &mean,
                running_var: &var,
                config: BatchNormConfig::default(),
                training: false,
            };
            let config = Conv2dConfig {
                padding: 1,
                ..Conv2dConfig::default()
            };
            let (x, w) = (
                on_device(&values(&[2, size, size, 8], 1))?,
                on_device(&values(&[16, 8, 3, 3], 2))?,
            );
            let pooled = tape::inference(|tape| {
                let x = tape.leaf(&x)?;
                tape.conv2d_batch_norm_relu_max_pool(&x, &w, None, &config, &batch_norm)
            })?;
            Ok(pooled.to_device(&Device::Cpu)?)
        };
        let (got, want) = (run(&gpu)?, run(&Device::Cpu)?);
        let apart = distance(&got, &want)?;
        assert!(apart <= 1e-5, "{size} pixels: {apart:.1e} apart");
    }
    Ok(())
}

#[test]
fn cuda_blocks_agree_with_the_cpu() -> Result<()> {
    // A residual block with a strided shortcut, pooling, and a head with dropout; channels that fill packs, and that do not.
    [16, 12, 6].into_iter().try_for_each(blocks_of)
}

fn blocks_of(c: usize) -> Result<()> {
    let (bn, running) = norm_of(c);
    let params = [
        values(&[c, 8, 3, 3], 10),
        values(&[c], 11),
        values(&[c, c, 3, 3], 12),
        values(&[c, 8, 1, 1], 13),
        values(&[20, c * 2 * 2], 14),
    ];
    let x = values(&[4, 9, 9, 8], 1);
    for head in [0, 1] {
        for smooth in [false, true] {
            // The biases of the last batch norm and of the linear layer.
            let last = if smooth {
                [far_from_0(c, 8.0)?, far_from_0(20, 200.0)?]
            } else {
                [values(&[c], 16), values(&[20], 15)]
            };
            let params = [&params[..], &bn, &last].concat();
            // Rounding to 8 or 11 bits tips relus and maxima that are nearly tied, each a sizeable part of so small a net's gradient.
            // So in these types the net has neither: each relu's bias decides what it does.
            // Half as much again as for an op: three convolutions round, one after the other.
            let narrow = [(Precision::Bf16, 3e-2), (Precision::F16, 5e-3)];
            let bounds = if smooth { &narrow[..] } else { &BOUNDS[..1] };
            // The bias of a convolution before a batch norm (result 3) has gradient 0.
            let name = format!("block of {c}, head {head}");
            compare_within(bounds, &[3], &name, &x, &params, &running, &|tape, x, s| {
                block(tape, x, s, head, smooth)
            })?;
        }
    }
    Ok(())
}

/// So far on both sides of 0 that what is added to it does not change its sign.
fn far_from_0(count: usize, by: f64) -> Result<Tensor> {
    let signs: Vec<f32> = (0..count).map(|i| if i % 2 == 0 { 1.0 } else { -1.0 }).collect();
    Ok((Tensor::from_vec(signs, count, &Device::Cpu)? * by)?)
}

fn block(tape: &mut Tape, x: &Value, s: &Setting, head: usize, smooth: bool) -> Result<Value> {
    let p = &s.params;
    let batch_norm = |bias| BatchNorm {
        weight: &p[5],
        bias,
        running_mean: &s.buffers[0],
        running_var: &s.buffers[1],
        config: BatchNormConfig::default(),
        training: true,
    };
    let strided = |padding| Conv2dConfig {
        stride: 2,
        padding,
        ..Conv2dConfig::default()
    };
    let same = Conv2dConfig {
        padding: 1,
        ..Conv2dConfig::default()
    };
    let norm = batch_norm(&p[6]);
    let first = if smooth { Activation::Gelu } else { Activation::Relu };
    let y = tape.conv2d_batch_norm(x, &p[0], Some(&p[1]), &strided(1), &norm, first)?;
    let shortcut = tape.conv2d_batch_norm(x, &p[3], None, &strided(0), &norm, Activation::None)?;
    let add = Activation::AddRelu(&shortcut);
    let y = tape.conv2d_batch_norm(&y, &p[2], None, &same, &batch_norm(&p[7]), add)?;
    let y = match (smooth, head) {
        (false, _) => tape.max_pool2d(&y, 2, 2, 0)?,
        (true, 0) => tape.avg_pool2d(&y, 2, 2, 0, true)?,
        (true, _) => y,
    };
    let y = if head == 0 {
        tape.flatten(&y)?
    } else {
        let mean = tape.adaptive_avg_pool2d(&y, (1, 1))?;
        let mean = tape.flatten(&mean)?;
        // As wide as the other head's input.
        tape.candle(&[&mean], |x| Ok(Tensor::cat(&[&x[0], &x[0], &x[0], &x[0]], 1)?))?
    };
    let key = DropoutKey {
        seed: 1,
        step: 2,
        layer: 3,
    };
    let y = tape.dropout(&y, 0.25, key)?;
    tape.linear(&y, &p[4], Some(&p[8]), true)
}

#[test]
fn cuda_relu_and_add_agree_with_the_cpu() -> Result<()> {
    compare("relu and add", &values(&[2, 5, 4, 8], 1), &[], &[], &|tape, x, _| {
        let y = tape.relu(x)?;
        tape.add(&y, x)
    })
}

#[test]
fn cuda_pools_agree_with_the_cpu() -> Result<()> {
    for [n, h, w, c, kernel, stride, padding] in [
        [2, 8, 8, 16, 2, 2, 0],
        [2, 9, 7, 8, 3, 2, 1],
        [1, 5, 5, 3, 3, 1, 1],
        [2, 6, 6, 12, 3, 3, 0],
    ] {
        let x = values(&[n, h, w, c], 4);
        let name = format!("max pool {:?}", [n, h, w, c, kernel, stride, padding]);
        compare(&name, &x, &[], &[], &|tape, x, _| {
            tape.max_pool2d(x, kernel, stride, padding)
        })?;
        compare("avg pool", &x, &[], &[], &|tape, x, _| {
            tape.avg_pool2d(x, kernel, stride, padding, true)
        })?;
        compare("global pool", &x, &[], &[], &|tape, x, _| {
            tape.adaptive_avg_pool2d(x, (1, 1))
        })?;
    }
    Ok(())
}

/// Taps that do not fit a byte are candle's, also of values that are not `f32`.
#[test]
fn cuda_wide_max_pools_agree_with_the_cpu() -> Result<()> {
    let x = values(&[2, 20, 19, 3], 4);
    compare("wide max pool", &x, &[], &[identity_of(3)], &|tape, x, s| {
        let x = tape.conv2d(x, &s.buffers[0], None, &Conv2dConfig::default())?;
        tape.max_pool2d(&x, 17, 3, 8)
    })
}

#[test]
fn cuda_a_residual_of_another_shape_is_an_error() -> Result<()> {
    let Some(device) = device() else { return Ok(()) };
    let ([weight, bias], [mean, var]) = norm_of(4);
    let params = [values(&[4, 4, 3, 3], 2), weight, bias];
    let s = Setting::on(&device, &values(&[2, 6, 6, 4], 1), &params, &[mean, var])?;
    let found = tape::section(|tape| {
        let x = tape.leaf(&s.x)?;
        let batch_norm = BatchNorm {
            weight: &s.params[1],
            bias: &s.params[2],
            running_mean: &s.buffers[0],
            running_var: &s.buffers[1],
            config: BatchNormConfig::default(),
            training: true,
        };
        // Without padding the result is smaller than the residual.
        let config = Conv2dConfig::default();
        tape.conv2d_batch_norm(&x, &s.params[0], None, &config, &batch_norm, Activation::AddRelu(&x))
    });
    assert!(matches!(found, Err(Error::ShapeMismatch { .. })), "{found:?}");
    Ok(())
}

/// TF32 keeps 10 bits of each factor's mantissa, so a product is off by 2^-11 and less: not the same as in f32, and near.
#[cfg(feature = "cudnn")]
#[test]
fn cuda_tf32_convolutions_are_near() -> Result<()> {
    struct Off;
    impl Drop for Off {
        fn drop(&mut self) {
            kestrel_kernels::cuda::allow_tf32(false);
        }
    }
    let Some(device) = device() else { return Ok(()) };
    // No other test has planned this shape.
    let (x, params) = (values(&[8, 18, 18, 32], 1), [values(&[72, 32, 3, 3], 2)]);
    let same = Conv2dConfig {
        padding: 1,
        ..Conv2dConfig::default()
    };
    let program = |tape: &mut Tape, x: &Value, s: &Setting| tape.conv2d(x, &s.params[0], None, &same);
    let want = Setting::on(&Device::Cpu, &x, &params, &[])?.run(&program, false)?;
    let off = Off;
    kestrel_kernels::cuda::allow_tf32(true);
    let found = Setting::on(&device, &x, &params, &[])?.run(&program, false)?;
    drop(off);
    for (i, (found, want)) in found.iter().zip(&want).enumerate() {
        let off = distance(found, want)?;
        assert!(off < 1e-3, "{i}: {off}");
    }
    assert!(distance(&found[0], &want[0])? > 1e-6, "TF32 was not used");
    Ok(())
}
