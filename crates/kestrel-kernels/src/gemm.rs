//! Matrix product on checked views, one thread a call; parallelism is the caller's, over pieces of fixed size.

use crate::element::Element;
use std::marker::PhantomData;
use std::mem::MaybeUninit;

/// A matrix that is read: element `(i, j)` is `data[i * row_stride + j * col_stride]`.
#[derive(Clone, Copy)]
pub(crate) struct MatRef<'a, T> {
    data: &'a [T],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a, T> MatRef<'a, T> {
    /// A matrix whose rows lie `row_stride` elements apart.
    ///
    /// # Panics
    /// If the matrix reaches beyond the slice.
    pub(crate) fn row_major(data: &'a [T], rows: usize, cols: usize, row_stride: usize) -> Self {
        assert!(
            rows > 0 && cols > 0 && (rows - 1) * row_stride + cols <= data.len(),
            "matrix outside its slice"
        );
        Self {
            data,
            rows,
            cols,
            row_stride,
            col_stride: 1,
        }
    }

    /// Some of the columns.
    ///
    /// # Panics
    /// If the matrix has no such columns.
    pub(crate) fn columns(self, columns: std::ops::Range<usize>) -> Self {
        assert!(
            !columns.is_empty() && columns.end <= self.cols,
            "columns outside the matrix"
        );
        Self {
            data: &self.data[columns.start * self.col_stride..],
            cols: columns.len(),
            ..self
        }
    }

    /// The same elements with rows and columns exchanged.
    pub(crate) fn transpose(self) -> Self {
        Self {
            data: self.data,
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
        }
    }
}

/// A matrix that is written, in rows of consecutive elements.
///
/// Invariant: the elements `ptr + i * row_stride + j`, `i < rows`, `j < cols`, are borrowed mutably for `'a` and by this
/// view alone, and no two of them coincide.
pub(crate) struct MatMut<'a, T> {
    ptr: *mut T,
    rows: usize,
    cols: usize,
    row_stride: usize,
    borrow: PhantomData<&'a mut [T]>,
}

// SAFETY: by the invariant a view is the only way to its elements, like the `&mut [T]` it was made from, which is `Send`
// for `T: Send`.
unsafe impl<T: Send> Send for MatMut<'_, T> {}

impl<'a, T> MatMut<'a, T> {
    /// A matrix whose rows lie `row_stride` elements apart.
    ///
    /// # Panics
    /// If the matrix reaches beyond the slice or its rows overlap.
    pub(crate) fn row_major(data: &'a mut [T], rows: usize, cols: usize, row_stride: usize) -> Self {
        assert!(rows > 0 && cols > 0 && cols <= row_stride, "rows overlap");
        assert!((rows - 1) * row_stride + cols <= data.len(), "matrix outside its slice");
        Self {
            ptr: data.as_mut_ptr(),
            rows,
            cols,
            row_stride,
            borrow: PhantomData,
        }
    }

    /// Cuts the matrix into blocks of `width` columns, the last one narrower.
    pub(crate) fn column_blocks(self, width: usize) -> impl Iterator<Item = (usize, Self)> {
        let Self {
            ptr,
            rows,
            cols,
            row_stride,
            borrow,
        } = self;
        (0..cols).step_by(width).map(move |start| {
            let cols = width.min(cols - start);
            (
                start,
                Self {
                    ptr: ptr.wrapping_add(start),
                    rows,
                    cols,
                    row_stride,
                    borrow,
                },
            )
        })
    }

    /// Sets every element of row `i` to `value`.
    pub(crate) fn fill_row(&mut self, i: usize, value: T)
    where
        T: Copy,
    {
        self.row_mut(i).fill(value);
    }

    /// Row `i`.
    pub(crate) fn row_mut(&mut self, i: usize) -> &mut [T] {
        assert!(i < self.rows, "row outside the matrix");
        // SAFETY: by the type's invariant `cols` elements from here on are ours to write while `self` is borrowed;
        // `i < rows` is checked above.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.wrapping_add(i * self.row_stride), self.cols) }
    }
}

/// `dst = a b`, or `dst += a b` if `accumulate`.
///
/// # Panics
/// If the shapes do not agree.
pub(crate) fn gemm<T: Element>(dst: &mut MatMut<'_, T>, accumulate: bool, a: MatRef<'_, T>, b: MatRef<'_, T>) {
    // SAFETY: the elements of `dst` are initialised.
    unsafe { product(dst, accumulate, a, b) }
}

/// `dst = a b`; all of `dst` is written.
///
/// # Panics
/// If the shapes do not agree.
pub(crate) fn gemm_into<T: Element>(dst: &mut MatMut<'_, MaybeUninit<T>>, a: MatRef<'_, T>, b: MatRef<'_, T>) {
    // SAFETY: nothing is accumulated.
    unsafe { product(dst, false, a, b) }
}

/// `dst = a b`, or `dst += a b` if `accumulate`; `D` is `T`, or `MaybeUninit<T>`, which is laid out alike.
///
/// # Safety
/// If it accumulates, `dst` is initialised.
unsafe fn product<T: Element, D>(dst: &mut MatMut<'_, D>, accumulate: bool, a: MatRef<'_, T>, b: MatRef<'_, T>) {
    const { assert!(size_of::<D>() == size_of::<T>() && align_of::<D>() == align_of::<T>()) };
    assert_eq!(
        (dst.rows, dst.cols, a.cols),
        (a.rows, b.cols, b.rows),
        "shapes of a matrix product"
    );
    // SAFETY: `T` is `f32` or `f64` (the implementors of `Element`). `a` and `b` lie inside their slices (checked by
    // `MatRef::row_major`; transposing keeps the set of elements), `dst` is exclusively ours and does not alias them (the
    // invariant of `MatMut`); the sizes agree (checked above). Strides are below `isize::MAX`, being those of slices. The
    // destination is read only if it accumulates.
    unsafe {
        gemm::gemm(
            dst.rows,
            dst.cols,
            a.cols,
            dst.ptr.cast::<T>(),
            1,
            dst.row_stride as isize,
            accumulate,
            a.data.as_ptr(),
            a.col_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.col_stride as isize,
            b.row_stride as isize,
            T::ONE,
            T::ONE,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every size around the micro-kernel's edges against three loops.
    #[test]
    fn awkward_sizes_agree_with_three_loops() {
        let sizes = [1, 2, 3, 7, 8, 16, 17, 31];
        for &m in &sizes {
            for &n in &sizes {
                for &k in &sizes {
                    let a: Vec<f64> = (0..m * k).map(|i| (i % 13) as f64 - 6.0).collect();
                    let b: Vec<f64> = (0..k * n).map(|i| (i % 7) as f64 - 3.0).collect();
                    let stride = n + 3;
                    let mut dst = vec![1.0f64; m * stride];
                    let mut view = MatMut::row_major(&mut dst, m, n, stride);
                    gemm(
                        &mut view,
                        true,
                        MatRef::row_major(&a, m, k, k),
                        MatRef::row_major(&b, k, n, n),
                    );
                    for i in 0..m {
                        for j in 0..stride {
                            let sum: f64 = (0..k).map(|l| a[i * k + l] * b[(l * n + j).min(b.len() - 1)]).sum();
                            let expected = if j < n { 1.0 + sum } else { 1.0 };
                            assert_eq!(dst[i * stride + j], expected, "{m} {n} {k} at {i} {j}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn column_blocks_cover_the_matrix_once() {
        let mut data = vec![0u32; 3 * 10];
        for (start, mut block) in MatMut::row_major(&mut data, 3, 8, 10).column_blocks(3) {
            for i in 0..3 {
                block.fill_row(i, start as u32 + 1);
            }
        }
        for row in data.chunks(10) {
            assert_eq!(row, [1, 1, 1, 4, 4, 4, 7, 7, 0, 0]);
        }
    }

    #[test]
    #[should_panic(expected = "matrix outside its slice")]
    fn a_matrix_beyond_its_slice_is_refused() {
        MatRef::row_major(&[0f32; 5], 2, 3, 3);
    }

    #[test]
    #[should_panic(expected = "rows overlap")]
    fn overlapping_rows_are_refused() {
        MatMut::row_major(&mut [0f32; 5], 2, 3, 2);
    }
}
