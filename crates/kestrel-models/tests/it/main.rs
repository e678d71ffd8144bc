//! Integration tests of `kestrel-models`.

mod cnn_golden;
mod formula;
