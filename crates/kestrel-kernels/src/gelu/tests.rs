//! Gelu against its value in f64, on every instruction set, and the two ways of computing it against each other.

use candle_core::Var;

use super::*;
use crate::simd::{Isa, Kernel, Simd};

/// Numbers near 0, in both tails, and far out.
fn inputs() -> Vec<f32> {
    let near = (0..4000).map(|i| (i - 2000) as f32 * 5e-3);
    let tiny = (-40..40).flat_map(|e| [1.3, -0.7].map(|m: f32| m * 2f32.powi(e - 20)));
    near.chain(tiny).collect()
}

/// Gelu and its slope, by one instruction set.
struct Both<'a>(&'a [f32]);

impl Kernel for Both<'_> {
    type Output = Vec<[f32; 2]>;

    fn run<S: Simd>(self, s: S) -> Self::Output {
        let one = |x: &f32| {
            let x = s.splat(*x);
            [normal::gelu(s, x), normal::gelu_slope(s, x)].map(|value| {
                let mut out = [0.0f32];
                // SAFETY: one float is writable, and every vector has one.
                unsafe { s.store_first(out.as_mut_ptr(), value, 1) };
                out[0]
            })
        };
        self.0.iter().map(one).collect()
    }
}

#[test]
fn is_within_the_stated_error_on_every_instruction_set() {
    let x = inputs();
    let wide: Vec<f64> = x.iter().copied().map(f64::from).collect();
    let (y, mut slope) = (kernel::forward_f64(&wide), vec![1.0; x.len()]);
    kernel::backward_f64(&wide, &mut slope);
    for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
        for (i, [got, got_slope]) in isa.dispatch(Both(&x)).into_iter().enumerate() {
            let error = (f64::from(got) - y[i]).abs();
            assert!(
                error <= 3e-7 * wide[i].abs(),
                "{isa}: gelu({}) is {got}, not {}",
                x[i],
                y[i]
            );
            assert!(
                (f64::from(got_slope) - slope[i]).abs() <= 4e-7,
                "{isa}: the slope at {} is {got_slope}, not {}",
                x[i],
                slope[i]
            );
            if (-5.0..0.0).contains(&x[i]) {
                assert!(
                    error <= 3e-6 * y[i].abs(),
                    "{isa}: gelu({}) is {got}, not {}",
                    x[i],
                    y[i]
                );
            }
        }
    }
}

/// Few enough for Miri: whole vectors and a rest.
#[test]
fn few_elements_are_all_written() {
    for len in [0, 1, 4, 16, 37] {
        let x: Vec<f32> = (0..len).map(|i| i as f32 * 0.25 - 3.0).collect();
        let wide: Vec<f64> = x.iter().copied().map(f64::from).collect();
        let (mut g, mut wide_g) = (vec![2.0f32; len], vec![2.0f64; len]);
        let (y, wide_y) = (kernel::forward(&x), kernel::forward_f64(&wide));
        kernel::backward(&x, &mut g);
        kernel::backward_f64(&wide, &mut wide_g);
        for (got, want) in y.iter().zip(wide_y).chain(g.iter().zip(wide_g)) {
            assert!((f64::from(*got) - want).abs() <= 1e-5, "{got} {want}");
        }
        assert_eq!((y.len(), g.len()), (len, len));
    }
}

#[test]
fn zero_nan_and_the_infinities_are_pytorchs() -> candle_core::Result<()> {
    let x = Var::new(
        &[0f32, -0.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 30.0, -30.0],
        &Device::Cpu,
    )?;
    let y = gelu(&x)?;
    let values = y.to_vec1::<f32>()?;
    assert_eq!(values[..2], [0.0, 0.0]);
    assert!(values[2].is_nan() && values[4].is_nan(), "{values:?}");
    assert_eq!((values[3], values[5]), (f32::INFINITY, 30.0));
    assert!(values[6].abs() < 1e-30, "{values:?}");
    let grads = y.backward()?;
    let Some(slope) = grads.get(&x) else {
        panic!("no gradient")
    };
    let slope = slope.to_vec1::<f32>()?;
    assert!(
        (slope[0] - 0.5).abs() < 1e-7 && (slope[1] - 0.5).abs() < 1e-7,
        "{slope:?}"
    );
    assert!(
        slope[2].is_nan() && slope[5] == 1.0 && slope[6].abs() < 1e-30,
        "{slope:?}"
    );
    Ok(())
}

/// Odd lengths, strides, and several pieces of work; the kernel, the composite of other devices, and a section.
#[test]
fn every_way_gives_the_same() -> candle_core::Result<()> {
    for shape in [vec![1], vec![17, 3], vec![3, 101, 163], vec![0, 4]] {
        let count: usize = shape.iter().product();
        let values: Vec<f32> = (0..count).map(|i| ((i * 7919) % 1009) as f32 / 100.0 - 5.0).collect();
        for dtype in [DType::F32, DType::F64] {
            let x = Var::from_tensor(&Tensor::from_slice(&values, &shape[..], &Device::Cpu)?.to_dtype(dtype)?)?;
            let of = |op: &dyn Fn(&Tensor) -> Result<Tensor>| -> candle_core::Result<[Vec<f64>; 2]> {
                let strided = x.t().or_else(|_| Ok::<_, candle_core::Error>(x.as_tensor().clone()))?;
                let y = op(&strided)?;
                let grads = (&y * &y)?.sum_all()?.backward()?;
                let Some(dx) = grads.get(&x) else { panic!("no gradient") };
                let read = |t: &Tensor| t.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>();
                Ok([read(&y)?, read(dx)?])
            };
            let kernel = of(&gelu)?;
            let section = of(&|x| {
                crate::tape::section(|tape| {
                    let x = tape.leaf(x)?;
                    tape.gelu(&x)
                })
            })?;
            assert_eq!(kernel, section);
            let composite = of(&|x| Ok(composite(x)?))?;
            let bound = if dtype == DType::F32 { 2e-5 } else { 1e-12 };
            for (got, want) in kernel.iter().flatten().zip(composite.iter().flatten()) {
                assert!((got - want).abs() <= bound, "{got} {want}");
            }
        }
    }
    Ok(())
}

#[test]
fn other_types_are_refused() -> candle_core::Result<()> {
    let x = Tensor::zeros(3, DType::U8, &Device::Cpu)?;
    assert!(matches!(gelu(&x), Err(crate::Error::DTypeMismatch { op: "gelu", .. })));
    Ok(())
}
