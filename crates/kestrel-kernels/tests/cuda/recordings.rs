//! What a recording leaves behind: itself, and where it fails nothing.

use std::panic::{AssertUnwindSafe, catch_unwind};

use candle_core::{DType, Device, Tensor};
use kestrel_kernels::tape::{self, Tape, Value};
use kestrel_kernels::{Conv2dConfig, cuda};

use crate::Result;
use crate::support::{Setting, device, values};

/// A convolution and its gradients, the contents of which a replay leaves in `kept`.
struct Pass {
    setting: Setting,
    kept: Vec<Tensor>,
}

impl Pass {
    fn new(device: &Device, [n, size, c]: [usize; 3]) -> Result<Self> {
        let setting = Setting::on(
            device,
            &values(&[n, size, size, c], 1),
            &[values(&[c, c, 3, 3], 2)],
            &[],
        )?;
        let mut this = Self {
            setting,
            kept: Vec::new(),
        };
        let made = cuda::Graph::prepare(device, || this.run())??;
        let zeros = made.iter().map(Tensor::zeros_like);
        this.kept = zeros.collect::<candle_core::Result<_>>()?;
        Ok(this)
    }

    fn run(&self) -> Result<Vec<Tensor>> {
        let program = |tape: &mut Tape, x: &Value, s: &Setting| {
            let same = Conv2dConfig {
                padding: 1,
                ..Conv2dConfig::default()
            };
            tape.conv2d(x, &s.params[0], None, &same)
        };
        let y = tape::for_backward(|| {
            tape::section(|tape| {
                let x = tape.leaf(&self.setting.x)?;
                program(tape, &x, &self.setting)
            })
        })?;
        let grads = tape::backward(&y.sum_all()?)?;
        let vars = [&self.setting.x, &self.setting.params[0]];
        let grads = vars.map(|var| grads.get(var).expect("a gradient").contiguous());
        let [dx, dw] = grads;
        Ok(vec![y.detach(), dx?, dw?])
    }

    fn record(&self, device: &Device) -> Result<cuda::Graph> {
        cuda::Graph::record(device, || {
            let found = self.run()?;
            cuda::copy_all(&found.iter().zip(&self.kept).collect::<Vec<_>>())
        })
    }

    /// Whether a replay gives what the launches give, to the bit.
    fn repeats(&self, graph: &cuda::Graph) -> Result<bool> {
        graph.replay(0)?;
        Ok(bits(&self.kept)? == bits(&self.run()?)?)
    }
}

fn bits(tensors: &[Tensor]) -> Result<Vec<Vec<u32>>> {
    let one = |t: &Tensor| {
        let values = t.flatten_all()?.to_vec1::<f32>()?;
        Ok(values.into_iter().map(f32::to_bits).collect())
    };
    tensors.iter().map(one).collect()
}

/// Scratch memory that a recorded launch writes to is nobody else's, also after a launch that took more.
#[test]
fn cuda_graphs_keep_their_scratch_memory() -> Result<()> {
    let Some(device) = device() else { return Ok(()) };
    let small = Pass::new(&device, [4, 8, 8])?;
    let graph = small.record(&device)?;
    let large = Pass::new(&device, [32, 64, 64])?;
    // Memory that was freed is what is given out next.
    let others = (0..64).map(|_| Tensor::ones(1 << 18, DType::F32, &device));
    let others = others.collect::<candle_core::Result<Vec<_>>>()?;
    for _ in 0..3 {
        assert!(small.repeats(&graph)?);
    }
    for other in &others {
        assert!(other.to_vec1::<f32>()?.iter().all(|value| *value == 1.0));
    }
    let graph = large.record(&device)?;
    assert!(large.repeats(&graph)?);
    Ok(())
}

#[test]
fn cuda_a_recording_that_fails_leaves_the_device_as_it_was() -> Result<()> {
    let Some(device) = device() else { return Ok(()) };
    let pass = Pass::new(&device, [2, 6, 8])?;
    // Its kernel is loaded here, so that only what is meant to fails.
    let _doubled = pass.setting.x.affine(2.0, 0.0)?;
    let fails = || -> Result<()> {
        // Its memory is freed after the driver has refused to wait.
        let y = pass.setting.x.affine(2.0, 0.0)?;
        device.synchronize()?;
        drop(y);
        Ok(())
    };
    let panics = || -> Result<()> {
        let _y = pass.setting.x.affine(2.0, 0.0)?;
        panic!("in a recording")
    };
    for _ in 0..2 {
        assert!(cuda::Graph::record(&device, fails).is_err());
        assert!(pass.run().is_ok());
        assert!(catch_unwind(AssertUnwindSafe(|| cuda::Graph::record(&device, panics))).is_err());
        let graph = pass.record(&device)?;
        assert!(pass.repeats(&graph)?);
    }
    Ok(())
}
