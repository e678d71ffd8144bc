//! Optimiser steps and norms over many tensors.

use candle_core::{DType, Device, Tensor, Var};
use kestrel_kernels::update::{self, AdamConfig, SgdConfig};

use crate::Result;
use crate::support::{device, values};

#[test]
fn cuda_updates_are_the_cpus_to_the_bit() -> Result<()> {
    let Some(device) = device() else { return Ok(()) };
    // More tensors than a launch takes, of many sizes.
    let sizes: Vec<usize> = (0..60).map(|i| 1 + i * i * 13).collect();
    let on = |device: &Device, gate: Option<f32>| -> Result<Vec<Tensor>> {
        let gate = gate.map(|gate| Tensor::new(gate, device)).transpose()?;
        let start = |seed: u32| -> Result<Vec<Var>> {
            let one = |(i, size): (usize, &usize)| {
                // Every third about where parameters are stored as 0, every other third where states are.
                let scale = [1.0, 1e-30, 1e-37][i % 3];
                let start = (values(&[*size], seed + i as u32) * scale)?;
                Ok(Var::from_tensor(&start.to_device(device)?)?)
            };
            sizes.iter().enumerate().map(one).collect()
        };
        let zeros = || -> Result<Vec<Tensor>> {
            sizes
                .iter()
                .map(|size| Ok(Tensor::zeros(*size, DType::F32, device)?))
                .collect()
        };
        let (params, m, v, buffers) = (start(1)?, zeros()?, zeros()?, zeros()?);
        for step in 1..=3 {
            let grads = start(100 + step as u32)?;
            let adam = AdamConfig {
                weight_decay: 0.01,
                decoupled: step == 2,
                ..AdamConfig::default()
            };
            let slots: Vec<update::AdamSlot<'_>> = (0..sizes.len())
                .map(|i| update::AdamSlot {
                    param: &params[i],
                    grad: &grads[i],
                    exp_avg: &m[i],
                    exp_avg_sq: &v[i],
                })
                .collect();
            update::adam_step_all(&slots, step, &adam, gate.as_ref())?;
            let sgd = SgdConfig {
                lr: 0.01,
                momentum: 0.9,
                nesterov: true,
                weight_decay: 1e-3,
                ..SgdConfig::default()
            };
            let slots: Vec<update::SgdSlot<'_>> = (0..sizes.len())
                .map(|i| update::SgdSlot {
                    param: &params[i],
                    grad: &grads[i],
                    momentum_buffer: Some(&buffers[i]),
                })
                .collect();
            update::sgd_step_all(&slots, step, &sgd, gate.as_ref())?;
        }
        let params = params.iter().map(|param| param.as_detached_tensor());
        Ok(params.chain(m).chain(v).chain(buffers).collect())
    };
    let bits = |tensors: Vec<Tensor>| -> Result<Vec<Vec<u32>>> {
        let one = |t: &Tensor| Ok(t.to_vec1::<f32>()?.into_iter().map(f32::to_bits).collect());
        tensors.iter().map(one).collect()
    };
    let start = bits(on(&Device::Cpu, Some(0.0))?)?;
    let moved = bits(on(&Device::Cpu, None)?)?;
    assert!(start != moved);
    let count = |tiny: std::ops::Range<f32>| {
        let values = moved.iter().flatten().map(|bits| f32::from_bits(*bits).abs());
        values.filter(|value| tiny.contains(value) && *value > 0.0).count()
    };
    assert!(count(0.0..f32::MIN_POSITIVE) == 0 && count(f32::MIN_POSITIVE..1e-30) > 0);
    assert!(bits(on(&device, None)?)? == moved);
    assert!(bits(on(&device, Some(1.0))?)? == moved);
    assert!(bits(on(&device, Some(0.0))?)? == start);
    Ok(())
}

#[test]
fn cuda_squared_norms_agree_with_the_cpu() -> Result<()> {
    let Some(device) = device() else { return Ok(()) };
    let tensors: Vec<Tensor> = (0..60).map(|i| values(&[1 + i * i * 13], i as u32)).collect();
    let expected = tensors.iter().map(update::squared_norm).collect::<Result<Vec<f64>>>()?;
    let moved = tensors
        .iter()
        .map(|t| t.to_device(&device))
        .collect::<candle_core::Result<Vec<_>>>()?;
    let got = update::squared_norms(&moved)?.to_vec1::<f64>()?;
    assert_eq!(got.len(), expected.len());
    for (got, expected) in got.into_iter().zip(expected) {
        assert!((got - expected).abs() < 1e-12 * expected, "{got} {expected}");
    }
    Ok(())
}
