//! The three passes against a direct convolution in f64, over shapes that fit tiles and vectors badly.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::conv2d::hooks::{Affine, AffineRelu, AndExtremes, Bias, MaxPool, ReluMask, Statistics, Then};

/// `[N, H, W, C]`, `K`, padding.
const SHAPES: [([usize; 4], usize, usize); 24] = [
    ([1, 1, 1, 1], 1, 1),
    ([1, 1, 1, 1], 1, 2),
    ([1, 3, 3, 1], 1, 0),
    ([2, 2, 3, 3], 2, 1),
    ([1, 4, 4, 8], 16, 1),
    ([3, 5, 7, 5], 7, 1),
    ([1, 1, 13, 2], 9, 1),
    ([2, 13, 1, 17], 4, 1),
    ([2, 7, 7, 13], 31, 1),
    ([1, 8, 8, 16], 32, 0),
    ([1, 9, 6, 33], 65, 2),
    ([2, 14, 14, 24], 40, 1),
    ([1, 16, 16, 64], 64, 1),
    ([5, 4, 4, 100], 12, 1),
    ([1, 11, 11, 12], 100, 0),
    ([4, 16, 16, 31], 33, 1),
    ([2, 17, 19, 48], 47, 1),
    ([7, 8, 8, 64], 128, 1),
    ([3, 8, 8, 130], 67, 1),
    ([33, 6, 6, 3], 64, 1),
    ([2, 32, 32, 3], 16, 1),
    ([9, 23, 5, 20], 18, 2),
    // Several ranges of output channels, and several shared blocks of tiles.
    ([36, 5, 5, 129], 130, 1),
    // Few tiles, and several uneven parts of a panel's depth.
    ([1, 5, 5, 257], 150, 1),
];

/// `[N, H, W, C]`, `K`, of stride 2 and padding 1.
const STRIDED: [([usize; 4], usize); 20] = [
    ([1, 1, 1, 1], 1),
    ([1, 3, 4, 8], 16),
    ([2, 2, 3, 3], 2),
    ([1, 4, 4, 8], 16),
    ([3, 5, 7, 5], 7),
    ([1, 1, 13, 2], 9),
    ([2, 13, 1, 17], 4),
    ([2, 7, 7, 13], 31),
    ([3, 6, 10, 33], 65),
    ([16, 14, 14, 24], 40),
    ([1, 16, 16, 64], 64),
    ([5, 4, 4, 100], 12),
    ([1, 11, 12, 12], 100),
    ([2, 17, 19, 48], 47),
    ([7, 8, 8, 64], 128),
    ([3, 8, 6, 130], 67),
    ([33, 6, 6, 3], 64),
    ([2, 32, 31, 16], 16),
    // Several ranges of output channels, and several shared blocks of tiles.
    ([36, 5, 5, 129], 130),
    // Few tiles, and several uneven parts of a panel's depth.
    ([1, 5, 6, 257], 150),
];

fn shapes() -> impl Iterator<Item = Shape> {
    // Miri interprets the code: a shape of parts of vectors and one of whole ones are enough for it.
    let (unit, strided) = if cfg!(miri) {
        (3..5, 2..4)
    } else {
        (0..SHAPES.len(), 0..STRIDED.len())
    };
    let unit = SHAPES[unit]
        .iter()
        .map(|&(input, k, padding)| Shape::new(input, k, padding).unwrap());
    let strided = STRIDED[strided]
        .iter()
        .map(|&(input, k)| Shape::strided(input, k).unwrap());
    unit.chain(strided)
}

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

struct Case {
    shape: Shape,
    x: Vec<f32>,
    w: Vec<f32>,
    dy: Vec<f32>,
}

struct Passes<T> {
    y: Vec<T>,
    dx: Vec<T>,
    dw: Vec<T>,
}

impl Case {
    fn new(shape: Shape) -> Self {
        let w = numbers(len(shape.weight()), 2);
        Self {
            shape,
            x: numbers(len(shape.input()), 1),
            w,
            dy: numbers(len(shape.output()), 3),
        }
    }

    /// All three passes, directly, in f64.
    fn direct(&self) -> Passes<f64> {
        let ([n, h, w, c], [_, p, q, k]) = (self.shape.input(), self.shape.output());
        let (pad, stride) = (self.shape.padding(), self.shape.stride());
        let [mut y, mut dx, mut dw] = [self.dy.len(), self.x.len(), self.w.len()].map(|len| vec![0.0; len]);
        for (at, out) in (0..n * p * q).map(|i| ([i / (p * q), i / q % p, i % q], i * k)) {
            for tap in 0..9 {
                let (row, column) = (at[1] * stride + tap / 3, at[2] * stride + tap % 3);
                if !(pad..pad + h).contains(&row) || !(pad..pad + w).contains(&column) {
                    continue;
                }
                let pixel = ((at[0] * h + row - pad) * w + column - pad) * c;
                for (ki, ci) in (0..k).flat_map(|ki| (0..c).map(move |ci| (ki, ci))) {
                    let weight = (ki * c + ci) * 9 + tap;
                    let [x, g, dy] = [self.x[pixel + ci], self.w[weight], self.dy[out + ki]].map(f64::from);
                    y[out + ki] += x * g;
                    dx[pixel + ci] += g * dy;
                    dw[weight] += x * dy;
                }
            }
        }
        Passes { y, dx, dw }
    }

    /// All three passes, by the kernels, in a workspace that other calls have used.
    fn winograd(&self, isa: Isa, workspace: &mut Workspace) -> Passes<f32> {
        let conv = Winograd::with_isa(self.shape, isa);
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

/// `‖got - want‖ / ‖want‖`; 0 if both are zero.
fn relative_error<T: Copy + Into<f64>>(got: &[T], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len());
    let square = |v: f64| v * v;
    let error: f64 = got.iter().zip(want).map(|(&g, w)| square(g.into() - w)).sum();
    if error == 0.0 {
        0.0
    } else {
        (error / want.iter().copied().map(square).sum::<f64>()).sqrt()
    }
}

fn check<T: Copy + Into<f64>>(what: &str, shape: Shape, isa: Isa, got: &[T], want: &[f64], bound: f64) {
    let error = relative_error(got, want);
    assert!(
        error <= bound,
        "{what}, {isa}, {shape:?}: relative error {error:.1e}, expected at most {bound:.0e}"
    );
}

#[test]
fn every_pass_equals_the_direct_convolution() {
    let mut workspace = Workspace::new();
    for shape in shapes() {
        let case = Case::new(shape);
        let want = case.direct();
        for isa in instruction_sets() {
            let got = case.winograd(isa, &mut workspace);
            check("forward", shape, isa, &got.y, &want.y, 5e-6);
            check("backward-data", shape, isa, &got.dx, &want.dx, 1e-5);
            check("backward-weights", shape, isa, &got.dw, &want.dw, 1e-5);
        }
    }
}

#[test]
fn results_are_bit_equal_for_any_number_of_threads() {
    let large = [([13, 9, 9, 20], 33), ([16, 32, 32, 16], 64), ([36, 5, 5, 129], 130)];
    let small = [([2, 5, 5, 3], 3)];
    let cases = if cfg!(miri) { &small[..] } else { &large };
    for &(input, k) in cases {
        let case = Case::new(Shape::new(input, k, 1).unwrap());
        for isa in instruction_sets() {
            let run = |threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| {
                    let passes = case.winograd(isa, &mut Workspace::new());
                    let mut y = vec![0.0; case.dy.len()];
                    let conv = Winograd::with_isa(case.shape, isa);
                    // SAFETY: the pass writes initialised elements alone.
                    let out = unsafe { element::to_be_written(&mut y) };
                    let center = vec![0.25; k];
                    let statistics = Statistics { center: &center };
                    let sums = conv.forward_with(&case.x, &Identity, &case.w, &statistics, out, &mut Workspace::new());
                    let bits =
                        [passes.y, passes.dx, passes.dw].map(|pass| pass.into_iter().map(f32::to_bits).collect());
                    (bits, sums.into_iter().map(f64::to_bits).collect())
                })
            };
            let one: ([Vec<u32>; 3], Vec<u64>) = run(1);
            for &threads in if cfg!(miri) { &[2][..] } else { &[2, 4, 7] } {
                assert!(run(threads) == one, "{isa}, {threads} threads, {:?}", case.shape);
            }
        }
    }
}

#[test]
fn the_backward_passes_are_the_adjoints_of_the_forward_pass() {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
    for shape in shapes() {
        let case = Case::new(shape);
        let got = case.winograd(Isa::detect(), &mut Workspace::new());
        let forward = dot(&case.dy, &got.y);
        // Rounding is relative to the norms; the product itself may be near zero.
        let scale = (dot(&case.dy, &case.dy) * dot(&got.y, &got.y)).sqrt();
        for backward in [dot(&got.dx, &case.x), dot(&got.dw, &case.w)] {
            assert!(
                (forward - backward).abs() <= 5e-6 * scale,
                "{shape:?}: {forward} {backward}"
            );
        }
    }
}

#[test]
fn hooks_equal_separate_passes() {
    let mut workspace = Workspace::new();
    for shape in shapes() {
        let case = Case::new(shape);
        let ([.., c], [.., k]) = (shape.input(), shape.output());
        let (scale, shift, bias) = (numbers(c, 4), numbers(c, 5), numbers(k, 6));
        let (center, middle) = (numbers(c, 7), numbers(k, 8));
        let load = AffineRelu(Affine {
            center: &center,
            scale: &scale,
            shift: &shift,
        });
        let affine = |i: usize, x: f32| (x - center[i % c]).mul_add(scale[i % c], shift[i % c]);
        let activated: Vec<f32> = case.x.iter().enumerate().map(|(i, &x)| affine(i, x).max(0.0)).collect();
        let plain = Case {
            x: activated,
            ..Case::new(shape)
        };
        let want = plain.direct();
        let biased: Vec<f64> = want
            .y
            .iter()
            .enumerate()
            .map(|(i, y)| y + f64::from(bias[i % k]))
            .collect();
        for isa in instruction_sets() {
            let conv = Winograd::with_isa(shape, isa);
            let mut y = vec![f32::NAN; case.dy.len()];
            let epilogue = Then {
                first: Bias { bias: &bias },
                second: Statistics { center: &middle },
            };
            // SAFETY: the pass writes initialised elements alone.
            let out = unsafe { element::to_be_written(&mut y) };
            let sums = conv.forward_with(&case.x, &load, &case.w, &epilogue, out, &mut workspace);
            check("activated, biased", shape, isa, &y, &biased, 5e-6);
            let statistic = |f: fn(f64) -> f64, ki: usize| {
                let centered = biased.iter().skip(ki).step_by(k).map(|&y| y - f64::from(middle[ki]));
                centered.map(f).sum::<f64>()
            };
            let magnitude = |ki| statistic(f64::abs, ki);
            for ki in 0..k {
                assert!(
                    (sums[ki] - statistic(|y| y, ki)).abs() <= 2e-5 * magnitude(ki),
                    "sum, {isa}, {shape:?}"
                );
                let squares = statistic(|y| y * y, ki);
                assert!(
                    (sums[k + ki] - squares).abs() <= 2e-5 * squares,
                    "squares, {isa}, {shape:?}"
                );
            }

            let mut dw = vec![f32::NAN; case.w.len()];
            conv.backward_weights_with(&case.x, &load, &case.dy, &mut dw, &mut workspace);
            check("activated, backward-weights", shape, isa, &dw, &want.dw, 1e-5);

            let mut dx = vec![f32::NAN; case.x.len()];
            let mask = ReluMask::<true> {
                x: &case.x,
                affine: load.0,
            };
            // SAFETY: the pass writes initialised elements alone.
            let out = unsafe { element::to_be_written(&mut dx) };
            let sums = conv.backward_data_with(&case.dy, &Identity, &case.w, &mask, out, &mut workspace);
            let kept = |i: usize| affine(i, case.x[i]) > 0.0;
            let masked: Vec<f64> = want
                .dx
                .iter()
                .enumerate()
                .map(|(i, &g)| if kept(i) { g } else { 0.0 })
                .collect();
            check("masked, backward-data", shape, isa, &dx, &masked, 1e-5);
            for ci in 0..c {
                let centered = |i: usize| f64::from(case.x[i]) - f64::from(center[ci]);
                let gradients = || (ci..dx.len()).step_by(c).map(|i| (masked[i], centered(i)));
                let (sum, products): (f64, f64) = gradients().fold((0.0, 0.0), |s, (g, x)| (s.0 + g, s.1 + g * x));
                // Of all gradients: a channel that keeps a single small one has its transform's rounding.
                let magnitude = want.dx.iter().skip(ci).step_by(c).map(|g| g.abs()).sum::<f64>();
                assert!(
                    (sums[ci] - sum).abs() <= 2e-5 * magnitude,
                    "sum of masked, {isa}, {shape:?}"
                );
                assert!(
                    (sums[c + ci] - products).abs() <= 2e-5 * magnitude,
                    "products, {isa}, {shape:?}"
                );
            }
        }
    }
}

#[test]
fn pooled_outputs_are_the_largest_of_each_four() {
    let mut workspace = Workspace::new();
    let mut cases = 0;
    for shape in shapes() {
        let [n, p, q, k] = shape.output();
        if p % 2 > 0 || q % 2 > 0 {
            continue;
        }
        cases += 1;
        let case = Case::new(shape);
        let bias = numbers(k, 6);
        for isa in instruction_sets() {
            let conv = Winograd::with_isa(shape, isa);
            let mut y = vec![f32::NAN; n * p * q * k];
            let mut pooled = vec![f32::NAN; y.len() / 4];
            // SAFETY: the pass writes initialised elements alone.
            let out = unsafe { element::to_be_written(&mut y) };
            conv.forward_with(&case.x, &Identity, &case.w, &Bias { bias: &bias }, out, &mut workspace);
            // SAFETY: as above.
            let out = unsafe { element::to_be_written(&mut pooled) };
            let epilogue = MaxPool(Bias { bias: &bias });
            conv.forward_pooled_with(&case.x, &Identity, &case.w, &epilogue, &mut [], out, &mut workspace);
            let four = |i: usize| {
                let (row, column, channel) = (i / (q / 2 * k), i / k % (q / 2), i % k);
                let at = |y: usize, x: usize| ((2 * row + y) * q + 2 * column + x) * k + channel;
                [at(0, 0), at(0, 1), at(1, 0), at(1, 1)].map(|at| y[at])
            };
            for (i, &got) in pooled.iter().enumerate() {
                let want = four(i).into_iter().fold(f32::NEG_INFINITY, f32::max);
                assert_eq!(got, want, "{isa}, {shape:?}, {i}");
            }

            let sign: Vec<f32> = (0..k)
                .map(|channel| if channel % 3 == 1 { -1.0 } else { 1.0 })
                .collect();
            let mut all = vec![f32::NAN; y.len()];
            pooled.fill(f32::NAN);
            // SAFETY: as above.
            let out = unsafe { element::to_be_written(&mut all) };
            // SAFETY: as above.
            let extremes = unsafe { element::to_be_written(&mut pooled) };
            let epilogue = AndExtremes {
                epilogue: Bias { bias: &bias },
                sign: &sign,
            };
            conv.forward_pooled_with(&case.x, &Identity, &case.w, &epilogue, out, extremes, &mut workspace);
            assert!(all == y, "{isa}, {shape:?}");
            for (i, &got) in pooled.iter().enumerate() {
                let want = match sign[i % k] {
                    -1.0 => four(i).into_iter().fold(f32::INFINITY, f32::min),
                    _ => four(i).into_iter().fold(f32::NEG_INFINITY, f32::max),
                };
                assert_eq!(got, want, "{isa}, {shape:?}, {i}");
            }
        }
    }
    assert!(cases > 2);
}

#[test]
#[should_panic(expected = "expected an input of shape [1, 4, 4, 2]")]
fn a_slice_of_another_length_is_refused() {
    let conv = Winograd::new(Shape::new([1, 4, 4, 2], 2, 1).unwrap());
    conv.forward(&[0.0; 31], &[0.0; 36], &mut [0.0; 32], &mut Workspace::new());
}
