//! A pass as dense correlations: which source pixels each target pixel sums over, and in which order.
//!
//! The forward pass is one correlation. The backward pass to the data is one for each residue of the target's rows and
//! columns by the stride: within such a phase every pixel uses the same taps, and neighbouring pixels use neighbouring
//! gradients, so nothing is scattered.

use std::ops::Range;

use super::shape::Shape;

/// Target pixels on a lattice, each the sum over the same taps of a source.
#[derive(Clone, Debug)]
pub(super) struct Phase {
    images: usize,
    /// Rows, columns and channels of the source.
    pub(super) source: [usize; 3],
    /// Rows and columns of the target.
    target: [usize; 2],
    /// The first row and column of the lattice, and its rows and columns.
    first: [usize; 2],
    positions: [usize; 2],
    /// Distance between the lattice's rows and columns in the target, and between their windows in the source.
    target_step: usize,
    source_step: usize,
    /// Taps of the kernel, `r * S + s`, in the order in which they are summed over.
    pub(super) taps: Vec<usize>,
    /// The same taps as runs of source pixels.
    pub(super) runs: Vec<Run>,
}

/// Source pixels that lie side by side under one window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// Row and column of the first, relative to the window.
    pub(super) y: isize,
    pub(super) x: isize,
    /// Pixels.
    pub(super) width: usize,
    /// The floats' places in the depth of the product: `width * channels` of them.
    pub(super) depth: Range<usize>,
}

/// A target pixel and its window in the source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Pixel {
    /// The target pixel, counted over the batch.
    pub(super) target: usize,
    /// The source image's first pixel.
    pub(super) image: usize,
    /// Row and column of the window.
    pub(super) y: isize,
    pub(super) x: isize,
}

/// Taps along one axis by their offset in the source, ascending: `(offset, tap)`.
type Axis = Vec<(isize, usize)>;

impl Phase {
    /// The forward pass.
    pub(super) fn forward(shape: &Shape) -> Self {
        let [n, h, w, c] = shape.input();
        let [_, p, q, _] = shape.output();
        let [_, _, r, s] = shape.weight();
        let axis = |taps: usize| -> Axis {
            (0..taps)
                .map(|tap| ((tap * shape.dilation()) as isize - shape.padding() as isize, tap))
                .collect()
        };
        Self {
            images: n,
            source: [h, w, c],
            target: [p, q],
            first: [0, 0],
            positions: [p, q],
            target_step: 1,
            source_step: shape.stride(),
            taps: Vec::new(),
            runs: Vec::new(),
        }
        .with_taps(&axis(r), &axis(s), s)
    }

    /// The backward pass to the data: the phases cover each pixel of the input once.
    pub(super) fn backward(shape: &Shape) -> Vec<Self> {
        let [n, h, w, _] = shape.input();
        let [_, p, q, k] = shape.output();
        let [_, _, r, s] = shape.weight();
        let stride = shape.stride();
        // Input `first + i * stride` meets output `i + offset` at the taps for which the offset is whole.
        let axis = |first: usize, taps: usize| -> Axis {
            let offsets = (0..taps).rev().filter_map(|tap| {
                let distance = (first + shape.padding()) as isize - (tap * shape.dilation()) as isize;
                (distance % stride as isize == 0).then_some((distance / stride as isize, tap))
            });
            offsets.collect()
        };
        let firsts = (0..stride.min(h)).flat_map(|y| (0..stride.min(w)).map(move |x| [y, x]));
        let phase = |first: [usize; 2]| {
            Self {
                images: n,
                source: [p, q, k],
                target: [h, w],
                first,
                positions: [(h - first[0]).div_ceil(stride), (w - first[1]).div_ceil(stride)],
                target_step: stride,
                source_step: 1,
                taps: Vec::new(),
                runs: Vec::new(),
            }
            .with_taps(&axis(first[0], r), &axis(first[1], s), s)
        };
        firsts.map(phase).collect()
    }

    fn with_taps(mut self, rows: &[(isize, usize)], columns: &[(isize, usize)], kernel_width: usize) -> Self {
        let channels = self.source[2];
        for &(y, row) in rows {
            for neighbours in columns.chunk_by(|left, right| left.0 + 1 == right.0) {
                let start = self.taps.len() * channels;
                self.taps
                    .extend(neighbours.iter().map(|(_, column)| row * kernel_width + column));
                self.runs.push(Run {
                    y,
                    x: neighbours[0].0,
                    width: neighbours.len(),
                    depth: start..self.taps.len() * channels,
                });
            }
        }
        self
    }

    /// Products that each element of the target sums.
    pub(super) fn depth(&self) -> usize {
        self.taps.len() * self.source[2]
    }

    /// Target pixels.
    pub(super) fn len(&self) -> usize {
        self.images * self.positions[0] * self.positions[1]
    }

    /// Lists the pixels of `range`, counted across, then down, then by image.
    pub(super) fn list(&self, range: Range<usize>, pixels: &mut [Pixel]) {
        let [rows, columns] = self.positions;
        let [mut image, mut row, mut column] = [
            range.start / columns / rows,
            range.start / columns % rows,
            range.start % columns,
        ];
        for pixel in &mut pixels[..range.len()] {
            let y = self.first[0] + row * self.target_step;
            let x = self.first[1] + column * self.target_step;
            *pixel = Pixel {
                target: (image * self.target[0] + y) * self.target[1] + x,
                image: image * self.source[0] * self.source[1],
                y: (row * self.source_step) as isize,
                x: (column * self.source_step) as isize,
            };
            column += 1;
            if column == columns {
                column = 0;
                row += 1;
                if row == rows {
                    row = 0;
                    image += 1;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::conv2d::Conv2dConfig;

    fn shape(input: [usize; 4], kernel: [usize; 2], stride: usize, padding: usize, dilation: usize) -> Shape {
        let config = Conv2dConfig {
            stride,
            padding,
            dilation,
            groups: 1,
        };
        Shape::new(input, 2, kernel, &config).unwrap()
    }

    #[test]
    fn neighbouring_taps_form_runs() {
        let widths = |shape: &Shape| -> Vec<_> {
            let phase = Phase::forward(shape);
            phase.runs.iter().map(|run| (run.y, run.x, run.width)).collect()
        };
        assert_eq!(widths(&shape([1, 8, 8, 3], [2, 3], 2, 1, 1)), [(-1, -1, 3), (0, -1, 3)]);
        assert_eq!(widths(&shape([1, 8, 8, 3], [1, 2], 1, 0, 2)), [(0, 0, 1), (0, 2, 1)]);
    }

    #[test]
    fn phases_cover_every_pixel_and_every_tap_once() {
        for (h, kernel, stride, padding, dilation) in [
            (7, [3, 3], 2, 1, 1),
            (1, [1, 1], 2, 0, 1),
            (9, [3, 2], 3, 2, 2),
            (5, [5, 1], 1, 3, 1),
        ] {
            let shape = shape([2, h, h, 1], kernel, stride, padding, dilation);
            let phases = Phase::backward(&shape);
            let mut pixels = vec![Pixel::default(); 2 * h * h];
            let mut targets = Vec::new();
            for phase in &phases {
                phase.list(0..phase.len(), &mut pixels);
                targets.extend(pixels[..phase.len()].iter().map(|pixel| pixel.target));
            }
            targets.sort_unstable();
            assert_eq!(targets, (0..2 * h * h).collect::<Vec<_>>());
            if h >= stride {
                let mut taps: Vec<_> = phases.iter().flat_map(|phase| phase.taps.clone()).collect();
                taps.sort_unstable();
                assert_eq!(taps, (0..kernel[0] * kernel[1]).collect::<Vec<_>>());
            }
        }
    }
}
