//! Each op in f32 against tensors that PyTorch made (`scripts/golden/kernels.py`).

mod autocast;
mod gelu;
mod linear;
mod loss;
mod pooling;
mod sgd;

use candle_core::{Device, Result, Tensor, Var, safetensors};
use kestrel_kernels::channels_last::{self, Activation, BatchNorm};
use kestrel_kernels::{
    AdamConfig, BatchNormConfig, Conv2dConfig, adam_step, batch_norm_eval, batch_norm_train, conv2d, max_pool2d, tape,
};
use std::collections::HashMap;
use std::path::PathBuf;

use crate::manifest_dir::manifest_dir;

/// Largest relative error of a tensor, by the Euclidean norm.
const TOLERANCE: f64 = 1e-5;

/// How images lie in memory: an op of the crate's root, or one of `channels_last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    First,
    Last,
}

impl Layout {
    const BOTH: [Self; 2] = [Self::First, Self::Last];

    /// Images of a golden file, `[N, C, H, W]`, as a variable in this layout.
    fn var(self, images: &Tensor) -> Result<Var> {
        match self {
            Self::First => Var::from_tensor(images),
            Self::Last => Var::from_tensor(&channels_last::to_channels_last(images)?),
        }
    }

    /// Images in this layout as `[N, C, H, W]`.
    fn first(self, images: &Tensor) -> Result<Tensor> {
        match self {
            Self::First => Ok(images.clone()),
            Self::Last => images.permute((0, 3, 1, 2)),
        }
    }
}

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
    assert_eq!(cases.len(), 12);
    let cases = cases.iter().flat_map(|case| Layout::BOTH.map(|layout| (case, layout)));
    for (case, layout) in cases {
        let name = |part: &str| format!("{case}.{part}");
        let [stride, padding, dilation, groups] = golden.config(case)?;
        let (x, weight) = (layout.var(golden.get(&name("x")))?, golden.var(&name("weight"))?);
        let bias = golden.0.get(&name("bias")).map(Var::from_tensor).transpose()?;
        let config = Conv2dConfig {
            stride,
            padding,
            dilation,
            groups,
        };
        let op = match layout {
            Layout::First => conv2d,
            Layout::Last => channels_last::conv2d,
        };
        let y = layout.first(&op(&x, &weight, bias.as_ref().map(Var::as_tensor), &config)?)?;
        golden.check(&name("y"), &y)?;
        let grads = backward(&y, golden.get(&name("dy")))?;
        golden.check(&name("dx"), &layout.first(grads.get(&x).unwrap())?)?;
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
    let cases = ["train", "eval"].into_iter();
    for (case, layout) in cases.flat_map(|case| Layout::BOTH.map(|layout| (case, layout))) {
        let name = |part: &str| format!("{case}.{part}");
        let x = layout.var(golden.get(&name("x")))?;
        let (weight, bias) = (golden.var(&name("weight"))?, golden.var(&name("bias"))?);
        let (mean, var) = (golden.var(&name("running_mean"))?, golden.var(&name("running_var"))?);
        let (config, training) = (BatchNormConfig::default(), case == "train");
        let op = || -> Result<Tensor> {
            Ok(match layout {
                Layout::First if training => batch_norm_train(&x, &weight, &bias, &mean, &var, &config)?,
                Layout::First => batch_norm_eval(&x, &weight, &bias, &mean, &var, config.eps)?,
                Layout::Last => tape::section(|tape| {
                    let batch_norm = BatchNorm {
                        weight: &weight,
                        bias: &bias,
                        running_mean: &mean,
                        running_var: &var,
                        config,
                        training,
                    };
                    let x = tape.leaf(&x)?;
                    tape.batch_norm(&x, &batch_norm, Activation::None)
                })?,
            })
        };
        if training {
            // Two batches, as in the script: the running statistics move twice.
            op()?;
        }
        let y = layout.first(&op()?)?;
        golden.check(&name("y"), &y)?;
        golden.check(&name("new_running_mean"), &mean)?;
        golden.check(&name("new_running_var"), &var)?;
        let grads = backward(&y, golden.get(&name("dy")))?;
        golden.check(&name("dx"), &layout.first(grads.get(&x).unwrap())?)?;
        for (part, of) in [("dweight", &weight), ("dbias", &bias)] {
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
    let mut files = 0;
    for entry in std::fs::read_dir(manifest_dir().join("tests/golden"))? {
        let path = entry?.path();
        let name = path.display();
        let bytes = std::fs::read(&path)?;
        let (_, metadata) = ::safetensors::SafeTensors::read_metadata(&bytes)?;
        let record = &metadata.metadata().as_ref().unwrap()["record"];
        for key in ["torch", "seed", "command", "script"] {
            assert!(record.contains(&format!("\"{key}\": ")), "{name} lacks {key}: {record}");
        }
        assert!(bytes.len() < 200_000, "{name} has {} bytes", bytes.len());
        files += 1;
    }
    assert!(files >= 10, "{files} files");
    Ok(())
}
