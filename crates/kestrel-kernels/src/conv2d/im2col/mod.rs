//! Convolution as a matrix product with patches, in strips that stay in cache.
//!
//! A strip is a run of output positions of one image or, where images are small, of several whole images. Its sizes
//! depend on the shapes alone.

mod backward_data;
mod backward_weight;
mod forward;
mod patches;
mod strip;

pub(crate) use backward_data::backward_data;
pub(crate) use backward_weight::{backward_bias, backward_weight};
pub(crate) use forward::forward;
