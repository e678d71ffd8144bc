//! The channels-last pooling against the channels-first one, to the bit.

use super::*;
use candle_core::Var;
use candle_core::{DType, Device};

fn values(len: usize) -> Vec<f32> {
    (0..len).map(|i| (i as f32 * 1.7).sin()).collect()
}

fn bits(tensor: &Tensor) -> candle_core::Result<Vec<u32>> {
    let values = tensor.flatten_all()?.to_vec1::<f32>()?;
    Ok(values.into_iter().map(f32::to_bits).collect())
}

/// Output and gradient of `pool`, in `[N, H, W, C]`, as bits.
fn run(x: &Tensor, pool: impl FnOnce(&Tensor) -> Result<Tensor>) -> candle_core::Result<(Vec<u32>, Vec<u32>)> {
    let x = Var::from_tensor(x)?;
    let y = pool(&x)?;
    let dy = Tensor::from_vec(values(y.elem_count()), y.shape(), &Device::Cpu)?;
    let grads = (&y * &dy)?.backward()?;
    let Some(dx) = grads.get(&x) else { panic!("no gradient") };
    Ok((bits(&y)?, bits(dx)?))
}

fn channels_first(x: &Tensor, pool: impl FnOnce(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
    let y = pool(&x.permute((0, 3, 1, 2))?)?;
    Ok(y.permute((0, 2, 3, 1))?.contiguous()?)
}

const POOLS: [(usize, usize, usize); 7] = [
    (2, 2, 0),
    (3, 2, 1),
    (3, 1, 1),
    (2, 3, 1),
    (1, 1, 0),
    (1, 2, 0),
    (5, 2, 2),
];

#[test]
fn equal_to_the_channels_first_op() -> candle_core::Result<()> {
    for (height, width) in [(1, 1), (2, 2), (5, 8), (7, 7), (1, 12)] {
        for channels in [1, 3, 16, 17, 64] {
            let shape = (3, height, width, channels);
            let x = Tensor::from_vec(values(3 * height * width * channels), shape, &Device::Cpu)?;
            for (kernel, stride, padding) in POOLS {
                for count_include_pad in [false, true] {
                    if height.min(width) + 2 * padding < kernel {
                        continue;
                    }
                    let here = run(&x, |x| avg_pool2d(x, kernel, stride, padding, count_include_pad))?;
                    let there = run(&x, |x| {
                        channels_first(x, |x| crate::avg_pool2d(x, kernel, stride, padding, count_include_pad))
                    })?;
                    assert!(here == there, "{kernel} {stride} {padding} on {shape:?}");
                }
            }
            for out in [(1, 1), (2, 3), (height, width), (7, 7)] {
                let here = run(&x, |x| adaptive_avg_pool2d(x, out))?;
                let there = run(&x, |x| channels_first(x, |x| crate::adaptive_avg_pool2d(x, out)))?;
                assert!(here == there, "{out:?} on {shape:?}");
            }
        }
    }
    Ok(())
}

/// The passes write every element of buffers that hold something else, and only they.
#[test]
fn every_element_is_written() -> candle_core::Result<()> {
    let mut axes = vec![(Axis::adaptive("", "", 7, 3)?, Axis::adaptive("", "", 6, 9)?)];
    for (kernel, stride, padding) in POOLS {
        let windows = Windows::new("", kernel, stride, padding, true)?;
        axes.push((windows.axis("", 7)?, windows.axis("", 6)?));
    }
    for (rows, columns) in axes {
        let g = Geometry::new(2, 5, rows, columns);
        let x = vec![1.0; g.batch * g.pixels() * g.channels];
        let mut y = vec![f32::NAN; g.batch * g.outputs() * g.channels];
        kernel::forward(&g, &x, &mut y);
        assert!(y.iter().all(|y| (0.0..=1.000_001).contains(y)), "{g:?}");
        let mut dx = vec![f32::NAN; x.len()];
        kernel::backward(&g, &y, &mut dx);
        assert!(dx.iter().all(|dx| dx.is_finite()), "{g:?}");
    }
    Ok(())
}

#[test]
fn bit_equal_for_any_thread_count() -> candle_core::Result<()> {
    let x = Tensor::from_vec(values(5 * 33 * 31 * 17), (5, 33, 31, 17), &Device::Cpu)?;
    let pools: [fn(&Tensor) -> Result<Tensor>; 4] = [
        |x| avg_pool2d(x, 2, 2, 0, true),
        |x| avg_pool2d(x, 3, 1, 1, false),
        |x| adaptive_avg_pool2d(x, (1, 1)),
        |x| adaptive_avg_pool2d(x, (7, 40)),
    ];
    for op in pools {
        let results = [1, 2, 4].map(|threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| run(&x, op).unwrap())
        });
        assert!(results[0] == results[1] && results[0] == results[2]);
    }
    Ok(())
}

/// Other types, permuted inputs, and no images at all.
#[test]
fn everything_else_is_pooled_too() -> candle_core::Result<()> {
    let x = Tensor::from_vec(values(2 * 8 * 9 * 3), (2, 8, 9, 3), &Device::Cpu)?;
    let wide = avg_pool2d(&x.to_dtype(DType::F64)?, 3, 2, 1, false)?;
    assert!(wide.is_contiguous() && wide.dtype() == DType::F64);
    let error = (wide.to_dtype(DType::F32)? - avg_pool2d(&x, 3, 2, 1, false)?)?;
    assert!(error.abs()?.max_all()?.to_scalar::<f32>()? < 1e-6);

    let permuted = x.transpose(1, 2)?;
    let copied = permuted.contiguous()?;
    let pool = |x: &Tensor| adaptive_avg_pool2d(x, (3, 2));
    assert_eq!(run(&permuted, pool)?, run(&copied, pool)?);
    assert_eq!(bits(&pool(&permuted)?)?, bits(&pool(&copied)?)?);

    for dtype in [DType::F32, DType::F64] {
        let none = Tensor::zeros((0, 4, 4, 3), dtype, &Device::Cpu)?;
        assert_eq!(avg_pool2d(&none, 2, 2, 0, true)?.dims(), [0, 2, 2, 3]);
        assert_eq!(adaptive_avg_pool2d(&none, (1, 3))?.dims(), [0, 1, 3, 3]);
    }
    Ok(())
}

#[test]
fn errors_are_those_of_the_channels_first_op() -> candle_core::Result<()> {
    let x = Tensor::zeros((1, 4, 4, 2), DType::F32, &Device::Cpu)?;
    let half = x.to_dtype(DType::F16)?;
    let first = |x: &Tensor| x.permute((0, 3, 1, 2));
    for (x, kernel, stride, padding) in [
        (&x, 0, 1, 0),
        (&x, 2, 0, 0),
        (&x, 2, 2, 2),
        (&x, 5, 1, 0),
        (&half, 2, 2, 0),
    ] {
        let here = avg_pool2d(x, kernel, stride, padding, true).unwrap_err();
        let there = crate::avg_pool2d(&first(x)?, kernel, stride, padding, true).unwrap_err();
        assert_eq!(here.to_string(), there.to_string());
    }
    for (x, out) in [(&x, (0, 1)), (&x, (1, 0)), (&half, (1, 1))] {
        let here = adaptive_avg_pool2d(x, out).unwrap_err();
        let there = crate::adaptive_avg_pool2d(&first(x)?, out).unwrap_err();
        assert_eq!(here.to_string(), there.to_string());
    }
    let flat = adaptive_avg_pool2d(&x.flatten_from(1)?, (1, 1)).unwrap_err();
    assert!(flat.to_string().contains("[N, H, W, C]"), "{flat}");
    Ok(())
}
