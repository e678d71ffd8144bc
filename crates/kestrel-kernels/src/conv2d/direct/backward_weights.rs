//! The backward pass to the weights: `dW = Xᵀ dY`, with `X` the gathered windows and `dY` in panels of output channels.
//!
//! A unit of work is a range of the depth, a range of output channels and a group of pixels; it adds up block after block
//! of its group. There are as many groups as make enough units, and their accumulators are summed in order at the end.

use std::ops::Range;

use super::accumulate::{Accumulate, accumulate};
use super::gather::{Gathered, Gradients, PanelTarget};
use super::panel::{Panels, unpack_gradients};
use super::phase::{Phase, Pixel};
use super::windows::{self, Wanted, Windows};
use super::{WeightGradient, piece};
use crate::conv2d::hooks::Epilogue;
use crate::conv2d::slices::Shared;
use crate::conv2d::workspace::LINE;
use crate::simd::Simd;

/// Pixels of a block, at most, and of a group, at least.
const PIXELS: usize = 224;
const GROUP_PIXELS: usize = 192;
/// Depth of a unit, at most: the second, if that would make too few units.
const DEPTHS: [usize; 2] = [576, 288];
/// Output channels of a unit, at most.
const CHANNELS: usize = 256;
/// Units that there should be, at least.
const UNITS: usize = 16;
/// Bytes that all accumulators together may take, if there are several.
const ACCUMULATOR_BYTES: usize = 8 << 20;

/// Runs `pass`.
pub(super) fn backward_weights<S: Simd, E: Epilogue>(s: S, pass: WeightGradient<'_, E>) {
    let WeightGradient {
        shape,
        x,
        dy,
        load,
        dw,
        workspace,
    } = pass;
    let [k, _, r, q] = shape.weight();
    let phase = Phase::forward(shape);
    if phase.len() == 0 {
        dw.fill(0.0);
        return;
    }
    let panels = Panels::new(s, k, phase.depth());
    let cut = Cut::new(&phase, &panels);
    let accumulators = workspace.weights.floats(cut.groups * panels.len());
    let job = Job {
        s,
        phase: &phase,
        panels,
        cut,
        x,
        gradients: &Gathered { s, dy, load },
        accumulators: Shared(accumulators.as_mut_ptr()),
    };
    let scratch_len = job.windows() + cut.gradients(&panels);
    workspace
        .threads
        .for_each_unit(cut.units(), scratch_len, &mut [], 0, |unit, scratch, _| {
            job.run(unit, scratch)
        });
    unpack_gradients(s, accumulators, r * q, &panels, dw);
}

/// How the work is cut up; depends on the shape and the instruction set alone.
#[derive(Clone, Copy, Debug)]
struct Cut {
    /// Depth and panels of a unit.
    depth: usize,
    panels: usize,
    /// Ranges of depth, ranges of panels, groups of pixels.
    depths: usize,
    ranges: usize,
    groups: usize,
    /// Pixels of a group and of a block.
    group: usize,
    block: usize,
}

impl Cut {
    fn new(phase: &Phase, panels: &Panels) -> Self {
        let cut = Self::with_depth(phase, panels, DEPTHS[0]);
        if cut.units() < UNITS {
            Self::with_depth(phase, panels, DEPTHS[1])
        } else {
            cut
        }
    }

    fn with_depth(phase: &Phase, panels: &Panels, most: usize) -> Self {
        let depth = piece(panels.depth, most, 12);
        let range = piece(panels.count(), CHANNELS / panels.full_width(), 1);
        let (depths, ranges) = (panels.depth.div_ceil(depth), panels.count().div_ceil(range));
        let wanted = UNITS.div_ceil(depths * ranges);
        let affordable = ACCUMULATOR_BYTES / (panels.len() * size_of::<f32>());
        let groups = wanted.min(affordable).min(phase.len() / GROUP_PIXELS).max(1);
        let group = phase.len().div_ceil(groups);
        Self {
            depth,
            panels: range,
            depths,
            ranges,
            // Rounding up may leave nothing for the last.
            groups: phase.len().div_ceil(group),
            group,
            block: piece(group, PIXELS, 4),
        }
    }

    fn units(&self) -> usize {
        self.depths * self.ranges * self.groups
    }

    /// Floats from a gathered window to the next: windows a power of two apart would fall into the same cache sets.
    fn row(&self) -> usize {
        self.depth.next_multiple_of(LINE) + LINE
    }

    /// Floats of a block's gradients.
    fn gradients(&self, panels: &Panels) -> usize {
        self.block * self.panels * panels.full_width()
    }
}

/// What all units share. Invariant: `x` and the gradients have the lengths of the phase's source and target; `accumulators` is
/// writable for the panels' length for each group, and nobody else uses it.
struct Job<'a, S> {
    s: S,
    phase: &'a Phase,
    panels: Panels,
    cut: Cut,
    x: &'a [f32],
    gradients: &'a dyn Gradients,
    accumulators: Shared,
}

impl<S: Simd> Job<'_, S> {
    /// Floats of scratch memory that a block's windows need.
    fn windows(&self) -> usize {
        windows::scratch_len(self.phase, self.cut.block, self.cut.row())
    }

    /// Computes a unit. Each is run once.
    fn run(&self, unit: usize, scratch: &mut [f32]) {
        let (cut, panels) = (&self.cut, &self.panels);
        // Units that follow one another share their pixels.
        let (group, part) = (unit / (cut.depths * cut.ranges), unit % (cut.depths * cut.ranges));
        let (depth, range) = (part / cut.ranges * cut.depth, part % cut.ranges * cut.panels);
        let unit = Unit {
            depth: depth..panels.depth.min(depth + cut.depth),
            panels: range..panels.count().min(range + cut.panels),
            accumulator: self.accumulators.get().wrapping_add(group * panels.len()),
        };
        let start = group * cut.group;
        let group = start..self.phase.len().min(start + cut.group);
        let mut found = Windows::default();
        for first in group.clone().step_by(cut.block) {
            let block = first..group.end.min(first + cut.block);
            self.add(&unit, block, first == start, scratch, &mut found);
        }
    }

    /// Adds a block of pixels to a unit's accumulator, or starts it with it.
    fn add(&self, unit: &Unit, block: Range<usize>, start: bool, scratch: &mut [f32], found: &mut Windows) {
        let (cut, panels) = (&self.cut, &self.panels);
        let (first, len) = (block.start, block.len());
        let mut pixels = [Pixel::default(); PIXELS];
        self.phase.list(block, &mut pixels);
        let pixels = &pixels[..len];
        let (windows, gradients) = scratch.split_at_mut(self.windows());
        let gradients = gradients.as_mut_ptr();
        let wanted = Wanted {
            phase: self.phase,
            source: self.x,
            pixels,
            depth: unit.depth.clone(),
        };
        // SAFETY: `x` has the source's length, and the pixels are a block of the phase's.
        unsafe { windows::find(self.s, wanted, windows, cut.row(), found) };
        let stride = cut.block * panels.full_width();
        let target = PanelTarget {
            panels: *panels,
            range: unit.panels.clone(),
            target: gradients,
            stride,
        };
        // SAFETY: there are `len` pixels from `first` on; the scratch has room for `cut.panels` panels of a block's pixels.
        unsafe { self.gradients.gather(first, len, target) };
        let dy = self.gradients.at(first * panels.channels);
        // The next block's gradients, of which each block of rows asks for a cache line a pixel until all have been asked for.
        let mut next = dy.wrapping_add(len * panels.channels + unit.panels.start * panels.full_width());
        let end = next.wrapping_add(unit.panels.len() * panels.full_width());
        for panel in unit.panels.clone() {
            let width = panels.width(panel);
            let mut sums = unit
                .accumulator
                .wrapping_add(panel * panels.stride() + unit.depth.start * width);
            for (&rows, windows) in found.segments.iter().zip(found.starts.chunks_exact(len)) {
                let product = Accumulate {
                    rows,
                    windows,
                    gradients: gradients.wrapping_add((panel - unit.panels.start) * stride),
                    sums,
                    start,
                    next,
                    next_step: if next < end { panels.channels } else { 0 },
                };
                // SAFETY: the segment has `rows` floats for each pixel, and the panel a row of gradients. The sums are these
                // depths of a panel of an accumulator, which are this unit's alone; its first block starts them.
                unsafe { accumulate(self.s, product, width) };
                sums = sums.wrapping_add(rows * width);
                next = next.wrapping_add(rows.div_ceil(S::ROWS) * LINE);
            }
        }
    }
}

/// A unit of work.
struct Unit {
    depth: Range<usize>,
    /// Of output channels.
    panels: Range<usize>,
    accumulator: *mut f32,
}
