//! What can go wrong in an op, one variant a fault.

use candle_core::DType;

/// An op's fault.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A tensor has another shape than the op needs; `expected` names the axes by the crate's legend.
    #[error("{op}: expected shape {expected}, got {got:?}")]
    ShapeMismatch {
        /// The op and its argument.
        op: &'static str,
        /// The shape that the op needs.
        expected: String,
        /// The shape that it was given.
        got: Vec<usize>,
    },
    /// A tensor has an element type that the op does not take.
    #[error("{op}: expected {expected}, got {got:?}")]
    DTypeMismatch {
        /// The op and its argument.
        op: &'static str,
        /// The element types that the op takes.
        expected: String,
        /// The element type that it was given.
        got: DType,
    },
    /// An argument that is not a tensor lies outside its range.
    #[error("{op}: {argument} must be {expected}, got {got}")]
    InvalidArgument {
        /// The op.
        op: &'static str,
        /// The argument's name.
        argument: &'static str,
        /// Its range.
        expected: &'static str,
        /// Its value.
        got: f64,
    },
    /// The kernel, dilated, is larger than the padded input.
    #[error("{op}: kernel of extent {kernel} does not fit the padded input of extent {input}")]
    KernelTooLarge {
        /// The op.
        op: &'static str,
        /// The kernel's extent, `dilation * (kernel - 1) + 1`.
        kernel: usize,
        /// The padded input's extent, `input + 2 * padding`.
        input: usize,
    },
    /// A target names a class that the logits do not have.
    #[error("target {target} at index {index} is out of range for {num_classes} classes")]
    TargetOutOfRange {
        /// The sample's place in the batch.
        index: usize,
        /// Its target.
        target: u32,
        /// The number of classes.
        num_classes: usize,
    },
    /// Batch statistics need more than one value a channel.
    #[error("batch_norm: expected more than 1 value per channel when training, got input size {got:?}")]
    TooFewValuesPerChannel {
        /// The input's shape.
        got: Vec<usize>,
    },
    /// A mean over no samples.
    #[error("{op}: the batch is empty")]
    EmptyBatch {
        /// The op.
        op: &'static str,
    },
    /// A value was handed to another tape than the one that made it.
    #[error("a value of one section was used in another; sections exchange tensors")]
    ForeignValue,
    /// candle failed.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

impl From<Error> for candle_core::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Candle(inner) => inner,
            other => candle_core::Error::wrap(other),
        }
    }
}
