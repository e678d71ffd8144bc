//! The device, numbers, and the comparison.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use candle_core::{DType, Device, Tensor, Var};
use kestrel_kernels::autocast::{Precision, autocast};
use kestrel_kernels::cuda;
use kestrel_kernels::tape::{self, Tape, Value};

use crate::Result;

/// The device, if there is one, for one test at a time: a recording would take up what other tests launch.
pub(crate) struct Alone(
    Device,
    #[allow(dead_code, reason = "held until the test is over")] MutexGuard<'static, ()>,
);

impl std::ops::Deref for Alone {
    type Target = Device;

    fn deref(&self) -> &Device {
        &self.0
    }
}

pub(crate) fn device() -> Option<Alone> {
    static DEVICE: OnceLock<Option<Device>> = OnceLock::new();
    static ALONE: Mutex<()> = Mutex::new(());
    let device = DEVICE
        .get_or_init(|| match cuda::device(0) {
            Ok(device) => Some(device),
            Err(error) if std::env::var_os("KESTREL_REQUIRE_CUDA").is_none() => {
                eprintln!("skipped: no CUDA device ({error})");
                None
            }
            Err(error) => panic!("KESTREL_REQUIRE_CUDA is set, and there is no device: {error}"),
        })
        .clone()?;
    Some(Alone(device, ALONE.lock().unwrap_or_else(PoisonError::into_inner)))
}

/// `‖a − b‖ / ‖b‖`, of tensors on any devices.
pub(crate) fn distance(a: &Tensor, b: &Tensor) -> Result<f64> {
    assert_eq!(a.dims(), b.dims());
    let host = |t: &Tensor| {
        t.to_device(&Device::Cpu)?
            .to_dtype(DType::F64)?
            .flatten_all()?
            .to_vec1::<f64>()
    };
    let (a, b) = (host(a)?, host(b)?);
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    let size = norm(&mut b.iter().copied());
    let off = norm(&mut a.iter().zip(&b).map(|(a, b)| a - b));
    Ok(if size > 0.0 { off / size } else { off })
}

/// Numbers that depend on the seed alone.
pub(crate) fn values(dims: &[usize], seed: u32) -> Tensor {
    let count = dims.iter().product();
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12345);
    let values: Vec<f32> = (0..count)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect();
    Tensor::from_vec(values, dims, &Device::Cpu).unwrap()
}

/// What a program of a section is run on: an input and parameters, on one device.
pub(crate) struct Setting {
    pub(crate) x: Var,
    pub(crate) params: Vec<Var>,
    pub(crate) buffers: Vec<Tensor>,
}

impl Setting {
    pub(crate) fn on(device: &Device, x: &Tensor, params: &[Tensor], buffers: &[Tensor]) -> Result<Self> {
        let var = |tensor: &Tensor| Var::from_tensor(&tensor.to_device(device)?.copy()?);
        Ok(Self {
            x: var(x)?,
            params: params.iter().map(var).collect::<candle_core::Result<_>>()?,
            buffers: buffers
                .iter()
                .map(|buffer| buffer.to_device(device)?.copy())
                .collect::<candle_core::Result<_>>()?,
        })
    }

    /// The section's result, the gradients of the input and the parameters, and the buffers after.
    pub(crate) fn run(
        &self,
        program: &dyn Fn(&mut Tape, &Value, &Setting) -> Result<Value>,
        through: bool,
    ) -> Result<Vec<Tensor>> {
        let section = || {
            tape::section(|tape| {
                let x = tape.leaf(&self.x)?;
                program(tape, &x, self)
            })
        };
        let y = if through {
            tape::for_backward(section)?
        } else {
            section()?
        };
        let weights = values(y.dims(), 77).to_device(y.device())?;
        let loss = y.mul(&weights)?.sum_all()?;
        let grads = if through {
            tape::backward(&loss)?
        } else {
            loss.backward()?
        };
        let mut found = vec![y.detach()];
        for var in std::iter::once(&self.x).chain(&self.params) {
            found.push(grads.get(var).expect("a gradient").clone());
        }
        found.extend(self.buffers.iter().cloned());
        Ok(found)
    }
}

/// Holds a program of one op on the GPU to the same on the CPU.
pub(crate) fn compare(
    name: &str,
    x: &Tensor,
    params: &[Tensor],
    buffers: &[Tensor],
    program: &dyn Fn(&mut Tape, &Value, &Setting) -> Result<Value>,
) -> Result<()> {
    compare_within(&BOUNDS, &[], name, x, params, buffers, program)
}

/// Bounds of what a few roundings of factors and results explain, each of half the last bit: 2^-9 of a number in `bf16`, 2^-12 in
/// `f16`; in `f32` they are of sums in another order.
pub(crate) const BOUNDS: [(Precision, f64); 3] =
    [(Precision::F32, 2e-5), (Precision::Bf16, 2e-2), (Precision::F16, 3e-3)];

/// Holds a program on the GPU to the same on the CPU, within bounds in some precisions. The input is rounded first, so that both
/// begin with the same numbers. `noise`: results that are 0 but for rounding.
pub(crate) fn compare_within(
    bounds: &[(Precision, f64)],
    noise: &[usize],
    name: &str,
    x: &Tensor,
    params: &[Tensor],
    buffers: &[Tensor],
    program: &dyn Fn(&mut Tape, &Value, &Setting) -> Result<Value>,
) -> Result<()> {
    let Some(device) = device() else { return Ok(()) };
    let mut faults = Vec::new();
    for &(precision, bound) in bounds {
        let x = &x.to_dtype(precision.dtype())?.to_dtype(DType::F32)?;
        for through in [false, true] {
            let on = |device: &Device| -> Result<Vec<Tensor>> {
                let setting = Setting::on(device, x, params, buffers)?;
                autocast(precision, || setting.run(program, through))
            };
            let expected = on(&Device::Cpu)?;
            let got = match on(&device) {
                Ok(got) => got,
                Err(error) => {
                    faults.push(format!("{name} {precision}: {error}"));
                    continue;
                }
            };
            for (i, (got, expected)) in got.iter().zip(&expected).enumerate() {
                let off = if noise.contains(&i) {
                    0.0
                } else {
                    distance(got, expected)?
                };
                if off.is_nan() || off > bound {
                    faults.push(format!("{name} {precision} result {i} {:?}: {off:e}", expected.dims()));
                }
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    Ok(())
}

/// The weight of a 1x1 convolution that changes nothing: under autocast its result is the input in the precision's type.
pub(crate) fn identity_of(c: usize) -> Tensor {
    Tensor::eye(c, DType::F32, &Device::Cpu)
        .and_then(|eye| eye.reshape((c, c, 1, 1)))
        .unwrap()
}

/// Parameters and buffers of a batch norm.
pub(crate) fn norm_of(c: usize) -> ([Tensor; 2], [Tensor; 2]) {
    let ones = Tensor::ones(c, DType::F32, &Device::Cpu).unwrap();
    let weight = (values(&[c], 5) * 0.3).unwrap().add(&ones).unwrap();
    let var = (values(&[c], 8) * 0.3).unwrap().add(&ones).unwrap();
    ([weight, values(&[c], 6)], [values(&[c], 7), var])
}
