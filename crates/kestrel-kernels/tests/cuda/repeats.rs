//! The same bits again, by launches and from a recording; and who may ask for gradients.

use candle_core::{Tensor, Var};
use kestrel_kernels::autocast::{Precision, autocast};
use kestrel_kernels::channels_last::{Activation, BatchNorm};
use kestrel_kernels::tape::{self, Tape, Value};
use kestrel_kernels::{BatchNormConfig, Conv2dConfig, DropoutKey, cuda};

use crate::Result;
use crate::support::{Setting, device, norm_of, values};

#[test]
fn cuda_repeats_to_the_bit() -> Result<()> {
    let Some(device) = device() else { return Ok(()) };
    let (params, buffers) = norm_of(64);
    let params = [values(&[64, 64, 3, 3], 2), params[0].clone(), params[1].clone()];
    let x = values(&[32, 16, 16, 64], 1);
    let run = || -> Result<Vec<Vec<u32>>> {
        let setting = Setting::on(&device, &x, &params, &buffers)?;
        let program = |tape: &mut Tape, x: &Value, s: &Setting| {
            let batch_norm = BatchNorm {
                weight: &s.params[1],
                bias: &s.params[2],
                running_mean: &s.buffers[0],
                running_var: &s.buffers[1],
                config: BatchNormConfig::default(),
                training: true,
            };
            let same = Conv2dConfig {
                padding: 1,
                ..Conv2dConfig::default()
            };
            tape.conv2d_batch_norm(x, &s.params[0], None, &same, &batch_norm, Activation::Relu)
        };
        let found = autocast(Precision::Bf16, || setting.run(&program, true))?;
        let one = |t: &Tensor| {
            Ok(t.flatten_all()?
                .to_vec1::<f32>()?
                .into_iter()
                .map(f32::to_bits)
                .collect())
        };
        found.iter().map(one).collect()
    };
    let first = run()?;
    for _ in 0..3 {
        assert!(run()? == first);
    }
    Ok(())
}

/// A replay is the step that it was recorded of, with another step's dropout.
#[test]
fn cuda_graphs_repeat_what_they_recorded() -> Result<()> {
    let Some(device) = device() else { return Ok(()) };
    let params = [values(&[16, 8, 3, 3], 2), values(&[5, 16], 3), values(&[5], 4)];
    let setting = Setting::on(&device, &values(&[4, 8, 8, 8], 1), &params, &[])?;
    let pass = |step: u64| -> Result<Vec<Tensor>> {
        let program = |tape: &mut Tape, x: &Value, s: &Setting| {
            let same = Conv2dConfig {
                padding: 1,
                ..Conv2dConfig::default()
            };
            let y = tape.conv2d(x, &s.params[0], None, &same)?;
            let y = tape.adaptive_avg_pool2d(&y, (1, 1))?;
            let y = tape.flatten(&y)?;
            let key = DropoutKey {
                seed: 1,
                step,
                layer: 0,
            };
            let y = tape.dropout(&y, 0.5, key)?;
            tape.linear(&y, &s.params[1], Some(&s.params[2]), false)
        };
        autocast(Precision::Bf16, || {
            let y = tape::for_backward(|| {
                tape::section(|tape| {
                    let x = tape.leaf(&setting.x)?;
                    program(tape, &x, &setting)
                })
            })?;
            let grads = tape::backward(&y.sum_all()?)?;
            let mut found = vec![y.detach()];
            for var in std::iter::once(&setting.x).chain(&setting.params) {
                found.push(grads.get(var).expect("a gradient").contiguous()?);
            }
            Ok(found)
        })
    };
    let first = cuda::Graph::prepare(&device, || pass(0))??;
    let kept: Vec<Tensor> = first
        .iter()
        .map(|t| t.zeros_like())
        .collect::<candle_core::Result<_>>()?;
    let graph = cuda::Graph::record(&device, || {
        let found = pass(0)?;
        cuda::copy_all(&found.iter().zip(&kept).collect::<Vec<_>>())
    })?;
    let bits = |tensors: &[Tensor]| -> Result<Vec<Vec<u32>>> {
        let one = |t: &Tensor| {
            Ok(t.flatten_all()?
                .to_vec1::<f32>()?
                .into_iter()
                .map(f32::to_bits)
                .collect())
        };
        tensors.iter().map(one).collect()
    };
    let mut seen = Vec::new();
    for step in [3, 4, 1 << 40, 3] {
        graph.replay(step)?;
        let replayed = bits(&kept)?;
        assert!(replayed == bits(&pass(step)?)?, "step {step}");
        seen.push(replayed);
    }
    assert!(seen[0] != seen[1] && seen[0] == seen[3]);
    Ok(())
}

/// A section for `tape::backward` alone says so to candle's.
#[test]
fn cuda_sections_for_backward_refuse_candles() -> Result<()> {
    let Some(device) = device() else { return Ok(()) };
    let weight = Var::from_tensor(&values(&[4, 3], 1).to_device(&device)?)?;
    let bias = Var::from_tensor(&values(&[4], 1).to_device(&device)?)?;
    let x = values(&[2, 3], 2).to_device(&device)?;
    let y = tape::for_backward(|| {
        tape::section(|tape| {
            let x = tape.leaf(&x)?;
            tape.linear(&x, &weight, Some(&bias), false)
        })
    })?;
    assert!(y.sum_all()?.backward().is_err());
    let grads = tape::backward(&y.sum_all()?)?;
    assert_eq!(grads.get(&bias).expect("a gradient").to_vec1::<f32>()?, [2.0; 4]);
    Ok(())
}
