//! Where a crate's golden files are. Every crate's tests have this file.

use std::path::PathBuf;

/// The crate's folder: the one of the environment, which cargo sets, and `cargo xtask test-cuda` on a machine to which the tests
/// were carried; else the one that the tests were compiled in.
pub(crate) fn manifest_dir() -> PathBuf {
    let told = std::env::var_os("CARGO_MANIFEST_DIR");
    told.map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from)
}
