//! One command a file.

pub(crate) mod ci;
pub(crate) mod cuda_toolkit;
pub(crate) mod fuzz;
pub(crate) mod golden;
pub(crate) mod miri;
pub(crate) mod sanitize;
pub(crate) mod soak;
pub(crate) mod test;
pub(crate) mod test_cuda;
pub(crate) mod trainer;
