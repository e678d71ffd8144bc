//! Large blocks on huge pages: the passes of a convolution walk several rows of an image at once, more small pages than a
//! processor keeps the addresses of.

#[cfg(all(target_os = "linux", not(miri)))]
use std::ffi::{c_int, c_void};

/// Bytes of a huge page on the machines that have them.
pub(crate) const HUGE_PAGE: usize = 2 << 20;

/// Asks for huge pages for the whole ones of `len` bytes from `start`, which must be a live allocation and begin at a huge
/// page. The system may refuse.
#[cfg(all(target_os = "linux", not(miri)))]
pub(crate) fn advise(start: *mut u8, len: usize) {
    /// From `linux/mman.h`.
    const MADV_HUGEPAGE: c_int = 14;
    unsafe extern "C" {
        fn madvise(start: *mut c_void, len: usize, advice: c_int) -> c_int;
    }
    let whole = len / HUGE_PAGE * HUGE_PAGE;
    if whole > 0 && start.addr().is_multiple_of(HUGE_PAGE) {
        // SAFETY: the range lies in a live allocation and is page-aligned; this advice changes no contents.
        let _refused = unsafe { madvise(start.cast(), whole, MADV_HUGEPAGE) };
    }
}

#[cfg(not(all(target_os = "linux", not(miri))))]
pub(crate) fn advise(_start: *mut u8, _len: usize) {}
