//! Every product against plain loops in f64.

use super::*;

/// `(n, h, w, c, k, r, padding)`, from a single pixel to more than one strip and more than one partial sum.
const SIZES: [(usize, usize, usize, usize, usize, usize, usize); 13] = [
    (1, 1, 1, 1, 1, 1, 0),
    (2, 1, 1, 3, 7, 3, 1),
    (3, 1, 1, 5, 64, 5, 2),
    (2, 1, 2, 3, 7, 1, 3),
    (2, 5, 4, 3, 64, 3, 0),
    (2, 4, 5, 5, 7, 3, 1),
    (3, 7, 3, 1, 1, 3, 2),
    (1, 2, 9, 3, 7, 2, 1),
    (1, 3, 3, 2, 5, 5, 4),
    (3, 6, 6, 3, 7, 7, 3),
    (2, 32, 32, 3, 64, 3, 1),
    (1, 17, 19, 4, 17, 3, 1),
    (5, 31, 33, 1, 3, 3, 1),
];

fn values(len: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

/// `|a − b| / |b|` over all elements.
fn relative_error(a: &[f32], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    let norm: f64 = b.iter().map(|b| b * b).sum();
    let error: f64 = a.iter().zip(b).map(|(a, b)| (f64::from(*a) - b).powi(2)).sum();
    assert!(norm > 0.0);
    (error / norm).sqrt()
}

/// Calls `visit` with the indices into `y`, `weight` and `x` of every product.
fn products(
    (n, h, w, c, k, r, padding): (usize, usize, usize, usize, usize, usize, usize),
    mut visit: impl FnMut(usize, usize, usize),
) {
    let (p, q) = (h + 2 * padding - r + 1, w + 2 * padding - r + 1);
    for output in 0..n * p * q * k {
        let (channel, pixel) = (output % k, output / k);
        let (column, row, image) = (pixel % q, pixel / q % p, pixel / q / p);
        for tap in 0..c * r * r {
            let (s, t, c_in) = (tap % r, tap / r % r, tap / r / r);
            let (Some(y), Some(x)) = ((row + t).checked_sub(padding), (column + s).checked_sub(padding)) else {
                continue;
            };
            if y < h && x < w {
                visit(output, channel * c * r * r + tap, ((image * h + y) * w + x) * c + c_in);
            }
        }
    }
}

#[test]
fn forward_agrees_with_plain_loops() {
    for size in SIZES {
        let (n, h, w, c, k, r, padding) = size;
        let x = values(n * h * w * c, 1);
        let weight = values(k * c * r * r, 2);
        let bias = values(k, 3);
        let len = n * (h + 2 * padding - r + 1) * (w + 2 * padding - r + 1) * k;
        for bias in [None, Some(&bias[..])] {
            let mut expected: Vec<f64> = (0..len)
                .map(|i| bias.map_or(0.0, |bias| f64::from(bias[i % k])))
                .collect();
            products(size, |y, weight_at, x_at| {
                expected[y] += f64::from(weight[weight_at]) * f64::from(x[x_at]);
            });
            let mut y = vec![f32::NAN; len];
            forward(&x, [n, h, w, c], &weight, bias, k, r, padding, &mut y);
            let error = relative_error(&y, &expected);
            assert!(error <= 1e-6, "{size:?}, bias {}: {error:e}", bias.is_some());
        }
    }
}

#[test]
fn backward_weights_agrees_with_plain_loops() {
    for size in SIZES {
        let (n, h, w, c, k, r, padding) = size;
        let x = values(n * h * w * c, 1);
        let dy = values(n * (h + 2 * padding - r + 1) * (w + 2 * padding - r + 1) * k, 4);
        let mut expected = vec![0.0; k * c * r * r];
        products(size, |y, weight, x_at| {
            expected[weight] += f64::from(dy[y]) * f64::from(x[x_at])
        });
        let mut dw = vec![f32::NAN; expected.len()];
        backward_weights(&x, [n, h, w, c], &dy, k, r, padding, &mut dw);
        let error = relative_error(&dw, &expected);
        assert!(error <= 1e-6, "{size:?}: {error:e}");
    }
}

#[test]
fn no_images_have_no_gradient() {
    let mut dw = [f32::NAN; 2];
    backward_weights(&[], [0, 4, 4, 2], &[], 1, 1, 0, &mut dw);
    assert_eq!(dw, [0.0; 2]);
    forward(&[], [0, 4, 4, 2], &[1.0; 2], None, 1, 1, 0, &mut []);
    assert_eq!(bias_gradient(&[], 3), [0.0; 3]);
}

/// Sums that cancel to a millionth of their terms, and sums of one sign, which grow.
#[test]
fn bias_gradient_agrees_with_f64() {
    for k in [1, 3, 7, 16, 17, 64] {
        for rows in [1, 2, 3, 4, 5, 1023, 1025, 5003] {
            let signed = values(rows * k, 5);
            let positive: Vec<f32> = signed.iter().map(|v| v + 1.5).collect();
            for dy in [signed, positive] {
                let mut expected = vec![0.0; k];
                for (i, dy) in dy.iter().enumerate() {
                    expected[i % k] += f64::from(*dy);
                }
                for (got, expected) in bias_gradient(&dy, k).iter().zip(&expected) {
                    let error = (f64::from(*got) - expected).abs();
                    assert!(error <= 1e-7 * expected.abs(), "[{rows}, {k}]: {got} {expected}");
                }
            }
        }
    }
}

#[test]
fn bit_equal_for_any_thread_count() {
    let size @ [n, h, w, c] = [9, 29, 31, 3];
    let (k, r, padding) = (17, 3, 1);
    let (x, weight, dy) = (
        values(n * h * w * c, 1),
        values(k * c * r * r, 2),
        values(n * h * w * k, 4),
    );
    let results = [1, 2, 4].map(|threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let (mut y, mut dw) = (vec![0.0; dy.len()], vec![0.0; weight.len()]);
            forward(&x, size, &weight, Some(&weight[..k]), k, r, padding, &mut y);
            backward_weights(&x, size, &dy, k, r, padding, &mut dw);
            let values = [y, dw, bias_gradient(&dy, k)].concat();
            values.into_iter().map(f32::to_bits).collect::<Vec<_>>()
        })
    });
    assert!(results[0] == results[1] && results[0] == results[2]);
}

#[test]
#[should_panic(expected = "kernel larger than the padded image")]
fn a_kernel_larger_than_the_image_is_refused() {
    forward(&[0.0; 4], [1, 2, 2, 1], &[0.0; 25], None, 1, 5, 1, &mut []);
}

#[test]
#[should_panic(expected = "expected outputs [N, P, Q, K]")]
fn outputs_of_another_size_are_refused() {
    forward(&[0.0; 4], [1, 2, 2, 1], &[0.0; 9], None, 1, 3, 1, &mut [0.0; 5]);
}
