//! Inputs drawn from keyed generators, the same in every run.

use candle_core::{Device, Result, Tensor, Var, WithDType};
use kestrel_kernels::random::{KeyedRng, Purpose};
use std::cell::Cell;

thread_local! {
    /// Draws of this thread so far; libtest gives each test a thread.
    static DRAWS: Cell<u64> = const { Cell::new(0) };
}

fn rng() -> KeyedRng {
    KeyedRng::new(20, Purpose::Init, 0, DRAWS.replace(DRAWS.get() + 1))
}

/// Standard normal values.
pub(crate) fn normal<T: WithDType>(shape: &[usize]) -> Result<Var> {
    let mut rng = rng();
    let values: Vec<T> = (0..shape.iter().product()).map(|_| T::from_f64(rng.normal())).collect();
    Var::from_vec(values, shape, &Device::Cpu)
}

/// Standard normal values in the shape and type of another tensor.
pub(crate) fn normal_like(tensor: &Tensor) -> Result<Tensor> {
    Ok(normal::<f64>(tensor.dims())?.to_dtype(tensor.dtype())?.detach())
}

/// Values that lie 0.1 apart and off 0, so that no small step makes or breaks a tie.
pub(crate) fn distinct(shape: &[usize]) -> Result<Var> {
    let count: usize = shape.iter().product();
    let mut values: Vec<f64> = (0..count)
        .map(|i| (i as f64 - count as f64 / 2.0) * 0.1 + 0.03)
        .collect();
    rng().shuffle(&mut values);
    Var::from_vec(values, shape, &Device::Cpu)
}
