//! Integration tests of `kestrel-train`.

mod golden;
mod resume;
