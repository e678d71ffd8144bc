//! The first factor of a product, windows of a block of pixels: found where they lie in the image, or gathered into rows.

use std::ops::Range;

use super::gather::{copy, zero};
use super::phase::{Phase, Pixel, Run};
use crate::conv2d::workspace::LINE;
use crate::simd::{Kernel, Simd};

/// Channels from which on windows are read tap by tap: fewer make too short segments.
const TAP_CHANNELS: usize = 32;
/// Floats from which on windows are read run by run.
const RUN_FLOATS: usize = 8;
/// Floats of a page: pixels that lie multiples of it apart fall into the same sets of the nearest cache.
const PAGE: usize = 1024;

/// Windows in segments of the depth: for each segment and pixel, where its floats begin.
#[derive(Debug, Default)]
pub(super) struct Windows {
    /// Floats of each segment.
    pub(super) segments: Vec<usize>,
    /// `[segments, pixels]`.
    pub(super) starts: Vec<*const f32>,
}

/// How windows are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    /// In place, a segment for each tap; zeros stand for a tap outside the image.
    ByTap,
    /// In place, a segment for each run; a run that lies outside the image in part is gathered.
    ByRun,
    /// Gathered, in one segment.
    Gathered,
}

impl Reading {
    fn of(phase: &Phase) -> Self {
        let channels = phase.source[2];
        if channels.is_multiple_of(PAGE) {
            Self::Gathered
        } else if channels >= TAP_CHANNELS {
            Self::ByTap
        } else if phase.runs.iter().all(|run| run.depth.len() >= RUN_FLOATS) {
            Self::ByRun
        } else {
            Self::Gathered
        }
    }
}

/// Floats of scratch memory that [`find`] needs for windows of at most `pixels` pixels and `row` floats.
pub(super) fn scratch_len(phase: &Phase, pixels: usize, row: usize) -> usize {
    match Reading::of(phase) {
        Reading::ByTap => phase.source[2].next_multiple_of(LINE),
        Reading::ByRun | Reading::Gathered => pixels * row,
    }
}

/// Which windows are wanted: depths `depth` of those of `pixels`, which are the phase's; `source` has its source's length.
#[derive(Clone, Debug)]
pub(super) struct Wanted<'a> {
    pub(super) phase: &'a Phase,
    pub(super) source: &'a [f32],
    pub(super) pixels: &'a [Pixel],
    pub(super) depth: Range<usize>,
}

/// Finds windows; what is gathered goes to `scratch`, a window every `row` floats. What lies outside the image is zero.
///
/// # Safety
/// The pixels are the phase's, and `source` has the length of its source.
///
/// # Panics
/// If `scratch` is shorter than [`scratch_len`], or `row` than the depth.
pub(super) unsafe fn find<S: Simd>(s: S, wanted: Wanted<'_>, scratch: &mut [f32], row: usize, found: &mut Windows) {
    let reading = Reading::of(wanted.phase);
    assert!(scratch.len() >= scratch_len(wanted.phase, wanted.pixels.len(), row) && wanted.depth.len() <= row);
    found.segments.clear();
    found.starts.clear();
    let rows = Rows {
        at: scratch.as_mut_ptr(),
        stride: row,
    };
    match reading {
        Reading::ByTap => {
            scratch.fill(0.0);
            find_by_tap(&wanted, scratch, found);
        }
        Reading::ByRun => s.vectorize(FindByRun { wanted, rows, found }),
        Reading::Gathered => {
            found.segments.push(wanted.depth.len());
            let at = |pixel| rows.at.wrapping_add(pixel * rows.stride).cast_const();
            found.starts.extend((0..wanted.pixels.len()).map(at));
            s.vectorize(Gather { wanted, rows });
        }
    }
}

/// A row of `stride` floats for each pixel, of which the wanted depth is writable.
#[derive(Clone, Copy, Debug)]
struct Rows {
    at: *mut f32,
    stride: usize,
}

/// What is wanted of one run.
struct Piece<'a> {
    run: &'a Run,
    /// Its floats, and where they go within a row.
    floats: Range<usize>,
    place: usize,
}

impl Wanted<'_> {
    /// The runs that the depth has a part of.
    #[inline(always)]
    fn pieces(&self) -> impl Iterator<Item = Piece<'_>> {
        self.phase.runs.iter().filter_map(|run| {
            let start = self.depth.start.max(run.depth.start);
            let end = self.depth.end.min(run.depth.end);
            (start < end).then(|| Piece {
                run,
                floats: start - run.depth.start..end - run.depth.start,
                place: start - self.depth.start,
            })
        })
    }

    /// Where so many source pixels lie for each pixel, the first of them at this row and column of its window.
    #[inline(always)]
    fn lattice(&self, [y, x]: [isize; 2], pixels: usize) -> Lattice {
        let [height, width, channels] = self.phase.source;
        let first = (y * width as isize + x) * channels as isize;
        Lattice {
            origin: self.source.as_ptr().wrapping_offset(first),
            strides: [(width * channels) as isize, channels as isize],
            first: [y, x],
            height,
            starts: (width + 1).saturating_sub(pixels),
        }
    }
}

/// A run's or tap's place by the pixel: held by value, so that no store is taken to change it.
#[derive(Clone, Copy, Debug)]
struct Lattice {
    /// Of the pixel at row and column 0 of the first image.
    origin: *const f32,
    /// Floats from a row to the next, and from a column to the next.
    strides: [isize; 2],
    /// Row and column of the run, relative to the window.
    first: [isize; 2],
    /// Rows of the image, and columns at which a run that lies inside may start.
    height: usize,
    starts: usize,
}

impl Lattice {
    /// The run's first float; anywhere, if that is outside the image.
    #[inline(always)]
    fn first(&self, pixel: &Pixel) -> *const f32 {
        let [row, column] = self.strides;
        self.origin
            .wrapping_offset(pixel.y * row + (pixel.image as isize + pixel.x) * column)
    }

    /// Whether the run lies inside the image.
    #[inline(always)]
    fn is_inside(&self, pixel: &Pixel) -> bool {
        // Of negative numbers come ones larger than any size.
        let [y, x] = [pixel.y + self.first[0], pixel.x + self.first[1]].map(isize::cast_unsigned);
        y < self.height && x < self.starts
    }
}

/// Invariant: [`find`]'s conditions; the zeros are as many as the channels.
fn find_by_tap(wanted: &Wanted<'_>, zeros: &[f32], found: &mut Windows) {
    let [.., channels] = wanted.phase.source;
    let taps = wanted
        .phase
        .runs
        .iter()
        .flat_map(|run| (0..run.width).map(move |x| (run, x)));
    for (place, (run, x)) in taps.enumerate() {
        let start = wanted.depth.start.max(place * channels);
        let end = wanted.depth.end.min((place + 1) * channels);
        if start >= end {
            continue;
        }
        found.segments.push(end - start);
        let lattice = wanted.lattice([run.y, run.x + x as isize], 1);
        let first = start - place * channels;
        let zeros = zeros[..channels].as_ptr();
        found.starts.extend(wanted.pixels.iter().map(|pixel| {
            if lattice.is_inside(pixel) {
                lattice.first(pixel).wrapping_add(first)
            } else {
                zeros
            }
        }));
    }
}

/// Invariant: [`find`]'s conditions.
struct FindByRun<'a> {
    wanted: Wanted<'a>,
    rows: Rows,
    found: &'a mut Windows,
}

impl Kernel for FindByRun<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { wanted, rows, found } = self;
        for piece in wanted.pieces() {
            found.segments.push(piece.floats.len());
            let before = found.starts.len();
            found.starts.resize(before + wanted.pixels.len(), std::ptr::null());
            let lattice = wanted.lattice([piece.run.y, piece.run.x], piece.run.width);
            let mut target = rows.at.wrapping_add(piece.place);
            for (start, pixel) in found.starts[before..].iter_mut().zip(wanted.pixels) {
                *start = lattice.first(pixel).wrapping_add(piece.floats.start);
                if !lattice.is_inside(pixel) {
                    *start = target;
                    // Out of line: few pixels are at an edge.
                    s.vectorize(Edge {
                        wanted: &wanted,
                        piece: &piece,
                        pixel,
                        target,
                    });
                }
                target = target.wrapping_add(rows.stride);
            }
        }
    }
}

/// Copies a run that lies outside the image in part. Invariant: `target` is writable for the piece's floats, by this kernel alone.
struct Edge<'a> {
    wanted: &'a Wanted<'a>,
    piece: &'a Piece<'a>,
    pixel: &'a Pixel,
    target: *mut f32,
}

impl Kernel for Edge<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self {
            wanted,
            piece: Piece { run, floats, .. },
            pixel,
            target,
        } = self;
        let [height, width, channels] = wanted.phase.source;
        let (y, x) = (pixel.y + run.y, pixel.x + run.x);
        let inside = if (0..height as isize).contains(&y) {
            // Columns of the run that lie inside the image, in floats.
            let left = x.min(0).unsigned_abs().min(run.width);
            let right = (width as isize - x).clamp(left as isize, run.width as isize) as usize;
            (left * channels).clamp(floats.start, floats.end)..(right * channels).clamp(floats.start, floats.end)
        } else {
            floats.end..floats.end
        };
        let source = wanted
            .lattice([run.y, run.x], run.width)
            .first(pixel)
            .wrapping_add(inside.start);
        let [before, within, after] = [inside.start - floats.start, inside.len(), floats.end - inside.end];
        // SAFETY: the three parts make up `floats`, for which the target is writable.
        unsafe { zero(s, target, before) };
        // SAFETY: as above; row `y` and these columns of it are inside the pixel's image.
        unsafe { copy(s, source, target.wrapping_add(before), within) };
        // SAFETY: as above.
        unsafe { zero(s, target.wrapping_add(before + within), after) };
    }
}

/// Invariant: [`find`]'s conditions.
struct Gather<'a> {
    wanted: Wanted<'a>,
    rows: Rows,
}

impl Kernel for Gather<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { wanted, rows } = self;
        for piece in wanted.pieces() {
            let lattice = wanted.lattice([piece.run.y, piece.run.x], piece.run.width);
            let mut target = rows.at.wrapping_add(piece.place);
            for pixel in wanted.pixels {
                if lattice.is_inside(pixel) {
                    let source = lattice.first(pixel).wrapping_add(piece.floats.start);
                    // SAFETY: the run is inside the pixel's image; this pixel's row is writable for the wanted depth.
                    unsafe { copy(s, source, target, piece.floats.len()) };
                } else {
                    s.vectorize(Edge {
                        wanted: &wanted,
                        piece: &piece,
                        pixel,
                        target,
                    });
                }
                target = target.wrapping_add(rows.stride);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::Shape;
    use super::*;
    use crate::conv2d::Conv2dConfig;

    #[test]
    fn short_runs_and_whole_pages_are_gathered() {
        let reading = |channels: usize, kernel: usize, dilation: usize| {
            let config = Conv2dConfig {
                dilation,
                ..Default::default()
            };
            let shape = Shape::new([1, 16, 16, channels], 4, [kernel; 2], &config).unwrap();
            Reading::of(&Phase::forward(&shape))
        };
        assert_eq!(reading(64, 3, 1), Reading::ByTap);
        assert_eq!(reading(3, 3, 1), Reading::ByRun);
        assert_eq!(reading(1, 3, 1), Reading::Gathered);
        // Dilated taps are runs of one.
        assert_eq!(reading(3, 3, 2), Reading::Gathered);
        assert_eq!(reading(1024, 1, 1), Reading::Gathered);
    }
}
