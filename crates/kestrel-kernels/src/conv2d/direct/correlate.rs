//! The forward pass and the backward pass to the data: blocks of target pixels times ranges of channels, each a unit of
//! work for one thread.

use std::cmp::Reverse;
use std::ops::Range;

use super::output::Output;
use super::panel::{Panels, pack_weights};
use super::phase::{Phase, Pixel};
use super::tile::{self, Tile};
use super::windows::{self, Wanted, Windows};
use super::{Correlation, piece};
use crate::conv2d::hooks::{Epilogue, Stores};
use crate::conv2d::slices::Shared;
use crate::conv2d::workspace::LINE;
use crate::simd::Simd;

/// Pixels of a block, at most.
const PIXELS: usize = 192;
/// Blocks of a phase, at least, if they have as many rows of registers each.
const BLOCKS: usize = 8;
/// Numbers of threads among which blocks should share out evenly.
const THREADS: [usize; 3] = [2, 4, 8];
/// Depth of the windows that are gathered at a time, at most: with a panel of weights it fits the nearest cache.
const DEPTH: usize = 256;
/// Channels whose sums a unit holds, at most.
const CHANNELS: usize = 256;

/// Runs `pass`; returns the epilogue's sums, `[SUMS, channels]`.
pub(super) fn correlate<S: Simd, E: Epilogue>(s: S, pass: Correlation<'_, E>) -> Vec<f64> {
    let Correlation {
        phases,
        source,
        w,
        steps,
        epilogue,
        channels,
        target,
        workspace,
    } = pass;
    assert!(
        E::STORES == Stores::All,
        "a direct convolution stores every output, and nothing else"
    );
    epilogue.check(channels, target.len());
    let (jobs, units) = Job::list(phases, S::ROWS);
    let taps: Vec<usize> = jobs.iter().flat_map(|job| &job.phase.taps).copied().collect();
    let panels = Panels::new(s, channels, jobs.iter().map(|job| job.all_depth).sum());
    let packed = workspace.weights.floats(panels.len());
    pack_weights(s, w, steps, &taps, &panels, packed);
    let packed = &*packed;

    let ranges = Ranges::new(&panels);
    let sums_len = E::SUMS * ranges.row();
    let sums = workspace.sums.floats(units * ranges.count * sums_len);
    sums.fill(0.0);
    let pass = Pass {
        s,
        source,
        panels,
        packed,
        epilogue,
        ranges,
        target: Shared(target.as_mut_ptr().cast()),
    };

    let units = units * ranges.count;
    let scratch_len = jobs.iter().map(|job| job.scratch(&ranges)).max().unwrap_or(0);
    workspace
        .threads
        .for_each_unit(units, scratch_len, sums, sums_len, |unit, scratch, sums| {
            let (block, range) = (unit / ranges.count, unit % ranges.count);
            let job = &jobs[jobs.partition_point(|job| job.first_block <= block) - 1];
            pass.run(job, block - job.first_block, range, scratch, sums);
        });
    totals::<E>(sums, channels, &ranges)
}

/// The sums over all units, in order, in f64: `[SUMS, channels]`.
fn totals<E: Epilogue>(sums: &[f32], channels: usize, ranges: &Ranges) -> Vec<f64> {
    let mut totals = vec![0.0; E::SUMS * channels];
    for (unit, sums) in sums.chunks_exact((E::SUMS * ranges.row()).max(1)).enumerate() {
        let first = unit % ranges.count * ranges.row();
        for (totals, sums) in totals.chunks_exact_mut(channels).zip(sums.chunks_exact(ranges.row())) {
            for (total, &sum) in totals[first..].iter_mut().zip(sums) {
                *total += f64::from(sum);
            }
        }
    }
    totals
}

/// How the target's channels are cut into ranges of whole panels.
#[derive(Clone, Copy, Debug)]
struct Ranges {
    count: usize,
    /// Panels of a range, the last one perhaps fewer.
    panels: usize,
    /// Channels of a full panel.
    width: usize,
}

impl Ranges {
    fn new(panels: &Panels) -> Self {
        let each = piece(panels.count(), CHANNELS / panels.full_width(), 1);
        Self {
            count: panels.count().div_ceil(each),
            panels: each,
            width: panels.full_width(),
        }
    }

    /// Channels of a range.
    fn row(&self) -> usize {
        self.panels * self.width
    }
}

/// Pixels of a block: a multiple of `rows`, which are worked on at a time, such that the usual numbers of threads end
/// together.
fn block_pixels(pixels: usize, rows: usize) -> usize {
    let tiles = pixels.div_ceil(rows);
    let most = (PIXELS / rows).min(tiles.div_ceil(BLOCKS)).max(1);
    // What the busiest thread does, for each number of threads, in tiles of all threads.
    let cost = |block: usize| -> usize {
        let (full, rest) = (tiles / block, tiles % block);
        let busiest = |threads: usize| full / threads * block + if full % threads == 0 { rest } else { block };
        THREADS.into_iter().map(|threads| threads * busiest(threads)).sum()
    };
    // Of equal ones the largest block, which reads the weights least often.
    let best = (most.div_ceil(2)..=most).rev().min_by_key(|block| cost(*block));
    best.unwrap_or(most) * rows
}

/// One phase and how it is cut up; depends on the shape and the instruction set alone.
struct Job<'a> {
    phase: &'a Phase,
    /// Its depth, and where that begins in the depth of all jobs.
    all_depth: usize,
    first_depth: usize,
    /// Blocks of the phases before.
    first_block: usize,
    /// Pixels of a block, and floats of depth that are worked on at a time.
    pixels: usize,
    depth: usize,
}

impl<'a> Job<'a> {
    /// The jobs of `phases` that have pixels, and all jobs' blocks.
    fn list(phases: &'a [Phase], rows: usize) -> (Vec<Self>, usize) {
        let (mut first_depth, mut first_block) = (0, 0);
        let mut phases: Vec<_> = phases.iter().filter(|phase| phase.len() > 0).collect();
        // The longest units first, so that threads end together.
        phases.sort_by_key(|phase| Reverse(phase.depth()));
        let jobs = phases.into_iter().map(|phase| {
            let pixels = block_pixels(phase.len(), rows);
            let job = Self {
                phase,
                all_depth: phase.depth(),
                first_depth,
                first_block,
                pixels,
                depth: piece(phase.depth(), DEPTH, LINE),
            };
            first_depth += job.all_depth;
            first_block += phase.len().div_ceil(job.pixels);
            job
        });
        let jobs = jobs.collect();
        (jobs, first_block)
    }

    /// Floats from a gathered window to the next: windows a power of two apart would fall into the same cache sets.
    fn row(&self) -> usize {
        self.depth + LINE
    }

    /// Floats that a thread needs.
    fn scratch(&self, ranges: &Ranges) -> usize {
        let partial = if self.depth < self.all_depth {
            self.pixels * ranges.row()
        } else {
            0
        };
        windows::scratch_len(self.phase, self.pixels, self.row()) + partial
    }
}

/// What all units share. Invariant: [`Correlation`]'s; each pixel of the target is in one block of one job.
struct Pass<'a, S, E> {
    s: S,
    source: &'a [f32],
    /// Of all jobs' weights, in `packed`.
    panels: Panels,
    packed: &'a [f32],
    epilogue: &'a E,
    ranges: Ranges,
    target: Shared,
}

impl<S: Simd, E: Epilogue> Pass<'_, S, E> {
    /// Computes a range of channels of a block of pixels. Each block and range are run once.
    fn run(&self, job: &Job<'_>, block: usize, range: usize, scratch: &mut [f32], sums: &mut [f32]) {
        let phase = job.phase;
        let first = block * job.pixels;
        let len = job.pixels.min(phase.len() - first);
        let mut pixels = [Pixel::default(); PIXELS];
        phase.list(first..first + len, &mut pixels);
        let pixels = &pixels[..len];
        let panels = range * self.ranges.panels..self.panels.count().min((range + 1) * self.ranges.panels);
        if job.all_depth == 0 {
            self.fill(panels, pixels, sums);
            return;
        }
        let (rows, partial) = scratch.split_at_mut(windows::scratch_len(phase, job.pixels, job.row()));
        let partial = partial.as_mut_ptr();

        let mut a = Windows::default();
        let mut start = 0;
        loop {
            let end = job.all_depth.min(start + job.depth);
            let wanted = Wanted {
                phase,
                source: self.source,
                pixels,
                depth: start..end,
            };
            // SAFETY: the source has the phase's length, and the pixels are a block of it.
            unsafe { windows::find(self.s, wanted, rows, job.row(), &mut a) };
            let chunk = Chunk {
                depth: start..end,
                a: &a,
                partial,
            };
            self.multiply(job, chunk, panels.clone(), pixels, sums);
            start = end;
            if end == job.all_depth {
                break;
            }
        }
    }

    /// Writes what the epilogue makes of zeros to a range of channels of pixels that no tap meets.
    fn fill(&self, panels: Range<usize>, pixels: &[Pixel], sums: &mut [f32]) {
        let channel = panels.start * self.panels.full_width();
        let used = self.panels.channels.min(panels.end * self.panels.full_width()) - channel;
        self.output(pixels, channel, used, sums, 0).fill();
    }

    /// The output of `pixels` at `used` channels from `channel` on, of which the sums begin at `sums_channel`.
    fn output<'a>(
        &'a self,
        pixels: &'a [Pixel],
        channel: usize,
        used: usize,
        sums: &'a mut [f32],
        sums_channel: usize,
    ) -> Output<'a, S, E> {
        // The invariant holds: the target has the length of all pixels, and those of a unit's block at its channels are its alone.
        Output {
            s: self.s,
            epilogue: self.epilogue,
            pixels,
            y: self.target,
            channels: self.panels.channels,
            channel,
            used,
            sums,
            sums_row: self.ranges.row(),
            sums_channel,
        }
    }

    /// One chunk of the depth for all panels of a range.
    fn multiply(&self, job: &Job<'_>, chunk: Chunk<'_>, panels: Range<usize>, pixels: &[Pixel], sums: &mut [f32]) {
        let Chunk { depth, a, partial } = chunk;
        for panel in panels.clone() {
            let width = self.panels.width(panel);
            let place = panel - panels.start;
            let at = panel * self.panels.stride() + (job.first_depth + depth.start) * width;
            let b = self.packed[at..].as_ptr();
            let next = if panel + 1 < panels.end {
                b.wrapping_add(self.panels.stride())
            } else {
                b.wrapping_add(depth.len() * width)
                    .wrapping_sub(place * self.panels.stride())
            };
            let (channel, used) = (panel * self.panels.full_width(), self.panels.used(panel));
            let mut output = self.output(pixels, channel, used, sums, place * self.panels.full_width());
            let is_last = depth.end == job.all_depth;
            let tile = Tile {
                rows: pixels.len(),
                a,
                b,
                next,
                partial: partial.wrapping_add(place * job.pixels * self.panels.full_width()),
                partial_stride: width,
                resume: depth.start > 0,
                output: if is_last { Some(&mut output) } else { None },
            };
            // SAFETY: A holds the chunk's depths of all pixels, B those of the panel. If the depth has several chunks, the
            // scratch has room for partial sums of a range of panels, which the first chunk initialises.
            unsafe { tile::multiply(self.s, tile, width) };
        }
    }
}

/// A range of the depth, and the block's windows at these depths.
struct Chunk<'a> {
    depth: Range<usize>,
    a: &'a Windows,
    /// The block's partial sums, panel by panel.
    partial: *mut f32,
}
