//! What the passes over raw slices have in common.

/// Panics unless a slice has the length of its shape.
pub(super) fn check_len(name: &str, len: usize, shape: [usize; 4]) {
    let expected: usize = shape.iter().product();
    assert_eq!(len, expected, "expected {name} of shape {shape:?}");
}

/// A pointer that threads share; each use of it says which elements it touches.
#[derive(Clone, Copy)]
pub(super) struct Shared(pub(super) *mut f32);

// SAFETY: a pointer alone is harmless; every access through it is an unsafe operation with its own reasons.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    /// The pointer; a method, so that closures capture the whole wrapper.
    pub(super) fn get(self) -> *mut f32 {
        self.0
    }
}
