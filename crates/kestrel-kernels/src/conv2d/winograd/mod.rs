//! Winograd convolution: 3x3 kernels with stride 1 in a quarter of a direct convolution's multiplications, by F(4x4, 3x3), and
//! with stride 2 in seven tenths of them, by F(2, 2) on each phase of the image.
//!
//! A 4x4 tile of output is `Aᵀ[(G g Gᵀ) ⊙ (Bᵀ d B)]A`, with `d` the 6x6 patch of input under it; summed over input
//! channels, the elementwise products become 36 matrix products, one for each point of the transformed patch:
//!
//! ```text
//! forward           M = V U          V = Bᵀ d B,  U = G g Gᵀ,   Y = Aᵀ M A
//! backward-data     the forward pass of dY with turned, transposed weights and padding 2 - padding
//! backward-weights  dU = Vᵀ Z        Z = A dY Aᵀ,               dg = Gᵀ dU G
//! ```
//!
//! With stride 2 (and padding 1) a tile has 2x2 outputs over a 5x5 patch and 25 points; its gradient goes back by transforms of its own,
//! from 3x3 patches of `dY` to 4x4 tiles of `dX`. `transform` has the matrices of each.
//!
//! Tiles at an edge, of which fewer outputs are wanted, need fewer points: an image of 7 pixels is a tile of four and one of three
//! outputs, 6 and 5 points each way. Tiles are counted so that those that need the same points lie together (`tiles`), and each
//! point is multiplied for the tiles that need it (`points`).
//!
//! Tiles are worked on in blocks small enough that `V`, `M` and `Z` stay in a core's cache from the transform to its
//! use. Which tiles form a block, and in which order blocks are summed, depends on the shape and the instruction set
//! alone, never on the threads, so results are bit-equal for any number of threads.
//!
//! Works on raw slices: activations are `[N, H, W, C]` (channels last), weights PyTorch's `[K, C, 3, 3]`.
//!
//! Shape legend: `N` batch, `H`, `W` input height and width, `C` input channels, `K` output channels, `P`, `Q` output
//! height and width.

mod backward_weights;
mod by_panels;
mod by_tiles;
mod convolve;
mod gradient;
mod input;
mod output;
mod panel;
mod points;
mod product;
mod shape;
mod tiles;
mod transform;
mod weights;

use super::Workspace;
use super::hooks::{Epilogue, Identity, OnLoad, Store};
use crate::element;
use crate::simd::{Isa, Kernel, Simd};
pub use shape::{Shape, ShapeError};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use transform::{Strided, StridedBack, Transform};
use weights::Direction;

/// A 3x3 convolution of one shape with stride 1 or 2, with its three passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Winograd {
    shape: Shape,
    isa: Isa,
}

impl Winograd {
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

    /// `y = conv(x, w)`.
    ///
    /// # Shapes
    /// `x` `[N, H, W, C]`, `w` `[K, C, 3, 3]`, `y` `[N, P, Q, K]`, all contiguous.
    ///
    /// # Panics
    /// If a slice has another length than its shape.
    ///
    /// # Source
    /// `torch.nn.functional.conv2d`; Lavin and Gray (2016).
    pub fn forward(&self, x: &[f32], w: &[f32], y: &mut [f32], workspace: &mut Workspace) {
        // SAFETY: a pass writes every output.
        let y = unsafe { element::to_be_written(y) };
        self.forward_with(x, &Identity, w, &Store, y, workspace);
    }

    /// `y = epilogue(conv(load(x), w))`, every element of it; returns the epilogue's sums, `[SUMS, K]`.
    ///
    /// # Shapes
    /// As [`forward`](Self::forward).
    ///
    /// # Panics
    /// If a slice has another length than its shape, or a hook is for other sizes; if the epilogue pools.
    pub fn forward_with<L: OnLoad, E: Epilogue>(
        &self,
        x: &[f32],
        load: &L,
        w: &[f32],
        epilogue: &E,
        y: &mut [MaybeUninit<f32>],
        workspace: &mut Workspace,
    ) -> Vec<f64> {
        self.forward_pooled_with(x, load, w, epilogue, y, &mut [], workspace)
    }

    /// [`forward_with`](Self::forward_with) of an epilogue that pools: every element of the outputs that it
    /// [stores](super::hooks::Stores), all in `y` and pooled ones in `pooled`.
    ///
    /// # Shapes
    /// As [`forward`](Self::forward); `pooled` `[N, P/2, Q/2, K]`. What the epilogue does not store is empty.
    ///
    /// # Panics
    /// If a slice has another length than its shape, a hook is for other sizes, or `P` or `Q` is odd.
    #[allow(clippy::too_many_arguments)]
    pub fn forward_pooled_with<L: OnLoad, E: Epilogue>(
        &self,
        x: &[f32],
        load: &L,
        w: &[f32],
        epilogue: &E,
        y: &mut [MaybeUninit<f32>],
        pooled: &mut [MaybeUninit<f32>],
        workspace: &mut Workspace,
    ) -> Vec<f64> {
        self.isa.dispatch(Convolution {
            shape: self.shape,
            strided: PhantomData::<Strided>,
            direction: Direction::Forward,
            x,
            load,
            w,
            epilogue,
            y,
            pooled,
            workspace,
        })
    }

    /// `dx`, the gradient of a loss by `x`, from `dy`, its gradient by `y`.
    ///
    /// # Shapes
    /// `dy` `[N, P, Q, K]`, `w` `[K, C, 3, 3]`, `dx` `[N, H, W, C]`, all contiguous.
    ///
    /// # Panics
    /// If a slice has another length than its shape.
    ///
    /// # Source
    /// `torch.nn.grad.conv2d_input`.
    pub fn backward_data(&self, dy: &[f32], w: &[f32], dx: &mut [f32], workspace: &mut Workspace) {
        // SAFETY: a pass writes every output.
        let dx = unsafe { element::to_be_written(dx) };
        self.backward_data_with(dy, &Identity, w, &Store, dx, workspace);
    }

    /// `dx = epilogue(convᵀ(load(dy), w))`, every element of it; returns the epilogue's sums, `[SUMS, C]`.
    ///
    /// # Shapes
    /// As [`backward_data`](Self::backward_data).
    ///
    /// # Panics
    /// If a slice has another length than its shape, or a hook is for other sizes.
    pub fn backward_data_with<L: OnLoad, E: Epilogue>(
        &self,
        dy: &[f32],
        load: &L,
        w: &[f32],
        epilogue: &E,
        dx: &mut [MaybeUninit<f32>],
        workspace: &mut Workspace,
    ) -> Vec<f64> {
        self.isa.dispatch(Convolution {
            shape: self.shape.transposed(),
            strided: PhantomData::<StridedBack>,
            direction: Direction::Backward,
            x: dy,
            load,
            w,
            epilogue,
            y: dx,
            pooled: &mut [],
            workspace,
        })
    }

    /// `dw`, the gradient of a loss by `w`, from `dy`, its gradient by `y`.
    ///
    /// # Shapes
    /// `x` `[N, H, W, C]`, `dy` `[N, P, Q, K]`, `dw` `[K, C, 3, 3]`, all contiguous.
    ///
    /// # Panics
    /// If a slice has another length than its shape.
    ///
    /// # Source
    /// `torch.nn.grad.conv2d_weight`.
    pub fn backward_weights(&self, x: &[f32], dy: &[f32], dw: &mut [f32], workspace: &mut Workspace) {
        self.backward_weights_with(x, &Identity, dy, dw, workspace);
    }

    /// `dw` where the convolution's input was `load(x)`.
    ///
    /// # Shapes
    /// As [`backward_weights`](Self::backward_weights).
    ///
    /// # Panics
    /// If a slice has another length than its shape, or the hook is for other sizes.
    pub fn backward_weights_with<L: OnLoad>(
        &self,
        x: &[f32],
        load: &L,
        dy: &[f32],
        dw: &mut [f32],
        workspace: &mut Workspace,
    ) {
        self.isa.dispatch(WeightGradient {
            shape: self.shape,
            x,
            load,
            dy,
            dw,
            workspace,
        });
    }
}

/// The forward pass of `shape`, of weights that are turned and transposed for [`Direction::Backward`].
struct Convolution<'a, T, L, E> {
    shape: Shape,
    /// The transforms with stride 2 in this direction, so that a hook is compiled for those that it can meet.
    strided: PhantomData<T>,
    direction: Direction,
    x: &'a [f32],
    load: &'a L,
    w: &'a [f32],
    epilogue: &'a E,
    /// All outputs, and pooled ones, as far as the epilogue stores them.
    y: &'a mut [MaybeUninit<f32>],
    pooled: &'a mut [MaybeUninit<f32>],
    workspace: &'a mut Workspace,
}

impl<T: Transform, L: OnLoad, E: Epilogue> Kernel for Convolution<'_, T, L, E> {
    type Output = Vec<f64>;

    fn run<S: Simd>(self, s: S) -> Vec<f64> {
        convolve::convolve(s, self)
    }
}

struct WeightGradient<'a, L> {
    shape: Shape,
    x: &'a [f32],
    load: &'a L,
    dy: &'a [f32],
    dw: &'a mut [f32],
    workspace: &'a mut Workspace,
}

impl<L: OnLoad> Kernel for WeightGradient<'_, L> {
    type Output = ();

    fn run<S: Simd>(self, s: S) {
        backward_weights::backward_weights(s, self);
    }
}

#[cfg(test)]
mod tests;
