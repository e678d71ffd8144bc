//! Launching kernels.

use candle_core::cuda_backend::cudarc::driver::{DeviceRepr, DriverError, LaunchConfig, PushKernelArg};
use candle_core::{DType, Error, Result};

use super::Context;
use super::context::Source;

/// Threads of a block.
pub(super) const THREADS: usize = 256;

/// Blocks for each multiprocessor that a walk over memory is cut into, so that none is idle for long at the end.
const BLOCKS_PER_PROCESSOR: usize = 8;

/// The driver's error as candle's.
pub(super) fn driver<T>(result: std::result::Result<T, DriverError>) -> Result<T> {
    result.map_err(|error| Error::Cuda(Box::new(error)).bt())
}

/// An argument of a kernel.
#[derive(Clone, Copy)]
pub(crate) enum Arg<'a> {
    /// An address on the device, or 0.
    Pointer(u64),
    I32(i32),
    I64(i64),
    U64(u64),
    F32(f32),
    Key(&'a Key),
    Loss(&'a LossArg),
    Tensors(&'a Tensors),
}

/// A key of ChaCha.
#[repr(C)]
pub(crate) struct Key(pub(crate) [u32; 8]);
// SAFETY: plain numbers, laid out as the kernel's `Key`.
unsafe impl DeviceRepr for Key {}

/// `Loss` of `cross_entropy.cu`.
#[repr(C)]
pub(crate) struct LossArg {
    pub(crate) labels: u64,
    pub(crate) probabilities: u64,
    pub(crate) weights: u64,
    pub(crate) classes: i32,
    pub(crate) smoothing: f32,
}
// SAFETY: plain numbers, laid out as the kernel's `Loss`.
unsafe impl DeviceRepr for LossArg {}

/// How many tensors a launch of `update.cu` takes.
pub(crate) const TENSORS: usize = 48;

/// `Tensors` of `update.cu`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Tensors {
    pub(crate) param: [u64; TENSORS],
    pub(crate) grad: [u64; TENSORS],
    pub(crate) first: [u64; TENSORS],
    pub(crate) second: [u64; TENSORS],
    pub(crate) count: [i64; TENSORS],
}
// SAFETY: plain numbers, laid out as the kernel's `Tensors`.
unsafe impl DeviceRepr for Tensors {}

/// The blocks of a launch, and a block's threads in two dimensions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Grid {
    pub(crate) blocks: (usize, usize),
    pub(crate) threads: (usize, usize),
}

impl Grid {
    /// Of a kernel whose threads go through `items` with the stride of the grid.
    pub(crate) fn strided(context: &Context, items: usize) -> Self {
        let blocks = items
            .div_ceil(THREADS)
            .clamp(1, context.processors * 4 * BLOCKS_PER_PROCESSOR);
        Self {
            blocks: (blocks, 1),
            threads: (THREADS, 1),
        }
    }

    /// Of a kernel with a thread for each item.
    pub(crate) fn one_each(items: usize) -> Self {
        Self {
            blocks: (items.div_ceil(THREADS).max(1), 1),
            threads: (THREADS, 1),
        }
    }

    /// Of a kernel that adds up the rows of a matrix: fewer blocks, for their sums are added by one of them, and narrow ones, so
    /// that each of these has few to add.
    pub(crate) fn reduction(context: &Context, rows: usize, channels: usize, width: usize) -> Self {
        const ACROSS: usize = 8;
        const BLOCKS_PER_PROCESSOR: usize = 2;
        let packs = channels.div_ceil(width);
        let across = packs.next_power_of_two().min(ACROSS);
        let down = THREADS / across;
        let columns = packs.div_ceil(across);
        let most = (context.processors * BLOCKS_PER_PROCESSOR).div_ceil(columns);
        let blocks = rows.div_ceil(4 * down).clamp(1, most);
        Self {
            blocks: (columns, blocks),
            threads: (across, down),
        }
    }

    /// Of a kernel over a matrix `[rows, channels]` whose threads take `width` channels each.
    pub(crate) fn matrix(context: &Context, rows: usize, channels: usize, width: usize) -> Self {
        let packs = channels.div_ceil(width);
        let across = packs.next_power_of_two().min(32);
        let down = THREADS / across;
        let columns = packs.div_ceil(across);
        let most = (context.processors * BLOCKS_PER_PROCESSOR).div_ceil(columns);
        // At least four rows a thread: a block costs more than a few loads.
        let blocks = rows.div_ceil(4 * down).clamp(1, most.clamp(1, 4096));
        Self {
            blocks: (columns, blocks),
            threads: (across, down),
        }
    }
}

impl Context {
    /// Puts a kernel into the stream.
    ///
    /// # Safety
    /// The arguments are what the kernel takes, in its order; its pointers point to what it reads and writes, in memory that is
    /// freed, if at all, in the stream's order.
    pub(crate) unsafe fn launch(&self, source: Source, name: &str, grid: Grid, args: &[Arg<'_>]) -> Result<()> {
        let function = self.function(source, name)?;
        let mut builder = self.stream.launch_builder(&function);
        for arg in args {
            match arg {
                Arg::Pointer(value) | Arg::U64(value) => builder.arg(value),
                Arg::I32(value) => builder.arg(value),
                Arg::I64(value) => builder.arg(value),
                Arg::F32(value) => builder.arg(value),
                Arg::Key(value) => builder.arg(*value),
                Arg::Loss(value) => builder.arg(*value),
                Arg::Tensors(value) => builder.arg(*value),
            };
        }
        let config = LaunchConfig {
            grid_dim: (grid.blocks.0 as u32, grid.blocks.1 as u32, 1),
            block_dim: (grid.threads.0 as u32, grid.threads.1 as u32, 1),
            shared_mem_bytes: 0,
        };
        // SAFETY: the caller's promise.
        driver(unsafe { builder.launch(config) })?;
        Ok(())
    }
}

/// How a kernel's instance for an element type is named.
pub(crate) fn type_name(dtype: DType) -> Result<&'static str> {
    match dtype {
        DType::F32 => Ok("f32"),
        DType::BF16 => Ok("bf16"),
        DType::F16 => Ok("f16"),
        got => candle_core::bail!("a section on a GPU has f32, bf16 and f16 values, not {got:?}"),
    }
}

/// The instance of a kernel for tensors of `dtype` whose last dimension is `channels`, and how many channels a thread takes.
pub(crate) fn instance(kernel: &str, dtype: DType, channels: usize) -> Result<(String, usize)> {
    let name = type_name(dtype)?;
    let width = 16 / dtype.size_in_bytes();
    if channels.is_multiple_of(width) {
        Ok((format!("{kernel}_{name}_wide"), width))
    } else {
        Ok((format!("{kernel}_{name}_one"), 1))
    }
}
