//! A global allocator that keeps large blocks for the next step of training.
//!
//! A training step allocates and frees the same large tensors again and again. Most allocators give such blocks back to
//! the system, which then faults them in page by page: a third of a step's time or more. [`CachingAllocator`] keeps them
//! in lists by size instead. Free blocks are kept up to half of the most that was ever in use at once, or 128 MiB if that is
//! more, beyond that most: before it would be passed, all of them go back to the system. Each time that happens, twice as much
//! may be kept from then on, up to as much as was ever in use, so that work of many sizes comes to rest. Blocks of 2 MiB and more lie on huge
//! pages where the system has them. Large blocks are aligned to a cache line, without which no kernel stores its output past
//! the caches.
//!
//! ```
//! use kestrel_kernels::memory::CachingAllocator;
//!
//! #[global_allocator]
//! static ALLOCATOR: CachingAllocator = CachingAllocator::new();
//! # fn main() {}
//! ```

mod chunks;
pub(crate) mod huge_pages;
mod prefetch;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use huge_pages::HUGE_PAGE;

pub use chunks::fill_chunks;
pub use prefetch::prefetch;

/// Blocks from this size on are kept; smaller ones are the system allocator's.
const LARGE: usize = 1 << SMALLEST_BITS;
const SMALLEST_BITS: u32 = 18;
/// Size classes between two powers of two; a block is at most an eighth larger than asked for.
const STEPS: usize = 8;
/// From 256 KiB up to 64 GiB.
const CLASSES: usize = 18 * STEPS;
/// Bytes of used and free blocks together beyond the most ever in use, at least: a pass without gradients uses few blocks
/// at a time, but of many sizes.
const SLACK: usize = 128 << 20;
/// Alignment of every large block: a cache line, and a vector register of any machine.
const ALIGN: usize = 64;

/// The allocator; see the [module](self).
pub struct CachingAllocator {
    free: [Mutex<List>; CLASSES],
    live: AtomicUsize,
    peak: AtomicUsize,
    cached: AtomicUsize,
    /// Bytes that free blocks may take beyond the peak.
    slack: AtomicUsize,
}

/// A linked list of free blocks of one size; the first word of a block is the address of the next.
struct List(*mut u8);

// SAFETY: the list owns the blocks that it links: nobody else holds a pointer to them, so they may move between threads.
unsafe impl Send for List {}

impl List {
    /// # Safety
    /// `block` is an unused block of at least a pointer's size and alignment, owned by the caller, who gives it up.
    unsafe fn push(&mut self, block: *mut u8) {
        // SAFETY: by the function's contract the block is writable, large and aligned enough for a pointer.
        unsafe { block.cast::<*mut u8>().write(self.0) };
        self.0 = block;
    }

    fn pop(&mut self) -> Option<*mut u8> {
        let block = self.0;
        if block.is_null() {
            return None;
        }
        // SAFETY: `push` put the block here after writing the next address to its first word; nobody has touched it since.
        self.0 = unsafe { block.cast::<*mut u8>().read() };
        Some(block)
    }
}

impl CachingAllocator {
    /// An allocator that holds nothing yet.
    #[allow(clippy::new_without_default, reason = "a default could not stand in a static")]
    pub const fn new() -> Self {
        Self {
            free: [const { Mutex::new(List(std::ptr::null_mut())) }; CLASSES],
            live: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
            cached: AtomicUsize::new(0),
            slack: AtomicUsize::new(SLACK),
        }
    }

    /// Bytes in large blocks that are in use.
    pub fn live_bytes(&self) -> usize {
        self.live.load(Relaxed)
    }

    /// Bytes in large blocks that wait to be used again.
    pub fn cached_bytes(&self) -> usize {
        self.cached.load(Relaxed)
    }

    fn take(&self, class: usize, size: usize) -> Option<*mut u8> {
        // A poisoned lock cannot be: nothing between lock and unlock panics.
        let block = self.free[class].lock().ok()?.pop();
        if block.is_some() {
            self.cached.fetch_sub(size, Relaxed);
        }
        block
    }

    fn count_in(&self, size: usize) {
        let live = self.live.fetch_add(size, Relaxed) + size;
        self.peak.fetch_max(live, Relaxed);
    }

    /// Gives every free block back to the system.
    fn release(&self) {
        for class in 0..CLASSES {
            let size = class_size(class);
            while let Some(block) = self.take(class, size) {
                // SAFETY: every block of a class was allocated from `System` with this layout, and the list gave it up.
                unsafe { System.dealloc(block, class_layout(size)) };
            }
        }
    }

    /// A block of a class, from the list or fresh, zeroed where asked for.
    fn large(&self, class: usize, zeroed: bool) -> *mut u8 {
        let size = class_size(class);
        if let Some(block) = self.take(class, size) {
            self.count_in(size);
            if zeroed {
                // SAFETY: a block from the list is valid for its class's size.
                unsafe { block.write_bytes(0, size) };
            }
            return block;
        }
        // Free blocks of other sizes must not pile up, as when the shapes of the work change.
        let live = self.live.load(Relaxed) + size;
        let peak = self.peak.load(Relaxed).max(live);
        let slack = self.slack.load(Relaxed);
        if live + self.cached.load(Relaxed) > peak + slack.max(peak / 2) {
            self.release();
            self.slack.store(slack.max((2 * slack).min(peak)), Relaxed);
        }
        let layout = class_layout(size);
        // SAFETY: the layout's size is not 0.
        let block = unsafe { System.alloc(layout) };
        if !block.is_null() {
            // Before the memory is touched, which gives it pages: `alloc_zeroed` would touch it.
            huge_pages::advise(block, size);
            if zeroed {
                // SAFETY: the block has just been allocated, of this size.
                unsafe { block.write_bytes(0, size) };
            }
            self.count_in(size);
        }
        block
    }
}

/// The class of a large request, or `None` where the system allocator serves it.
fn class_of(layout: Layout) -> Option<usize> {
    let size = layout.size();
    if size < LARGE || layout.align() > ALIGN {
        return None;
    }
    let bits = usize::BITS - 1 - size.leading_zeros();
    let step = 1usize << (bits - STEPS.trailing_zeros());
    let steps = (size - (1 << bits)).div_ceil(step);
    let class = (bits - SMALLEST_BITS) as usize * STEPS + steps;
    (class < CLASSES).then_some(class)
}

/// Bytes of a class's blocks.
fn class_size(class: usize) -> usize {
    let octave = LARGE << (class / STEPS);
    octave + octave / STEPS * (class % STEPS)
}

fn class_layout(size: usize) -> Layout {
    let align = if size < HUGE_PAGE { ALIGN } else { HUGE_PAGE };
    // The size is a multiple of a cache line and far below the limit of an address space.
    Layout::from_size_align(size, align).unwrap_or(Layout::new::<u8>())
}

// SAFETY: small requests go to `System` whole. A large block is at least as large and as aligned as its layout asks
// (`class_of`), is handed to one owner at a time (`List`), and `dealloc` finds the same class from the same layout.
unsafe impl GlobalAlloc for CachingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match class_of(layout) {
            Some(class) => self.large(class, false),
            // SAFETY: the caller's contract is `System`'s.
            None => unsafe { System.alloc(layout) },
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        match class_of(layout) {
            Some(class) => self.large(class, true),
            // SAFETY: the caller's contract is `System`'s.
            None => unsafe { System.alloc_zeroed(layout) },
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let Some(class) = class_of(layout) else {
            // SAFETY: the same layout sent the request to `System`.
            return unsafe { System.dealloc(block, layout) };
        };
        let size = class_size(class);
        self.live.fetch_sub(size, Relaxed);
        if let Ok(mut list) = self.free[class].lock() {
            self.cached.fetch_add(size, Relaxed);
            // SAFETY: the caller gives up a block of this class, which is large and aligned enough for a pointer.
            unsafe { list.push(block) };
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let Ok(new_layout) = Layout::from_size_align(new_size, layout.align()) else {
            return std::ptr::null_mut();
        };
        match (class_of(layout), class_of(new_layout)) {
            // SAFETY: the same layout sent the request to `System`, and the new one goes there too.
            (None, None) => unsafe { System.realloc(block, layout, new_size) },
            (Some(old), Some(new)) if old == new => block,
            _ => {
                // SAFETY: the new size is not 0 by the caller's contract.
                let moved = unsafe { self.alloc(new_layout) };
                if !moved.is_null() {
                    // SAFETY: both blocks are valid for the smaller size, and distinct.
                    unsafe { moved.copy_from_nonoverlapping(block, layout.size().min(new_size)) };
                    // SAFETY: the caller gives up the old block.
                    unsafe { self.dealloc(block, layout) };
                }
                moved
            }
        }
    }
}

#[cfg(test)]
mod tests;
