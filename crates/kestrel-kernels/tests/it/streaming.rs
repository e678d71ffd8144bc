//! Outputs too large for the caches are stored past them: the same bits as those of small batches, which are not.

use candle_core::{Result, Storage, Tensor, Var};
use kestrel_kernels::channels_last::{Activation, BatchNorm};
use kestrel_kernels::conv2d::Conv2dConfig;
use kestrel_kernels::tape::{self, Tape, Value};
use kestrel_kernels::{BatchNormConfig, Result as KernelResult};

use super::inputs::normal;

/// Images of 32x32x64 floats whose outputs stream, and those of a part that do not: 10 MiB and 5 MiB.
const BATCH: usize = 40;
const PART: usize = 20;

struct Parameters {
    weight: Var,
    vectors: [Var; 4],
}

impl Parameters {
    fn new(kernel: usize) -> Result<Self> {
        let vector = || normal::<f32>(&[64]);
        Ok(Self {
            weight: normal::<f32>(&[64, 64, kernel, kernel])?,
            vectors: [
                vector()?,
                vector()?,
                vector()?,
                Var::from_tensor(&vector()?.sqr()?.affine(1.0, 0.5)?)?,
            ],
        })
    }

    fn batch_norm(&self) -> BatchNorm<'_> {
        let [weight, bias, running_mean, running_var] = &self.vectors;
        BatchNorm {
            weight,
            bias,
            running_mean,
            running_var,
            config: BatchNormConfig::default(),
            training: false,
        }
    }
}

/// The result for `x` and the gradient of its sum of squares, as bits.
fn bits(x: &Tensor, net: &dyn Fn(&mut Tape, &Value) -> KernelResult<Value>) -> Result<[Vec<u32>; 2]> {
    let x = Var::from_tensor(x)?;
    let y = tape::section(|tape| {
        let x = tape.leaf(&x)?;
        net(tape, &x)
    })?;
    let (storage, _) = y.storage_and_layout();
    let Storage::Cpu(storage) = &*storage else {
        panic!("expected a tensor on the CPU")
    };
    let first = storage.as_slice::<f32>()?.as_ptr();
    assert!(
        cfg!(sanitized) || first.addr().is_multiple_of(64),
        "expected an output aligned to a cache line"
    );
    let gradients = y.sqr()?.sum_all()?.backward()?;
    let dx = gradients.get(&x).cloned().unwrap_or(x.zeros_like()?);
    let bits = |tensor: &Tensor| -> Result<Vec<u32>> {
        let values = tensor.flatten_all()?.to_vec1::<f32>()?;
        Ok(values.into_iter().map(f32::to_bits).collect())
    };
    Ok([bits(&y)?, bits(&dx)?])
}

fn check(net: &dyn Fn(&mut Tape, &Value) -> KernelResult<Value>) -> Result<()> {
    let x = normal::<f32>(&[BATCH, 32, 32, 64])?;
    let whole = bits(&x, net)?;
    let parts = [0, PART].map(|first| bits(&x.narrow(0, first, PART)?.contiguous()?, net));
    let [first, second] = parts;
    let (first, second) = (first?, second?);
    for ((whole, first), second) in whole.iter().zip(first).zip(second) {
        assert!(whole.iter().any(|bits| *bits != 0), "expected numbers");
        assert!(
            *whole == [first, second].concat(),
            "a large batch differs from its parts"
        );
    }
    Ok(())
}

#[test]
fn convolutions_are_bit_equal() -> Result<()> {
    for kernel in [3, 1] {
        let parameters = Parameters::new(kernel)?;
        let config = Conv2dConfig {
            padding: kernel / 2,
            ..Conv2dConfig::default()
        };
        check(&|tape, x| tape.conv2d(x, &parameters.weight, None, &config))?;
    }
    Ok(())
}

#[test]
fn batch_norm_and_pooling_are_bit_equal() -> Result<()> {
    let parameters = Parameters::new(3)?;
    check(&|tape, x| {
        let y = tape.batch_norm(x, &parameters.batch_norm(), Activation::Relu)?;
        tape.max_pool2d(&y, 2, 2, 0)
    })?;
    check(&|tape, x| tape.batch_norm(x, &parameters.batch_norm(), Activation::AddRelu(x)))
}
