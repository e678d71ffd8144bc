//! Sizes of a 3x3 convolution, and of the tiles and patches that its output and input are cut into.

use std::ops::Range;

use super::transform::{Strided, StridedBack, Transform, Unit};

/// Sizes of a 3x3 convolution with stride 1, or with stride 2 and padding 1: input `[N, H, W, C]`, output `[N, P, Q, K]`,
/// weight `[K, C, 3, 3]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    n: usize,
    h: usize,
    w: usize,
    c: usize,
    k: usize,
    padding: usize,
    form: Form,
}

/// Which transforms a shape is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Stride 1.
    Unit,
    /// Stride 2.
    Strided,
    /// From the gradient of a convolution with stride 2 to that of its input, of these rows and columns.
    StridedBack([usize; 2]),
}

/// Numbers of a form's transforms, along one dimension.
#[derive(Clone, Copy, Debug)]
pub(super) struct Numbers {
    pub(super) tile: usize,
    patch: usize,
    /// Points that a tile of so many outputs needs.
    pub(super) points: fn(usize) -> usize,
}

impl Form {
    #[inline(always)]
    pub(super) fn numbers(self) -> Numbers {
        fn of<T: Transform>() -> Numbers {
            Numbers {
                tile: T::TILE,
                patch: T::PATCH,
                points: T::points,
            }
        }
        match self {
            Self::Unit => of::<Unit>(),
            Self::Strided => of::<Strided>(),
            Self::StridedBack(_) => of::<StridedBack>(),
        }
    }
}

/// Sizes for which there is no such convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ShapeError {
    /// The padding is more than 2.
    #[error("expected padding of at most 2, got {got}")]
    PaddingTooLarge {
        /// The padding given.
        got: usize,
    },
    /// The padded image is smaller than the 3x3 kernel.
    #[error("expected a padded image of at least 3x3, got {height}x{width}")]
    ImageTooSmall {
        /// Padded height.
        height: usize,
        /// Padded width.
        width: usize,
    },
    /// A size is zero, or a buffer would not fit the address space.
    #[error("expected sizes of at least 1 whose product fits, got {sizes:?}")]
    Degenerate {
        /// `[N, H, W, C, K]`.
        sizes: [usize; 5],
    },
}

impl Shape {
    /// The shape with stride 1 for input `[n, h, w, c]`, `k` output channels, and `padding` zeros on each side.
    ///
    /// # Errors
    /// - [`ShapeError::PaddingTooLarge`] if `padding > 2`.
    /// - [`ShapeError::ImageTooSmall`] if `h + 2 * padding < 3` or `w + 2 * padding < 3`.
    /// - [`ShapeError::Degenerate`] if a size is 0, or the buffers cannot be addressed.
    pub fn new([n, h, w, c]: [usize; 4], k: usize, padding: usize) -> Result<Self, ShapeError> {
        let sizes = [n, h, w, c, k];
        if padding > 2 {
            return Err(ShapeError::PaddingTooLarge { got: padding });
        }
        // Nothing that is computed from the sizes later exceeds this bound: images grow by at most 4 in each direction
        // and round up to a tile, channels round up to two vectors.
        let bound = [
            n,
            h.saturating_add(8),
            w.saturating_add(8),
            c.saturating_add(64),
            k.saturating_add(64),
            64 * 8,
        ]
        .into_iter()
        .try_fold(1_usize, usize::checked_mul);
        if sizes.contains(&0) || bound.is_none_or(|bytes| bytes > isize::MAX as usize) {
            return Err(ShapeError::Degenerate { sizes });
        }
        let (height, width) = (h + 2 * padding, w + 2 * padding);
        if height < 3 || width < 3 {
            return Err(ShapeError::ImageTooSmall { height, width });
        }
        Ok(Self {
            n,
            h,
            w,
            c,
            k,
            padding,
            form: Form::Unit,
        })
    }

    /// The shape with stride 2 and padding 1 for input `[n, h, w, c]` and `k` output channels.
    ///
    /// # Errors
    /// [`ShapeError::Degenerate`] if a size is 0, or the buffers cannot be addressed.
    pub fn strided(input: [usize; 4], k: usize) -> Result<Self, ShapeError> {
        let shape = Self::new(input, k, 1)?;
        Ok(Self {
            form: Form::Strided,
            ..shape
        })
    }

    /// `[N, H, W, C]`.
    pub fn input(&self) -> [usize; 4] {
        [self.n, self.h, self.w, self.c]
    }

    /// `[N, P, Q, K]`.
    pub fn output(&self) -> [usize; 4] {
        let [p, q] = match self.form {
            Form::Unit => [self.h, self.w].map(|size| size + 2 * self.padding - 2),
            Form::Strided => [self.h, self.w].map(|size| size.div_ceil(2)),
            Form::StridedBack(output) => output,
        };
        [self.n, p, q, self.k]
    }

    /// `[K, C, 3, 3]`.
    pub fn weight(&self) -> [usize; 4] {
        [self.k, self.c, 3, 3]
    }

    /// Distance between neighbouring windows: 1 or 2.
    pub fn stride(&self) -> usize {
        if self.form == Form::Unit { 1 } else { 2 }
    }

    /// Zeros on each side of the image.
    pub fn padding(&self) -> usize {
        self.padding
    }

    /// Floating-point operations of a direct convolution, a multiplication and an addition counting as two.
    pub fn direct_flops(&self) -> f64 {
        let [n, p, q, k] = self.output();
        2.0 * 9.0 * self.c as f64 * (n * p * q * k) as f64
    }

    /// Which transforms the shape is for.
    pub(super) fn form(&self) -> Form {
        self.form
    }

    /// The convolution that carries gradients back, from `[N, P, Q, K]` to `[N, H, W, C]`: of stride 1 with padding
    /// `2 - padding`, or by [`StridedBack`].
    ///
    /// # Panics
    /// If the shape is already such a one of stride 2.
    pub(super) fn transposed(&self) -> Self {
        let [n, h, w, c] = self.output();
        let (padding, form) = match self.form {
            Form::Unit => (2 - self.padding, Form::Unit),
            Form::Strided => (0, Form::StridedBack([self.h, self.w])),
            Form::StridedBack(_) => panic!("expected a convolution, got the way of a gradient"),
        };
        Self {
            n,
            h,
            w,
            c,
            k: self.c,
            padding,
            form,
        }
    }

    /// Tiles down and across one image's output.
    pub(super) fn grid(&self) -> [usize; 2] {
        let [_, p, q, _] = self.output();
        let tile = self.form.numbers().tile;
        [p.div_ceil(tile), q.div_ceil(tile)]
    }

    /// Tiles of the whole batch.
    pub(super) fn tiles(&self) -> usize {
        let [down, across] = self.grid();
        self.n * down * across
    }

    /// The first row or column of the patch under a tile whose output starts at row or column `at`.
    #[inline(always)]
    pub(super) fn patch_start(&self, at: usize) -> isize {
        match self.form {
            Form::Unit => at as isize - self.padding as isize,
            Form::Strided => 2 * at as isize - 1,
            Form::StridedBack(_) => at as isize / 2,
        }
    }

    /// Rows of the patch that lie inside the image, for a tile whose output starts at row `y`.
    #[inline(always)]
    pub(super) fn patch_rows(&self, y: usize) -> Range<usize> {
        self.inside(self.patch_start(y), self.h)
    }

    /// Columns of the patch that lie inside the image, for a tile whose output starts at column `x`.
    #[inline(always)]
    pub(super) fn patch_columns(&self, x: usize) -> Range<usize> {
        self.inside(self.patch_start(x), self.w)
    }

    /// Positions `i` of a patch for which `start + i` is in `0..size`.
    #[inline(always)]
    fn inside(&self, start: isize, size: usize) -> Range<usize> {
        let patch = self.form.numbers().patch as isize;
        let first = (-start).clamp(0, patch);
        let last = (size as isize - start).clamp(first, patch);
        first as usize..last as usize
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn faults_are_told_apart() {
        assert_eq!(
            Shape::new([1, 8, 8, 1], 1, 3),
            Err(ShapeError::PaddingTooLarge { got: 3 })
        );
        assert_eq!(
            Shape::new([1, 2, 8, 1], 1, 0),
            Err(ShapeError::ImageTooSmall { height: 2, width: 8 })
        );
        assert!(matches!(
            Shape::new([0, 8, 8, 1], 1, 1),
            Err(ShapeError::Degenerate { .. })
        ));
        assert!(matches!(
            Shape::new([usize::MAX, 8, 8, 1], 1, 1),
            Err(ShapeError::Degenerate { .. })
        ));
    }

    #[test]
    fn the_transposed_convolution_leads_back() {
        for padding in 0..=2 {
            let shape = Shape::new([2, 7, 9, 3], 5, padding).unwrap();
            assert_eq!(shape.transposed().input(), shape.output());
            assert_eq!(shape.transposed().output(), shape.input());
        }
    }

    #[test]
    fn patches_know_what_lies_inside() {
        let shape = Shape::new([1, 7, 1, 1], 1, 1).unwrap();
        assert_eq!([shape.patch_rows(0), shape.patch_rows(4)], [1..6, 0..4]);
        assert_eq!(shape.patch_columns(0), 1..2);
        assert_eq!(shape.edge(), [3, 1]);
    }

    #[test]
    fn strided_sizes_follow_pytorch_and_lead_back() {
        for h in 1..10 {
            let shape = Shape::strided([2, h, 9, 3], 5).unwrap();
            assert_eq!(shape.output(), [2, (h - 1) / 2 + 1, 5, 5]);
            let back = shape.transposed();
            assert_eq!([back.input(), back.output()], [shape.output(), shape.input()]);
        }
    }

    #[test]
    fn strided_patches_know_what_lies_inside() {
        let shape = Shape::strided([1, 7, 6, 1], 1).unwrap();
        assert_eq!(
            [0, 2].map(|y| (shape.patch_start(y), shape.patch_rows(y))),
            [(-1, 1..5), (3, 0..4)]
        );
        assert_eq!(shape.patch_columns(2), 0..3);
        let back = shape.transposed();
        assert_eq!(
            [0, 4].map(|y| (back.patch_start(y), back.patch_rows(y))),
            [(0, 0..3), (2, 0..2)]
        );
    }
}
