//! Direct convolution on channels-last slices: any kernel, stride, padding and dilation, as matrix products.
//!
//! ```text
//! forward           Y  = X W     X: windows of the input, [pixels, R·S·C];  W: panels of output channels
//! backward-data     dX = dY Wᵀ   for each residue of the input's rows and columns by the stride, with the taps that meet
//!                                it: a dense correlation, so nothing is scattered; of an image of few channels instead
//!                                dY Wᵀ for all taps at once, added to the image row by row
//! backward-weights  dW = Xᵀ dY   over blocks of pixels
//! ```
//!
//! Some hundred pixels and some hundred floats of depth are worked on at a time, so that windows, sums and a panel of
//! weights stay in a core's cache. A pixel's channels lie side by side, so a window is read in place, tap by tap, or,
//! of few channels, as in a first layer, row by row, through a table of where each pixel's floats begin (`windows`); only windows
//! with rows of less than eight floats, or of so many channels that pixels lie whole pages apart, are gathered first.
//!
//! In bytes, with channels rounded up to two vectors, a call needs scratch memory of:
//!
//! | pass | for all threads | for each thread |
//! |---|---|---|
//! | forward, backward-data | `4·C·K·R·S` (packed weights) | 0.4 MB and `4·C` or `4·K` at most |
//! | backward-data of few channels | `4·C·K·R·S` (packed weights) | 0.8 MB and `400·C·R·S` at most |
//! | backward-weights | `4·C·K·R·S` (accumulator), or 8 MiB of several | 0.8 MB and `4·C` at most |
//!
//! What is computed together, and in which order it is summed, depends on the shape and the instruction set alone, never
//! on the threads, so results are bit-equal for any number of threads. Not here: groups, which are
//! [`conv2d`](crate::conv2d())'s.
//!
//! Shape legend: `N` batch, `H`, `W` input height and width, `C` input channels, `K` output channels, `R`, `S` kernel
//! height and width, `P`, `Q` output height and width.

mod accumulate;
mod backward_weights;
mod correlate;
mod gather;
mod output;
mod panel;
mod phase;
mod scatter;
mod shape;
mod tile;
mod windows;

use crate::conv2d::Workspace;
use crate::conv2d::hooks::{Epilogue, Store, Stores};
use crate::conv2d::slices::check_len;
use crate::element;
use crate::simd::{Isa, Kernel, Simd};
use panel::WeightSteps;
use phase::Phase;
pub use shape::{Shape, ShapeError};
use std::mem::MaybeUninit;

/// A convolution of one shape, with its three passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Direct {
    shape: Shape,
    isa: Isa,
}

impl Direct {
    /// The convolution of `shape`, by the instruction set of this process: see [`Isa::current`].
    pub fn new(shape: Shape) -> Self {
        Self::with_isa(shape, Isa::current())
    }

    /// The convolution of `shape` by `isa`, or by plain Rust if the processor lacks it.
    pub fn with_isa(shape: Shape, isa: Isa) -> Self {
        Self { shape, isa }
    }

    /// The sizes.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// `y = conv(x, w)`; every element of `y` is written.
    ///
    /// # Shapes
    /// `x` `[N, H, W, C]`, `w` `[K, C, R, S]`, `y` `[N, P, Q, K]`, all contiguous.
    ///
    /// # Panics
    /// If a slice has another length than its shape.
    ///
    /// # Source
    /// `torch.nn.functional.conv2d` with `groups=1`.
    pub fn forward(&self, x: &[f32], w: &[f32], y: &mut [f32], workspace: &mut Workspace) {
        // SAFETY: a pass writes every output.
        let y = unsafe { element::to_be_written(y) };
        self.forward_with(x, w, &Store, y, workspace);
    }

    /// `y = epilogue(conv(x, w))`, every element of it; returns the epilogue's sums, `[SUMS, K]`.
    ///
    /// # Shapes
    /// As [`forward`](Self::forward).
    ///
    /// # Panics
    /// If a slice has another length than its shape, or the epilogue is for other sizes.
    pub fn forward_with<E: Epilogue>(
        &self,
        x: &[f32],
        w: &[f32],
        epilogue: &E,
        y: &mut [MaybeUninit<f32>],
        workspace: &mut Workspace,
    ) -> Vec<f64> {
        let shape = &self.shape;
        check_len("an input", x.len(), shape.input());
        check_len("a weight", w.len(), shape.weight());
        check_len("an output", y.len(), shape.output());
        let [k, c, r, s] = shape.weight();
        self.isa.dispatch(Correlation {
            phases: &[Phase::forward(shape)],
            source: x,
            w,
            steps: WeightSteps {
                lane: c * r * s,
                channel: r * s,
            },
            epilogue,
            channels: k,
            target: y,
            workspace,
        })
    }

    /// `dx`, the gradient of a loss by `x`, from `dy`, its gradient by `y`; every element of `dx` is written.
    ///
    /// # Shapes
    /// `dy` `[N, P, Q, K]`, `w` `[K, C, R, S]`, `dx` `[N, H, W, C]`, all contiguous.
    ///
    /// # Panics
    /// If a slice has another length than its shape.
    ///
    /// # Source
    /// `torch.nn.grad.conv2d_input` with `groups=1`.
    pub fn backward_data(&self, dy: &[f32], w: &[f32], dx: &mut [f32], workspace: &mut Workspace) {
        // SAFETY: a pass writes every output.
        let dx = unsafe { element::to_be_written(dx) };
        self.backward_data_with(dy, w, &Store, dx, workspace);
    }

    /// `dx = epilogue(convᵀ(dy, w))`, every element of it; returns the epilogue's sums, `[SUMS, C]`.
    ///
    /// # Shapes
    /// As [`backward_data`](Self::backward_data).
    ///
    /// # Panics
    /// If a slice has another length than its shape, or the epilogue is for other sizes.
    pub fn backward_data_with<E: Epilogue>(
        &self,
        dy: &[f32],
        w: &[f32],
        epilogue: &E,
        dx: &mut [MaybeUninit<f32>],
        workspace: &mut Workspace,
    ) -> Vec<f64> {
        let shape = &self.shape;
        check_len("an output's gradient", dy.len(), shape.output());
        check_len("a weight", w.len(), shape.weight());
        check_len("an input's gradient", dx.len(), shape.input());
        self.isa.dispatch(DataGradient {
            shape,
            dy,
            w,
            epilogue,
            dx,
            workspace,
        })
    }

    /// `dw`, the gradient of a loss by `w`, from `dy`, its gradient by `y`; zero for an empty batch.
    ///
    /// # Shapes
    /// `x` `[N, H, W, C]`, `dy` `[N, P, Q, K]`, `dw` `[K, C, R, S]`, all contiguous.
    ///
    /// # Panics
    /// If a slice has another length than its shape.
    ///
    /// # Source
    /// `torch.nn.grad.conv2d_weight` with `groups=1`.
    pub fn backward_weights(&self, x: &[f32], dy: &[f32], dw: &mut [f32], workspace: &mut Workspace) {
        self.backward_weights_with(x, dy, &Store, dw, workspace);
    }

    /// `dw` where the output's gradient is `load(dy)`, a function as of an epilogue without sums.
    ///
    /// # Shapes
    /// As [`backward_weights`](Self::backward_weights).
    ///
    /// # Panics
    /// If a slice has another length than its shape, or the hook is for other sizes, gathers sums or pools.
    pub fn backward_weights_with<E: Epilogue>(
        &self,
        x: &[f32],
        dy: &[f32],
        load: &E,
        dw: &mut [f32],
        workspace: &mut Workspace,
    ) {
        check_len("an input", x.len(), self.shape.input());
        check_len("an output's gradient", dy.len(), self.shape.output());
        check_len("a weight's gradient", dw.len(), self.shape.weight());
        load.check(self.shape.output()[3], dy.len());
        assert!(
            E::SUMS == 0 && E::STORES == Stores::All,
            "a gradient is loaded element by element"
        );
        self.isa.dispatch(WeightGradient {
            shape: &self.shape,
            x,
            dy,
            load,
            dw,
            workspace,
        });
    }
}

/// The forward pass or the backward pass to the data.
///
/// Invariant, kept by [`Direct`]: `source` and `target` have the lengths of the phases' sources and of their target of
/// `channels` channels, and `w` that of a weight.
struct Correlation<'a, E> {
    phases: &'a [Phase],
    source: &'a [f32],
    w: &'a [f32],
    steps: WeightSteps,
    epilogue: &'a E,
    channels: usize,
    target: &'a mut [MaybeUninit<f32>],
    workspace: &'a mut Workspace,
}

impl<E: Epilogue> Kernel for Correlation<'_, E> {
    type Output = Vec<f64>;

    fn run<S: Simd>(self, s: S) -> Vec<f64> {
        correlate::correlate(s, self)
    }
}

/// The backward pass to the data. Invariant, kept by [`Direct`]: the slices have the shape's lengths.
struct DataGradient<'a, E> {
    shape: &'a Shape,
    dy: &'a [f32],
    w: &'a [f32],
    epilogue: &'a E,
    dx: &'a mut [MaybeUninit<f32>],
    workspace: &'a mut Workspace,
}

impl<E: Epilogue> Kernel for DataGradient<'_, E> {
    type Output = Vec<f64>;

    fn run<S: Simd>(self, s: S) -> Vec<f64> {
        if scatter::pays(s, self.shape) {
            return scatter::scatter(s, self);
        }
        let [_, c, r, taps] = self.shape.weight();
        let correlation = Correlation {
            phases: &Phase::backward(self.shape),
            source: self.dy,
            w: self.w,
            steps: WeightSteps {
                lane: r * taps,
                channel: c * r * taps,
            },
            epilogue: self.epilogue,
            channels: c,
            target: self.dx,
            workspace: self.workspace,
        };
        correlate::correlate(s, correlation)
    }
}

/// The backward pass to the weights. Invariant, kept by [`Direct`]: the slices have the shape's lengths.
struct WeightGradient<'a, E> {
    shape: &'a Shape,
    x: &'a [f32],
    dy: &'a [f32],
    load: &'a E,
    dw: &'a mut [f32],
    workspace: &'a mut Workspace,
}

impl<E: Epilogue> Kernel for WeightGradient<'_, E> {
    type Output = ();

    fn run<S: Simd>(self, s: S) {
        backward_weights::backward_weights(s, self);
    }
}

/// The size of the pieces into which `total` is cut: nearly equal, multiples of `unit`, of at most `most`, itself a
/// multiple.
fn piece(total: usize, most: usize, unit: usize) -> usize {
    let count = total.div_ceil(most).max(1);
    total.div_ceil(count).next_multiple_of(unit)
}

#[cfg(test)]
mod tests;
