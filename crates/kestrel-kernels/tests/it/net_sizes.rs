//! The rounding error of a convolution at the sizes of real nets, against f64, on a sample of elements.

use candle_core::{Device, Result, Tensor, Var};
use kestrel_kernels::channels_last;
use kestrel_kernels::random::{KeyedRng, Purpose};
use kestrel_kernels::{Conv2dConfig, tape};

/// Input channels, output channels, side of the image, kernel, stride, padding.
type Layer = (usize, usize, usize, usize, usize, usize);

/// The layers of the CIFAR CNN and of ResNet-18 at 224 pixels.
const LAYERS: [Layer; 17] = [
    (3, 64, 32, 3, 1, 1),
    (64, 64, 32, 3, 1, 1),
    (64, 128, 16, 3, 1, 1),
    (128, 128, 16, 3, 1, 1),
    (128, 256, 8, 3, 1, 1),
    (256, 256, 8, 3, 1, 1),
    (3, 64, 224, 7, 2, 3),
    (64, 64, 56, 3, 1, 1),
    (128, 128, 28, 3, 1, 1),
    (256, 256, 14, 3, 1, 1),
    (512, 512, 7, 3, 1, 1),
    (64, 128, 56, 3, 2, 1),
    (128, 256, 28, 3, 2, 1),
    (256, 512, 14, 3, 2, 1),
    (64, 128, 56, 1, 2, 0),
    (128, 256, 28, 1, 2, 0),
    (256, 512, 14, 1, 2, 0),
];

const BATCH: usize = 4;
/// Elements that are worked out in f64.
const SAMPLE: usize = 400;

fn normal(stream: u64, len: usize) -> Vec<f32> {
    let mut rng = KeyedRng::new(3, Purpose::Init, 0, stream);
    (0..len).map(|_| rng.normal() as f32).collect()
}

/// `‖got − want‖ / ‖want‖` over a sample of the elements of `got`.
fn sampled_error(got: &[f32], want: impl Fn(usize) -> f64) -> f64 {
    let (mut error, mut norm) = (0.0, 0.0);
    for i in 0..SAMPLE {
        // A prime step visits all channels, taps and places.
        let index = i * 7_368_787 % got.len();
        let want = want(index);
        error += (f64::from(got[index]) - want).powi(2);
        norm += want * want;
    }
    (error / norm).sqrt()
}

#[test]
fn errors_are_within_the_bounds() -> Result<()> {
    for layer @ (c, k, side, r, stride, padding) in LAYERS {
        let p = (side + 2 * padding - r) / stride + 1;
        let (x, w) = (normal(0, BATCH * side * side * c), normal(1, k * c * r * r));
        let dy = normal(2, BATCH * p * p * k);
        let tensor = |values: &[f32], dims: [usize; 4]| Tensor::from_slice(values, &dims, &Device::Cpu);
        let input = Var::from_tensor(&tensor(&x, [BATCH, side, side, c])?)?;
        let weight = Var::from_tensor(&tensor(&w, [k, c, r, r])?)?;
        let config = Conv2dConfig {
            stride,
            padding,
            ..Conv2dConfig::default()
        };
        let y = channels_last::conv2d(&input, &weight, None, &config)?;
        let grads = tape::backward(&y.mul(&tensor(&dy, [BATCH, p, p, k])?)?.sum_all()?)?;
        let values = |t: &Tensor| t.flatten_all()?.to_vec1::<f32>();
        let (y, dx, dw) = (
            values(&y)?,
            values(&grads.get(&input).unwrap().clone())?,
            values(grads.get(&weight).unwrap())?,
        );

        // The input's row or column under a tap of an output's, if it is inside.
        let under = |out: usize, tap: usize| (out * stride + tap).checked_sub(padding).filter(|at| *at < side);
        let x_at = |n: usize, y: usize, q: usize, c_in: usize| f64::from(x[((n * side + y) * side + q) * c + c_in]);
        let w_at = |k_out: usize, c_in: usize, tap: usize| f64::from(w[(k_out * c + c_in) * r * r + tap]);
        let dy_at = |n: usize, y: usize, q: usize, k_out: usize| f64::from(dy[((n * p + y) * p + q) * k + k_out]);

        let forward = sampled_error(&y, |index| {
            let (k_out, q, row, n) = (index % k, index / k % p, index / k / p % p, index / k / p / p);
            let taps = (0..r * r).filter_map(|tap| Some((tap, under(row, tap / r)?, under(q, tap % r)?)));
            taps.flat_map(|(tap, y, x)| (0..c).map(move |c_in| (tap, y, x, c_in)))
                .map(|(tap, y, x, c_in)| x_at(n, y, x, c_in) * w_at(k_out, c_in, tap))
                .sum()
        });
        let backward_data = sampled_error(&dx, |index| {
            let (c_in, x, y, n) = (
                index % c,
                index / c % side,
                index / c / side % side,
                index / c / side / side,
            );
            // The output whose window has this pixel under a tap.
            let over = |at: usize, tap: usize| {
                let start = (at + padding).checked_sub(tap)?;
                (start % stride == 0 && start / stride < p).then_some(start / stride)
            };
            let taps = (0..r * r).filter_map(|tap| Some((tap, over(y, tap / r)?, over(x, tap % r)?)));
            taps.flat_map(|(tap, row, q)| (0..k).map(move |k_out| (tap, row, q, k_out)))
                .map(|(tap, row, q, k_out)| dy_at(n, row, q, k_out) * w_at(k_out, c_in, tap))
                .sum()
        });
        let backward_weights = sampled_error(&dw, |index| {
            let (tap, c_in, k_out) = (index % (r * r), index / (r * r) % c, index / (r * r) / c);
            let outputs = (0..BATCH * p * p).map(|i| (i / p / p, i / p % p, i % p));
            outputs
                .filter_map(|(n, row, q)| {
                    Some(x_at(n, under(row, tap / r)?, under(q, tap % r)?, c_in) * dy_at(n, row, q, k_out))
                })
                .sum()
        });
        assert!(forward <= 5e-6, "{layer:?}, forward: {forward:.1e}");
        assert!(backward_data <= 1e-5, "{layer:?}, backward-data: {backward_data:.1e}");
        assert!(
            backward_weights <= 1e-5,
            "{layer:?}, backward-weights: {backward_weights:.1e}"
        );
    }
    Ok(())
}
