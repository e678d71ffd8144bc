//! The integer formula that `scripts/golden/models.py` fills its weights with.

use candle_core::{DType, Device, Tensor};
use kestrel_models::{Params, StateDict};

/// FNV-1a with 32 bits.
fn name_key(name: &str) -> u32 {
    name.bytes()
        .fold(0x811c_9dc5, |h, b| (h ^ u32::from(b)).wrapping_mul(0x0100_0193))
}

/// `n` numbers in `[-1, 1)`, exact in f32.
pub(crate) fn formula(name: &str, n: usize) -> Vec<f64> {
    (0..n as u32)
        .map(|i| {
            let mut x = i.wrapping_mul(0x9e37_79b1).wrapping_add(name_key(name));
            x ^= x >> 16;
            x = x.wrapping_mul(0x7feb_352d);
            x ^= x >> 15;
            x = x.wrapping_mul(0x846c_a68b);
            x ^= x >> 16;
            f64::from(x >> 8) / f64::from(1 << 23) - 1.0
        })
        .collect()
}

/// A tensor of numbers rounded to f32, in the given type.
pub(crate) fn tensor(values: Vec<f64>, dims: &[usize], dtype: DType) -> Tensor {
    let rounded: Vec<f32> = values.into_iter().map(|v| v as f32).collect();
    Tensor::from_vec(rounded, dims, &Device::Cpu)
        .unwrap()
        .to_dtype(dtype)
        .unwrap()
}

/// Sets every parameter and buffer from the formula, none to its initial value; the weights of convolutions are uniform with
/// variance `conv_gain / 3 fan_in`.
pub(crate) fn fill(params: &Params, dtype: DType, conv_gain: f64) {
    let shapes: Vec<(String, Vec<usize>)> = params
        .all()
        .into_iter()
        .map(|(name, var)| (name, var.dims().to_vec()))
        .collect();
    let mut dict = StateDict::new();
    for (name, dims) in &shapes {
        let (module, leaf) = name.rsplit_once('.').unwrap();
        let u = formula(name, dims.iter().product());
        let map = |scale: f64, shift: f64| u.iter().map(|v| shift + scale * v).collect::<Vec<_>>();
        let weight = format!("{module}.weight");
        let (_, weight) = shapes.iter().find(|(n, _)| *n == weight).unwrap();
        let values = match (leaf, weight.len()) {
            ("running_mean", _) => map(0.2, 0.0),
            ("running_var", _) | ("weight", 1) => map(0.5, 1.0),
            (_, 1) => map(0.3, 0.0),
            (_, rank) => {
                let gain = if rank == 4 { conv_gain } else { 1.0 };
                let fan_in: usize = weight[1..].iter().product();
                u.iter().map(|v| v / (fan_in as f64 / gain).sqrt()).collect()
            }
        };
        dict.insert(name.clone(), tensor(values, dims, dtype));
    }
    params.load_state_dict(&dict).unwrap();
}

/// The images of the golden files.
pub(crate) fn images(batch: usize, size: usize, dtype: DType) -> Tensor {
    images_named("images", batch, size, dtype)
}

/// Other images, for each name.
pub(crate) fn images_named(name: &str, batch: usize, size: usize, dtype: DType) -> Tensor {
    let values = formula(name, batch * 3 * size * size);
    let values = values.into_iter().map(|v| 2.0 * v).collect();
    tensor(values, &[batch, 3, size, size], dtype)
}
