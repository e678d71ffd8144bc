//! Scratch memory that is kept from call to call, so that a step of training faults no pages in.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::cell::Cell;
use std::mem;
use std::ptr::NonNull;
use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;

use crate::memory::huge_pages::{self, HUGE_PAGE};

/// Floats in a cache line.
pub(in crate::conv2d) const LINE: usize = 16;

/// Zeroed floats, aligned to a cache line or a huge page, growing only.
#[derive(Debug, Default)]
pub(in crate::conv2d) struct Buffer(Option<Block>);

/// One allocation. Invariant: `floats` is the start of a live allocation of `layout`, all initialised, owned by this
/// value alone.
#[derive(Debug)]
struct Block {
    floats: NonNull<f32>,
    layout: Layout,
}

// SAFETY: a Block owns its memory, like a boxed slice.
unsafe impl Send for Block {}
// SAFETY: as above; a shared Block gives no access.
unsafe impl Sync for Block {}

impl Block {
    fn new(layout: Layout) -> Self {
        // SAFETY: the layout has a size of at least a cache line: see `Buffer::floats`.
        let start = unsafe { alloc(layout) };
        let Some(start) = NonNull::new(start) else {
            handle_alloc_error(layout)
        };
        // Before the memory is touched, which gives it pages: `alloc_zeroed` would touch it.
        huge_pages::advise(start.as_ptr(), layout.size());
        // SAFETY: the block has just been allocated, of this size.
        unsafe { start.as_ptr().write_bytes(0, layout.size()) };
        Self {
            floats: start.cast(),
            layout,
        }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: the invariant: this allocation is live, of this layout, and used by nobody else.
        unsafe { dealloc(self.floats.as_ptr().cast(), self.layout) };
    }
}

impl Buffer {
    /// The first `len` floats; what they hold is not specified.
    pub(in crate::conv2d) fn floats(&mut self, len: usize) -> &mut [f32] {
        if self.bytes() < len * size_of::<f32>() {
            let bytes = len * size_of::<f32>();
            let page = if bytes >= HUGE_PAGE / 8 {
                HUGE_PAGE
            } else {
                LINE * size_of::<f32>()
            };
            // Free the old block first: its contents are scratch.
            self.0 = None;
            match Layout::from_size_align(bytes.next_multiple_of(page), page) {
                Ok(layout) => self.0 = Some(Block::new(layout)),
                Err(_) => panic!("scratch of {bytes} bytes exceeds the address space"),
            }
        }
        let start = self.0.as_ref().map_or(NonNull::dangling(), |block| block.floats);
        // SAFETY: the block holds at least `len` initialised floats (none, and then `len` is 0), aligned to more than a
        // float; the borrow of self keeps it alive and unshared.
        unsafe { std::slice::from_raw_parts_mut(start.as_ptr(), len) }
    }

    fn bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |block| block.layout.size())
    }
}

/// Scratch memory of the passes over raw slices, owned by the caller and reused from call to call.
///
/// It grows to the largest call's need and stays. In bytes, with channels rounded up to two vectors, a call of
/// [`Winograd`](super::winograd::Winograd) needs (see [`direct`](super::direct) for its own):
///
/// | pass | for all threads | for each thread |
/// |---|---|---|
/// | forward, backward-data | `144·C·K` (weights) | `144·24·(C + 128)` at most |
/// | the same, with few tiles | 12 MiB at most (patches) | `144·(128 + tiles)` for each of a panel's 8 to 32 channels |
/// | backward-weights, few channels | 8 MiB at most (accumulators) | `144·32·(C + K)` |
/// | backward-weights, many channels | `144·C·K` (accumulator) and the larger of 7 MB and `144·16·(C + K)` | none |
/// | backward-weights, few tiles | 24 MiB at most (tiles) | `144·128` for each of a panel's channels |
///
/// Blocks of 1 MiB and more are rounded up to 2 MiB.
#[derive(Debug, Default)]
pub struct Workspace {
    /// Transformed weights, or accumulators of their gradients.
    pub(in crate::conv2d) weights: Buffer,
    /// Transformed tiles that all threads read.
    pub(in crate::conv2d) shared: Buffer,
    /// Per-block sums of an epilogue.
    pub(in crate::conv2d) sums: Buffer,
    /// Scratch memory of each thread.
    pub(in crate::conv2d) threads: Threads,
}

/// Scratch memory of each thread, and the loop that hands out work with it.
#[derive(Debug, Default)]
pub(in crate::conv2d) struct Threads(Vec<Buffer>);

impl Threads {
    /// Runs `job(unit, scratch, part)` for each unit below `units` on all threads, each taking the next unit when it has ended one.
    ///
    /// `scratch` has `scratch_len` floats and is the thread's; `part` is the unit's: one after the other, the units have
    /// `part_len` floats of `parts`, the last perhaps fewer.
    pub(in crate::conv2d) fn for_each_unit(
        &mut self,
        units: usize,
        scratch_len: usize,
        parts: &mut [f32],
        part_len: usize,
        job: impl Fn(usize, &mut [f32], &mut [f32]) + Sync,
    ) {
        let threads = rayon::current_num_threads().min(units);
        if self.0.len() < threads {
            self.0.resize_with(threads, Default::default);
        }
        let rest = Mutex::new((0..units, parts));
        let take = || {
            let mut rest = rest.lock().unwrap_or_else(PoisonError::into_inner);
            let (units, parts) = &mut *rest;
            let unit = units.next()?;
            let all = mem::take(parts);
            let (part, others) = all.split_at_mut(part_len.min(all.len()));
            *parts = others;
            Some((unit, part))
        };
        self.0[..threads].par_iter_mut().with_max_len(1).for_each(|scratch| {
            let scratch = scratch.floats(scratch_len);
            while let Some((unit, part)) = take() {
                job(unit, scratch, part);
            }
        });
    }

    fn bytes(&self) -> usize {
        self.0.iter().map(Buffer::bytes).sum()
    }
}

thread_local! {
    static LOCAL: Cell<Option<Workspace>> = const { Cell::new(None) };
}

impl Workspace {
    /// An empty workspace.
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.weights.bytes() + self.shared.bytes() + self.sums.bytes() + self.threads.bytes()
    }

    /// Runs `f` with this thread's own workspace, for callers that have nowhere to keep one.
    ///
    /// A call within a call gets a new, empty one.
    pub fn with_local<T>(f: impl FnOnce(&mut Workspace) -> T) -> T {
        let mut workspace = LOCAL.take().unwrap_or_default();
        let result = f(&mut workspace);
        LOCAL.set(Some(workspace));
        result
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn a_buffer_grows_only_and_is_aligned() {
        let mut buffer = Buffer::default();
        for len in [0, 1, 100, 17, 1000] {
            let floats = buffer.floats(len);
            assert_eq!(floats.len(), len);
            assert!(len == 0 || floats.as_ptr().addr().is_multiple_of(64));
        }
        assert_eq!(buffer.bytes(), 63 * 64);
        assert_eq!(buffer.floats(300_000).len(), 300_000);
        assert_eq!(buffer.bytes(), HUGE_PAGE);
    }

    #[test]
    fn each_unit_runs_once_with_its_part() {
        for (len, part_len) in [(12, 3), (10, 3), (0, 0)] {
            let mut parts = vec![0.0; len];
            let runs = AtomicUsize::new(0);
            Threads::default().for_each_unit(4, 5, &mut parts, part_len, |unit, scratch, part| {
                assert_eq!(scratch.len(), 5);
                runs.fetch_add(1 << (8 * unit), Ordering::Relaxed);
                part.iter_mut().for_each(|value| *value += 1.0 + unit as f32);
            });
            assert_eq!(runs.into_inner(), 0x0101_0101);
            let expected: Vec<f32> = (0..len).map(|i| 1.0 + (i / part_len) as f32).collect();
            assert_eq!(parts, expected);
        }
    }

    #[test]
    fn the_local_workspace_is_kept_and_calls_nest() {
        Workspace::with_local(|outer| {
            outer.weights.floats(1000);
            Workspace::with_local(|inner| assert_eq!(inner.bytes(), 0));
        });
        Workspace::with_local(|again| assert!(again.bytes() >= 4000));
    }
}
