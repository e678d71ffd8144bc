//! Each op in f32 against tensors that PyTorch made (`scripts/golden/kernels.py`).

mod autocast;
mod gelu;
mod linear;
mod loss;
mod pooling;
mod sgd;

use candle_core::{Device, Result, Tensor, Var, safetensors};
use kestrel_kernels::{
    AdamConfig, BatchNormConfig, Conv2dConfig, adam_step, batch_norm_eval, batch_norm_train, conv2d, max_pool2d,
};
use std::collections::HashMap;
use std::path::PathBuf;

use crate::manifest_dir::manifest_dir;

/// Largest relative error of a tensor, by the Euclidean norm.
const TOLERANCE: f64 = 1e-5;

struct Golden(HashMap<String, Tensor>);

impl Golden {
    fn load(name: &str) -> Result<Self> {
        Ok(Self(safetensors::load(path(name), &Device::Cpu)?))
    }

    fn get(&self, name: &str) -> &Tensor {
        self.0
            .get(name)
            .unwrap_or_else(|| panic!("{name} is not in the golden file"))
    }

    fn var(&self, name: &str) -> Result<Var> {
        Var::from_tensor(self.get(name))
    }

    fn config<const K: usize>(&self, case: &str) -> Result<[usize; K]> {
        let values: Vec<usize> = self
            .get(&format!("{case}.config"))
            .to_vec1::<i64>()?
            .into_iter()
            .map(|v| v as usize)
            .collect();
        Ok(values.try_into().unwrap())
    }

    fn cases(&self) -> Vec<String> {
        let mut cases: Vec<String> = self
            .0
            .keys()
            .filter_map(|k| k.strip_suffix(".y"))
            .map(str::to_owned)
            .collect();
        cases.sort();
        cases
    }

    #[track_caller]
    fn check(&self, name: &str, got: &Tensor) -> Result<()> {
        let expected = self.get(name);
        assert_eq!(expected.dims(), got.dims(), "{name}");
        let norm = |t: &Tensor| {
            t.to_dtype(candle_core::DType::F64)?
                .sqr()?
                .sum_all()?
                .to_scalar::<f64>()
        };
        let (error, size) = (norm(&(got - expected)?)?.sqrt(), norm(expected)?.sqrt());
        assert!(
            size > 0.0 && error <= TOLERANCE * size,
            "{name}: relative error {}",
            error / size
        );
        Ok(())
    }
}

fn path(name: &str) -> PathBuf {
    manifest_dir().join(format!("tests/golden/{name}.safetensors"))
}

/// The gradients of `y` when its own is `dy`.
fn backward(y: &Tensor, dy: &Tensor) -> Result<candle_core::backprop::GradStore> {
    (y * dy)?.sum_all()?.backward()
}

#[test]
fn conv2d_equals_pytorch() -> Result<()> {
    let golden = Golden::load("conv2d")?;
    let cases = golden.cases();
    assert_eq!(cases.len(), 9);
    for case in cases {
        let name = |part: &str| format!("{case}.{part}");
        let [stride, padding, dilation, groups] = golden.config(&case)?;
        let (x, weight) = (golden.var(&name("x"))?, golden.var(&name("weight"))?);
        let bias = golden.0.get(&name("bias")).map(Var::from_tensor).transpose()?;
        let config = Conv2dConfig {
            stride,
            padding,
            dilation,
            groups,
        };
        let y = conv2d(&x, &weight, bias.as_ref().map(Var::as_tensor), &config)?;
        golden.check(&name("y"), &y)?;
        let grads = backward(&y, golden.get(&name("dy")))?;
        golden.check(&name("dx"), grads.get(&x).unwrap())?;
        golden.check(&name("dweight"), grads.get(&weight).unwrap())?;
        if let Some(bias) = bias {
            golden.check(&name("dbias"), grads.get(&bias).unwrap())?;
        }
    }
    Ok(())
}

#[test]
fn batch_norm_equals_pytorch() -> Result<()> {
    let golden = Golden::load("batch_norm")?;
    for case in ["train", "eval"] {
        let name = |part: &str| format!("{case}.{part}");
        let (x, weight, bias) = (
            golden.var(&name("x"))?,
            golden.var(&name("weight"))?,
            golden.var(&name("bias"))?,
        );
        let (mean, var) = (golden.var(&name("running_mean"))?, golden.var(&name("running_var"))?);
        let y = if case == "train" {
            // Two batches, as in the script: the running statistics move twice.
            let config = BatchNormConfig::default();
            batch_norm_train(&x, &weight, &bias, &mean, &var, &config)?;
            batch_norm_train(&x, &weight, &bias, &mean, &var, &config)?
        } else {
            batch_norm_eval(&x, &weight, &bias, &mean, &var, 1e-5)?
        };
        golden.check(&name("y"), &y)?;
        golden.check(&name("new_running_mean"), &mean)?;
        golden.check(&name("new_running_var"), &var)?;
        let grads = backward(&y, golden.get(&name("dy")))?;
        for (part, of) in [("dx", &x), ("dweight", &weight), ("dbias", &bias)] {
            golden.check(&name(part), grads.get(of).unwrap())?;
        }
    }
    Ok(())
}

#[test]
fn max_pool2d_equals_pytorch() -> Result<()> {
    let golden = Golden::load("max_pool2d")?;
    let cases = golden.cases();
    assert_eq!(cases.len(), 4);
    for case in cases {
        let name = |part: &str| format!("{case}.{part}");
        let [kernel, stride, padding] = golden.config(&case)?;
        let x = golden.var(&name("x"))?;
        let y = max_pool2d(&x, kernel, stride, padding)?;
        golden.check(&name("y"), &y)?;
        golden.check(&name("dx"), backward(&y, golden.get(&name("dy")))?.get(&x).unwrap())?;
    }
    Ok(())
}

#[test]
fn ten_steps_of_adam_equal_pytorch() -> Result<()> {
    let golden = Golden::load("adam")?;
    let param = golden.var("param")?;
    let (exp_avg, exp_avg_sq) = (param.zeros_like()?, param.zeros_like()?);
    let config = AdamConfig {
        lr: 0.01,
        weight_decay: 0.05,
        ..AdamConfig::default()
    };
    let (grads, params) = (golden.get("grads"), golden.get("params"));
    assert_eq!(grads.dim(0)?, 10);
    for step in 0..10 {
        adam_step(
            &param,
            &grads.get(step)?,
            &exp_avg,
            &exp_avg_sq,
            step as u64 + 1,
            &config,
        )?;
        let expected = params.get(step)?;
        let error = (param.as_tensor() - &expected)?.abs()?.max_all()?.to_scalar::<f32>()?;
        assert!(error <= 1e-6, "step {step}: {error}");
    }
    golden.check("exp_avg", &exp_avg)?;
    golden.check("exp_avg_sq", &exp_avg_sq)
}

/// A reader can make the files again: each names the versions, the seed and the command.
#[test]
fn golden_files_record_what_made_them() -> std::result::Result<(), Box<dyn std::error::Error>> {
    for name in [
        "conv2d",
        "batch_norm",
        "max_pool2d",
        "avg_pool2d",
        "cross_entropy",
        "adam",
        "autocast",
    ] {
        let bytes = std::fs::read(path(name))?;
        let (_, metadata) = ::safetensors::SafeTensors::read_metadata(&bytes)?;
        let record = &metadata.metadata().as_ref().unwrap()["record"];
        for key in ["torch", "seed", "command", "script"] {
            assert!(record.contains(&format!("\"{key}\": ")), "{name} lacks {key}: {record}");
        }
        assert!(bytes.len() < 200_000, "{name} has {} bytes", bytes.len());
    }
    Ok(())
}
