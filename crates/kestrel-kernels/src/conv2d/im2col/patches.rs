//! Between an image and its patches: row `(c, r, s)` of the patch matrix holds, for each output position, the pixel under
//! that tap.

use crate::conv2d::geometry::Geometry;
use crate::element::Element;
use std::ops::Range;

/// Output columns whose pixel under tap column `s` lies inside the image, of `0..out_width`.
fn inside(g: &Geometry, s: usize) -> Range<usize> {
    // The pixel's column is q * stride + offset - padding.
    let offset = s * g.dilation;
    let start = g.padding.saturating_sub(offset).div_ceil(g.stride);
    let end = match (g.width + g.padding).checked_sub(offset + 1) {
        Some(last) => (last / g.stride + 1).min(g.out_width),
        None => 0,
    };
    start.min(end)..end
}

/// One piece of a patch row: output positions of one output row.
struct Piece {
    /// Columns of the patch matrix, from the strip's first position on.
    columns: Range<usize>,
    /// Of those columns the ones with a pixel inside the image; the others are zeros.
    filled: Range<usize>,
    /// The first filled column's pixel in the channel.
    pixel: usize,
}

/// Calls `visit` for each piece of tap `(r, s)` over `positions`.
fn pieces(g: &Geometry, r: usize, s: usize, positions: &Range<usize>, mut visit: impl FnMut(Piece)) {
    let inside = inside(g, s);
    let mut position = positions.start;
    while position < positions.end {
        let (p, q) = (position / g.out_width, position % g.out_width);
        let end = (g.out_width - q).min(positions.end - position) + q;
        let column = position - positions.start;
        let columns = column..column + end - q;
        let row = (p * g.stride + r * g.dilation)
            .checked_sub(g.padding)
            .filter(|row| *row < g.height);
        let (from, to) = (inside.start.max(q), inside.end.min(end));
        match row {
            Some(row) if from < to => visit(Piece {
                filled: column + from - q..column + to - q,
                columns,
                pixel: row * g.width + from * g.stride + s * g.dilation - g.padding,
            }),
            _ => visit(Piece {
                filled: column..column,
                columns,
                pixel: 0,
            }),
        }
        position += end - q;
    }
}

/// Writes the patches of one image at `positions` into rows of `dst`, which lie `row_stride` apart and start at `column`.
///
/// `image` is a group's `[C/G, H, W]`.
pub(super) fn im2col<T: Element>(
    g: &Geometry,
    image: &[T],
    positions: &Range<usize>,
    dst: &mut [T],
    row_stride: usize,
    column: usize,
) {
    let mut rows = dst.chunks_mut(row_stride);
    for channel in image.chunks_exact(g.in_positions()) {
        for r in 0..g.kernel_height {
            for s in 0..g.kernel_width {
                let Some(row) = rows.next() else { return };
                let row = &mut row[column..column + positions.len()];
                pieces(g, r, s, positions, |piece| {
                    row[piece.columns.start..piece.filled.start].fill(T::ZERO);
                    row[piece.filled.end..piece.columns.end].fill(T::ZERO);
                    let to = &mut row[piece.filled];
                    if g.stride == 1 {
                        to.copy_from_slice(&channel[piece.pixel..piece.pixel + to.len()]);
                    } else {
                        for (to, from) in to.iter_mut().zip(channel[piece.pixel..].iter().step_by(g.stride)) {
                            *to = *from;
                        }
                    }
                });
            }
        }
    }
}

/// Adds the patches in `src`, in rows of `positions.len()`, to the pixels that they came from: the adjoint of [`im2col`].
///
/// `image` is some channels `[.., H, W]`, as many as `src` has rows for.
pub(super) fn col2im<T: Element>(g: &Geometry, src: &[T], positions: &Range<usize>, image: &mut [T]) {
    let mut rows = src.chunks(positions.len());
    for channel in image.chunks_exact_mut(g.in_positions()) {
        for r in 0..g.kernel_height {
            for s in 0..g.kernel_width {
                let Some(row) = rows.next() else { return };
                pieces(g, r, s, positions, |piece| {
                    let from = &row[piece.filled];
                    if g.stride == 1 {
                        let to = &mut channel[piece.pixel..piece.pixel + from.len()];
                        for (to, from) in to.iter_mut().zip(from) {
                            *to += *from;
                        }
                    } else if !from.is_empty() {
                        for (to, from) in channel[piece.pixel..].iter_mut().step_by(g.stride).zip(from) {
                            *to += *from;
                        }
                    }
                });
            }
        }
    }
}
