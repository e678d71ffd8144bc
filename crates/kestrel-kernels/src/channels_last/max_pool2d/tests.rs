//! The channels-last pooling against the channels-first one, to the bit.

use super::*;
use candle_core::Var;
use candle_core::{DType, Device};

const POOLS: [(usize, usize, usize); 8] = [
    (2, 2, 0),
    (3, 2, 1),
    (3, 1, 1),
    (2, 1, 1),
    (2, 3, 1),
    (1, 1, 0),
    (1, 2, 0),
    (5, 2, 2),
];

/// Few values, so that windows hold ties, with both zeros, NaN and −∞ among them.
fn values(len: usize, special: bool) -> Vec<f32> {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state >> 16
    };
    (0..len)
        .map(|_| match next() % 16 {
            0 if special => f32::NAN,
            1..=6 if special => f32::NEG_INFINITY,
            7 => -0.0,
            _ => (next() % 7) as f32 - 3.0,
        })
        .collect()
}

fn bits(tensor: &Tensor) -> candle_core::Result<Vec<u32>> {
    let values = tensor.flatten_all()?.to_vec1::<f32>()?;
    Ok(values.into_iter().map(f32::to_bits).collect())
}

/// Output and gradient of `pool`, in `[N, H, W, C]`, as bits.
fn run(
    x: &Tensor,
    dy: Option<&[f32]>,
    pool: impl FnOnce(&Tensor) -> Result<Tensor>,
) -> candle_core::Result<(Vec<u32>, Vec<u32>)> {
    let x = Var::from_tensor(x)?;
    let y = pool(&x)?;
    let dy = match dy {
        Some(dy) => Tensor::from_slice(&dy[..y.elem_count()], y.shape(), &Device::Cpu)?,
        None => y.ones_like()?,
    };
    let grads = (&y * &dy)?.backward()?;
    let Some(dx) = grads.get(&x) else { panic!("no gradient") };
    Ok((bits(&y)?, bits(dx)?))
}

fn channels_first(x: &Tensor, (kernel, stride, padding): (usize, usize, usize)) -> Result<Tensor> {
    let y = crate::max_pool2d(&x.permute((0, 3, 1, 2))?, kernel, stride, padding)?;
    Ok(y.permute((0, 2, 3, 1))?.contiguous()?)
}

#[test]
fn equal_to_the_channels_first_op() -> candle_core::Result<()> {
    let mut choices = 0;
    for (height, width) in [(2, 2), (5, 8), (7, 7), (8, 5), (6, 12)] {
        for channels in [1, 3, 16, 17, 64] {
            for (pool, special) in POOLS.into_iter().flat_map(|pool| [(pool, false), (pool, true)]) {
                let (kernel, stride, padding) = pool;
                if height + 2 * padding < kernel {
                    continue;
                }
                let shape = (3, height, width, channels);
                let data = values(3 * height * width * channels, special);
                let x = Tensor::from_vec(data, shape, &Device::Cpu)?;
                let dy: Vec<f32> = values(4 * (height + 2) * (width + 2) * channels, false)
                    .iter()
                    .enumerate()
                    .map(|(i, v)| v * (1.0 + i as f32 * 1e-3))
                    .collect();
                let fast = run(&x, Some(&dy), |x| max_pool2d(x, kernel, stride, padding))?;
                let slow = run(&x, Some(&dy), |x| channels_first(x, pool))?;
                assert!(fast == slow, "{pool:?} on {shape:?}, special values: {special}");
                choices += fast.1.iter().filter(|v| **v != 0).count();
            }
        }
    }
    assert!(choices > 100_000, "{choices} gradients arrived");
    Ok(())
}

/// Both pairs of kernels, on pixels few enough for Miri.
#[test]
fn few_pixels_are_pooled_alike_whole_and_on_load() -> candle_core::Result<()> {
    for channels in [1, 4, 19] {
        let (height, width) = (5, 4);
        let data = values(2 * height * width * channels, false);
        let x = Tensor::from_slice(&data, (2, height, width, channels), &Device::Cpu)?;
        let geometry = Geometry::channels_last(OP, &x, 2, 2, 0)?;
        let normalized = Normalized {
            x,
            scale: (0..channels).map(|c| 1.5 - c as f32 * 0.25).collect(),
            shift: vec![0.5; channels],
            center: vec![0.25; channels],
            activation: Pointwise::Relu,
            whole: Default::default(),
        };
        // Small numbers of quarters: no sum is rounded.
        let affine = |(i, x): (usize, &f32)| (x - 0.25) * normalized.scale[i % channels] + 0.5;
        let z: Vec<f32> = data.iter().enumerate().map(affine).collect();
        let whole: Vec<f32> = z.iter().map(|z| z.max(0.0)).collect();
        let (maxima, choices) = kernel::maxima(&geometry, &whole, true);
        assert_eq!(maxima, normalized::maxima(&geometry, &normalized, &data));
        let dy: Vec<f32> = (0..maxima.len()).map(|i| (i % 7) as f32 - 3.0).collect();
        let dx = kernel::scatter(&geometry, &choices, &dy);
        let dx: Vec<f32> = dx
            .iter()
            .zip(&z)
            .map(|(dx, z)| if *z > 0.0 { *dx } else { 0.0 })
            .collect();
        let gated = normalized::scatter(&geometry, &normalized, &data, &dy);
        assert_eq!(gated.g, dx);
        for channel in 0..channels {
            let sum: f64 = dx.iter().skip(channel).step_by(channels).copied().map(f64::from).sum();
            assert_eq!(gated.sum[channel], sum);
        }
    }
    Ok(())
}

#[test]
fn the_first_maximum_takes_the_gradient_and_nan_passes() -> candle_core::Result<()> {
    let x = Tensor::new(&[[[[1f32, 4.], [2., f32::NAN]], [[2., 5.], [2., 3.]]]], &Device::Cpu)?;
    let (y, dx) = run(&x, None, |x| max_pool2d(x, 2, 2, 0))?;
    assert_eq!(y[0], 2f32.to_bits());
    assert!(f32::from_bits(y[1]).is_nan());
    let one = 1f32.to_bits();
    assert_eq!(dx, [0, 0, one, one, 0, 0, 0, 0]);
    Ok(())
}

/// candle's own products turn −0 into 0 on the way, so the pass is called by itself.
#[test]
fn a_gradient_of_minus_zero_arrives_as_zero() -> candle_core::Result<()> {
    let x = Tensor::zeros((1, 2, 2, 17), DType::F32, &Device::Cpu)?;
    for kernel in [2, 1] {
        let geometry = Geometry::channels_last(OP, &x, kernel, 2, 0)?;
        let dx = super::kernel::scatter(&geometry, &[0; 17], &[-0.0; 17]);
        assert!(dx.iter().all(|dx| dx.to_bits() == 0));
    }
    Ok(())
}

#[test]
fn bit_equal_for_any_thread_count() -> candle_core::Result<()> {
    for (kernel, stride, padding) in POOLS {
        let x = Tensor::from_vec(values(5 * 33 * 31 * 17, true), (5, 33, 31, 17), &Device::Cpu)?;
        let results = [1, 2, 4].map(|threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| run(&x, None, |x| max_pool2d(x, kernel, stride, padding)).unwrap())
        });
        assert!(results[0] == results[1] && results[0] == results[2]);
    }
    Ok(())
}

/// Other types, kernels whose taps outnumber a byte, permuted inputs, and no images at all.
#[test]
fn everything_else_is_pooled_too() -> candle_core::Result<()> {
    let x = Tensor::from_vec(values(2 * 20 * 19 * 3, false), (2, 20, 19, 3), &Device::Cpu)?;
    let (fast, slow) = (max_pool2d(&x, 17, 2, 3)?, channels_first(&x, (17, 2, 3))?);
    assert!(fast.is_contiguous() && bits(&fast)? == bits(&slow)?);

    let wide = max_pool2d(&x.to_dtype(DType::F64)?, 3, 2, 1)?;
    assert!(wide.is_contiguous() && wide.dtype() == DType::F64);
    assert_eq!(bits(&wide.to_dtype(DType::F32)?)?, bits(&max_pool2d(&x, 3, 2, 1)?)?);

    let permuted = x.transpose(1, 2)?;
    let copied = permuted.contiguous()?;
    assert_eq!(
        run(&permuted, None, |x| max_pool2d(x, 2, 2, 0))?,
        run(&copied, None, |x| max_pool2d(x, 2, 2, 0))?
    );
    assert_eq!(
        bits(&max_pool2d(&permuted, 2, 2, 0)?)?,
        bits(&max_pool2d(&copied, 2, 2, 0)?)?
    );

    let none = Tensor::zeros((0, 4, 4, 3), DType::F32, &Device::Cpu)?;
    assert_eq!(max_pool2d(&none, 2, 2, 0)?.dims(), [0, 2, 2, 3]);
    Ok(())
}

#[test]
fn errors_are_those_of_the_channels_first_op() -> candle_core::Result<()> {
    let x = Tensor::zeros((1, 4, 4, 2), DType::F32, &Device::Cpu)?;
    let half = x.to_dtype(DType::F16)?;
    for (x, kernel, stride, padding) in [
        (&x, 0, 1, 0),
        (&x, 2, 0, 0),
        (&x, 2, 2, 2),
        (&x, 5, 1, 0),
        (&half, 2, 2, 0),
    ] {
        let here = max_pool2d(x, kernel, stride, padding).unwrap_err();
        let there = crate::max_pool2d(&x.permute((0, 3, 1, 2))?, kernel, stride, padding).unwrap_err();
        assert_eq!(here.to_string(), there.to_string());
    }
    let flat = max_pool2d(&x.flatten_from(1)?, 2, 2, 0).unwrap_err();
    assert!(flat.to_string().contains("[N, H, W, C]"), "{flat}");
    Ok(())
}
