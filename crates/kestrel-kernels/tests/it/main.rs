//! Each op against finite differences, against PyTorch's golden tensors, and against itself on other thread counts.
#![allow(clippy::unwrap_used)]

mod candle_defects;
mod errors;
mod golden;
mod gradients;
mod inputs;
mod manifest_dir;
mod net_sizes;
mod plain_loops;
mod streaming;
mod threads;

/// As programs are told to use it: outputs are stored past the caches only where its blocks hold them. The sanitizer sees
/// more with its own.
#[cfg(not(sanitized))]
#[global_allocator]
static ALLOCATOR: kestrel_kernels::memory::CachingAllocator = kestrel_kernels::memory::CachingAllocator::new();
