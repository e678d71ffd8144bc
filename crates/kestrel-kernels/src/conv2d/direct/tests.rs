//! The three passes against plain loops in f64, over shapes that fit blocks, panels and vectors badly.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::conv2d::Conv2dConfig;
use crate::conv2d::hooks::{Affine, Bias, ReluMask, Statistics, Then, ThroughStatistics};

/// Numbers in `[-1, 1)`, from a counter.
fn numbers(len: usize, seed: u64) -> Vec<f32> {
    (0..len as u64)
        .map(|i| {
            let mut bits = (i + (seed << 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            bits = (bits ^ (bits >> 31)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            ((bits >> 40) as f32) / (1_u64 << 23) as f32 - 1.0
        })
        .collect()
}

fn len(shape: [usize; 4]) -> usize {
    shape.iter().product()
}

fn shape(input: [usize; 4], k: usize, kernel: [usize; 2], [stride, padding, dilation]: [usize; 3]) -> Option<Shape> {
    let config = Conv2dConfig {
        stride,
        padding,
        dilation,
        groups: 1,
    };
    match Shape::new(input, k, kernel, &config) {
        Ok(shape) => Some(shape),
        Err(ShapeError::KernelTooLarge { .. }) => None,
        Err(error) => panic!("{error}"),
    }
}

/// Every kernel, stride, padding and dilation, each with a few of the images, batches and channels, so that every pair of
/// them occurs.
fn sweep() -> Vec<Shape> {
    const KERNELS: [[usize; 2]; 8] = [[1, 1], [2, 2], [3, 3], [5, 5], [7, 7], [1, 3], [5, 2], [3, 7]];
    const CHANNELS: [usize; 6] = [1, 3, 5, 8, 17, 33];
    const IMAGES: [[usize; 2]; 8] = [[1, 1], [2, 3], [3, 1], [5, 5], [4, 7], [8, 6], [11, 11], [9, 10]];
    const BATCHES: [usize; 3] = [1, 0, 3];
    let mut shapes = Vec::new();
    let mut count = 0;
    for kernel in KERNELS {
        for image in IMAGES {
            for stride in 1..=3 {
                for padding in 0..=3 {
                    for dilation in 1..=2 {
                        // Steps that have no divisor in common with the lists walk through all combinations.
                        count += 1;
                        let (c, k) = (CHANNELS[count * 5 % 6], CHANNELS[count / 6 * 5 % 6]);
                        let n = if count % 16 == 0 { 0 } else { BATCHES[count % 3 / 2 * 2] };
                        shapes.extend(shape(
                            [n, image[0], image[1], c],
                            k,
                            kernel,
                            [stride, padding, dilation],
                        ));
                    }
                }
            }
        }
    }
    // Miri interprets the code: a few of the smallest are enough for it.
    if cfg!(miri) {
        shapes.retain(|shape| len(shape.input()) * len(shape.weight()) < 300);
        shapes.truncate(12);
    }
    shapes
}

/// Shapes of several chunks of depth, ranges of channels, blocks and groups of pixels.
fn large() -> Vec<Shape> {
    [
        shape([2, 9, 9, 130], 67, [3, 3], [2, 1, 1]),
        shape([3, 13, 12, 40], 300, [3, 3], [1, 1, 1]),
        shape([1, 7, 7, 513], 40, [1, 1], [1, 0, 1]),
        shape([2, 30, 30, 3], 20, [7, 7], [2, 3, 1]),
        shape([1, 5, 200, 3], 5, [3, 3], [1, 1, 1]),
        shape([4, 17, 17, 20], 24, [1, 1], [2, 0, 1]),
        shape([9, 15, 14, 12], 33, [3, 3], [2, 2, 2]),
        shape([2, 5, 5, 310], 545, [1, 1], [1, 0, 1]),
        shape([1, 4, 4, 1024], 20, [2, 1], [1, 1, 1]),
    ]
    .into_iter()
    .flatten()
    .collect()
}

struct Case {
    shape: Shape,
    x: Vec<f32>,
    w: Vec<f32>,
    dy: Vec<f32>,
}

#[derive(PartialEq)]
struct Passes<T> {
    y: Vec<T>,
    dx: Vec<T>,
    dw: Vec<T>,
}

impl Case {
    fn new(shape: Shape) -> Self {
        Self {
            shape,
            x: numbers(len(shape.input()), 1),
            w: numbers(len(shape.weight()), 2),
            dy: numbers(len(shape.output()), 3),
        }
    }

    /// All three passes, by the definition, in f64.
    fn plain(&self) -> Passes<f64> {
        let ([n, h, w, c], [_, p, q, k]) = (self.shape.input(), self.shape.output());
        let [_, _, r, s] = self.shape.weight();
        let [mut y, mut dx, mut dw] = [self.dy.len(), self.x.len(), self.w.len()].map(|len| vec![0.0; len]);
        for (at, out) in (0..n * p * q).map(|i| ([i / (p * q), i / q % p, i % q], i * k)) {
            for tap in 0..r * s {
                let place = |at: usize, tap: usize, size: usize| {
                    let padded = at * self.shape.stride() + tap * self.shape.dilation();
                    padded.checked_sub(self.shape.padding()).filter(|&at| at < size)
                };
                let (Some(row), Some(column)) = (place(at[1], tap / s, h), place(at[2], tap % s, w)) else {
                    continue;
                };
                let pixel = ((at[0] * h + row) * w + column) * c;
                for (ki, ci) in (0..k).flat_map(|ki| (0..c).map(move |ci| (ki, ci))) {
                    let weight = (ki * c + ci) * r * s + tap;
                    let [x, g, dy] = [self.x[pixel + ci], self.w[weight], self.dy[out + ki]].map(f64::from);
                    y[out + ki] += x * g;
                    dx[pixel + ci] += g * dy;
                    dw[weight] += x * dy;
                }
            }
        }
        Passes { y, dx, dw }
    }

    /// All three passes, by the kernels, to outputs that hold NaN, in a workspace that other calls have used.
    fn direct(&self, isa: Isa, workspace: &mut Workspace) -> Passes<f32> {
        let conv = Direct::with_isa(self.shape, isa);
        let [mut y, mut dx, mut dw] = [self.dy.len(), self.x.len(), self.w.len()].map(|len| vec![f32::NAN; len]);
        conv.forward(&self.x, &self.w, &mut y, workspace);
        conv.backward_data(&self.dy, &self.w, &mut dx, workspace);
        conv.backward_weights(&self.x, &self.dy, &mut dw, workspace);
        Passes { y, dx, dw }
    }
}

fn instruction_sets() -> impl Iterator<Item = Isa> {
    Isa::ALL.into_iter().filter(|isa| isa.is_available())
}

/// Panics unless `‖got - want‖ <= bound * ‖want‖` and zeros are exact; a NaN is within no bound.
fn check(what: &str, shape: Shape, isa: Isa, got: &[f32], want: &[f64], bound: f64) {
    assert_eq!(got.len(), want.len());
    let square = |v: f64| v * v;
    let error: f64 = got.iter().zip(want).map(|(&g, w)| square(f64::from(g) - w)).sum();
    let norm: f64 = want.iter().copied().map(square).sum();
    assert!(
        error.sqrt() <= bound * norm.sqrt(),
        "{what}, {isa}, {shape:?}: error {:.1e} of {:.1e}, expected at most {bound:.0e}",
        error.sqrt(),
        norm.sqrt()
    );
}

fn check_passes(shapes: &[Shape]) {
    let mut workspace = Workspace::new();
    for &shape in shapes {
        let case = Case::new(shape);
        let want = case.plain();
        for isa in instruction_sets() {
            let got = case.direct(isa, &mut workspace);
            check("forward", shape, isa, &got.y, &want.y, 5e-6);
            check("backward-data", shape, isa, &got.dx, &want.dx, 1e-5);
            check("backward-weights", shape, isa, &got.dw, &want.dw, 1e-5);
        }
    }
}

#[test]
fn the_sweep_has_every_size() {
    let shapes = sweep();
    if cfg!(miri) {
        return;
    }
    assert!(shapes.len() > 1000, "{}", shapes.len());
    for wanted in [1, 3, 5, 8, 17, 33] {
        assert!(shapes.iter().any(|shape| shape.weight()[0] == wanted));
        assert!(shapes.iter().any(|shape| shape.weight()[1] == wanted));
    }
    for wanted in [0, 1, 3] {
        assert!(shapes.iter().any(|shape| shape.input()[0] == wanted));
    }
}

#[test]
fn every_pass_equals_plain_loops() {
    check_passes(&sweep());
}

#[test]
#[cfg_attr(miri, ignore = "too large to interpret")]
fn every_pass_equals_plain_loops_where_work_is_cut() {
    check_passes(&large());
}

#[test]
#[cfg_attr(miri, ignore = "too large to interpret")]
fn results_are_bit_equal_for_any_number_of_threads() {
    for shape in large() {
        let case = Case::new(shape);
        for isa in instruction_sets() {
            let run = |threads: usize| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| {
                    let mut workspace = Workspace::new();
                    let passes = case.direct(isa, &mut workspace);
                    let mut y = vec![f32::NAN; case.dy.len()];
                    let center = vec![0.25; shape.output()[3]];
                    let statistics = Statistics { center: &center };
                    // SAFETY: the pass writes initialised elements alone.
                    let out = unsafe { element::to_be_written(&mut y) };
                    let conv = Direct::with_isa(shape, isa);
                    let sums = conv.forward_with(&case.x, &case.w, &statistics, out, &mut workspace);
                    assert!(y == passes.y);
                    (passes, sums)
                })
            };
            let one = run(1);
            for threads in [2, 4] {
                assert!(run(threads) == one, "{isa}, {shape:?}, {threads} threads");
            }
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "too large to interpret")]
fn epilogues_change_outputs_and_gather_sums() {
    let mut workspace = Workspace::new();
    for shape in large() {
        let case = Case::new(shape);
        let want = case.plain();
        let (k, c) = (shape.output()[3], shape.input()[3]);
        let (bias, zeros) = (numbers(k, 4), vec![0.0; k]);
        let (scale, shift, origin) = (numbers(c, 5), numbers(c, 6), vec![0.0; c]);
        let biased: Vec<f64> = want
            .y
            .iter()
            .enumerate()
            .map(|(i, y)| y + f64::from(bias[i % k]))
            .collect();
        for isa in instruction_sets() {
            let conv = Direct::with_isa(shape, isa);
            let mut y = vec![f32::NAN; case.dy.len()];
            let epilogue = Then {
                first: Bias { bias: &bias },
                second: Statistics { center: &zeros },
            };
            // SAFETY: the pass writes initialised elements alone.
            let out = unsafe { element::to_be_written(&mut y) };
            let sums = conv.forward_with(&case.x, &case.w, &epilogue, out, &mut workspace);
            check("biased", shape, isa, &y, &biased, 5e-6);
            check_sums(&sums, k, &biased, |_, y| y * y);

            let mask = ReluMask::<true> {
                x: &case.x,
                affine: Affine {
                    center: &origin,
                    scale: &scale,
                    shift: &shift,
                },
            };
            let kept = |i: usize| f64::from(case.x[i].mul_add(scale[i % c], shift[i % c])) > 0.0;
            let masked: Vec<f64> = want
                .dx
                .iter()
                .enumerate()
                .map(|(i, &g)| if kept(i) { g } else { 0.0 })
                .collect();
            let mut dx = vec![f32::NAN; case.x.len()];
            // SAFETY: the pass writes initialised elements alone.
            let out = unsafe { element::to_be_written(&mut dx) };
            let sums = conv.backward_data_with(&case.dy, &case.w, &mask, out, &mut workspace);
            check("masked", shape, isa, &dx, &masked, 1e-5);
            check_sums(&sums, c, &masked, |i, g| g * f64::from(case.x[i]));
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "too large to interpret")]
fn a_gradient_that_is_made_on_load_is_the_same_as_one_in_memory() {
    let mut workspace = Workspace::new();
    for shape in sweep().into_iter().chain(large()) {
        let case = Case::new(shape);
        let k = shape.output()[3];
        let (x, zeros, ones) = (numbers(case.dy.len(), 4), vec![0.0; k], vec![1.0; k]);
        // Of these constants `dy - x`, in one rounding in every instruction set.
        let load = ThroughStatistics {
            x: &x,
            center: &zeros,
            scale: &ones,
            slope: &ones,
            offset: &zeros,
        };
        let dy: Vec<f32> = case.dy.iter().zip(&x).map(|(dy, x)| dy - x).collect();
        for isa in instruction_sets() {
            let conv = Direct::with_isa(shape, isa);
            let [mut got, mut want] = [f32::NAN; 2].map(|fill| vec![fill; case.w.len()]);
            conv.backward_weights_with(&case.x, &case.dy, &load, &mut got, &mut workspace);
            conv.backward_weights(&case.x, &dy, &mut want, &mut workspace);
            assert!(got == want, "{isa}, {shape:?}");
        }
    }
}

/// Panics unless `sums` are those of `values` and of `product`s, for each of `channels`, up to rounding.
fn check_sums(sums: &[f64], channels: usize, values: &[f64], product: impl Fn(usize, f64) -> f64) {
    assert_eq!(sums.len(), 2 * channels);
    for channel in 0..channels {
        let indices = || (channel..values.len()).step_by(channels);
        let magnitude: f64 = indices()
            .map(|i| values[i].abs().max(product(i, values[i]).abs()))
            .sum();
        let sum: f64 = indices().map(|i| values[i]).sum();
        let products: f64 = indices().map(|i| product(i, values[i])).sum();
        let errors = [sums[channel] - sum, sums[channels + channel] - products];
        assert!(
            errors.iter().all(|error| error.abs() <= 2e-5 * magnitude),
            "{errors:?} of {magnitude}"
        );
    }
}

#[test]
#[should_panic(expected = "expected an input of shape [1, 4, 4, 2]")]
fn a_slice_of_another_length_is_refused() {
    let conv = Direct::new(shape([1, 4, 4, 2], 2, [3, 3], [1, 1, 1]).unwrap());
    conv.forward(&[0.0; 31], &[0.0; 36], &mut [0.0; 32], &mut Workspace::new());
}
