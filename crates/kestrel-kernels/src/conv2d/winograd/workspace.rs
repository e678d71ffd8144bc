//! Scratch memory that is kept from call to call, so that a step of training faults no pages in.

use std::cell::Cell;

/// A cache line of floats; vectors of it are aligned for every instruction set. Read and written through [`Buffer::floats`].
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Line(#[allow(dead_code, reason = "read through a pointer")] [f32; LINE]);

/// Floats in a cache line.
pub(super) const LINE: usize = 16;

/// Floats aligned to a cache line, growing only.
#[derive(Debug, Default)]
pub(super) struct Buffer(Vec<Line>);

impl Buffer {
    /// The first `len` floats; what they hold is not specified.
    pub(super) fn floats(&mut self, len: usize) -> &mut [f32] {
        let lines = len.div_ceil(LINE);
        if lines > self.0.len() {
            // Free the old lines first, and copy nothing: the contents are scratch.
            self.0 = Vec::new();
            self.0 = vec![Line([0.0; LINE]); lines];
        }
        // SAFETY: a Line is LINE floats without padding (its size is its alignment), the Vec holds at least `lines` of
        // them, initialised, and lines * LINE >= len; the borrow of self keeps the Vec in place and unshared.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_mut_ptr().cast::<f32>(), len) }
    }

    fn bytes(&self) -> usize {
        self.0.len() * size_of::<Line>()
    }
}

/// Scratch memory of the Winograd passes, owned by the caller and reused from call to call.
///
/// It grows to the largest call's need and stays. With `C'`, `K'` the channels rounded up to two vectors, a call needs
/// `144·C'·K'` bytes for the transformed weights (forward, backward-data), or that times the number of accumulators
/// (backward-weights, at most 8 MiB where there are several) plus one shared block of transformed tiles, and for each
/// thread two blocks of transformed tiles: 1.5 MiB at 64 channels, 1.8 MiB at 256.
#[derive(Debug, Default)]
pub struct Workspace {
    /// Transformed weights, or accumulators of their gradients.
    pub(super) weights: Buffer,
    /// Transformed tiles that all threads read.
    pub(super) shared: Buffer,
    /// Per-block sums of an epilogue.
    pub(super) sums: Buffer,
    /// Transformed tiles of each thread.
    pub(super) threads: Vec<Buffer>,
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
        let threads: usize = self.threads.iter().map(Buffer::bytes).sum();
        self.weights.bytes() + self.shared.bytes() + self.sums.bytes() + threads
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
    use super::*;

    #[test]
    fn a_buffer_grows_only_and_is_aligned() {
        let mut buffer = Buffer::default();
        for len in [0, 1, 100, 17, 1000] {
            let floats = buffer.floats(len);
            assert_eq!(floats.len(), len);
            assert_eq!(floats.as_ptr().addr() % 64, 0);
        }
        assert_eq!(buffer.bytes(), 63 * 64);
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
