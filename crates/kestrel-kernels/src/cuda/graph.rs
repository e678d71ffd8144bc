//! Launches recorded once and replayed: a CUDA graph, for nets whose steps the host's launches would otherwise take longest of.

use std::cell::Cell;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::cuda_backend::cudarc::driver::{CudaGraph, CudaSlice, DevicePtr, sys};
use candle_core::{Device, Result, Tensor};

use super::Context;
use super::context::Source;
use super::launch::driver;
use super::{Arg, Grid};

thread_local! {
    /// Where the launches that this thread records find the step's number.
    static STEP: Cell<u64> = const { Cell::new(0) };
}

/// The address of the step's number, for what is being recorded; 0 outside of a recording.
pub(super) fn recorded_step() -> u64 {
    STEP.get()
}

/// A sequence of launches that can be replayed.
///
/// A replay reads and writes the memory that the recording did. So what is recorded takes its inputs from tensors that the caller
/// keeps and fills before each replay, and leaves its results in tensors that the caller made before ([`copy_all`]); every other
/// tensor it makes is gone when it returns. Numbers that the host works out are those of the recording, except the step of
/// [dropout's key](crate::DropoutKey), which each replay is given.
pub struct Graph {
    context: Arc<Context>,
    graph: Mutex<Recorded>,
    step: CudaSlice<u64>,
}

struct Recorded(CudaGraph);

// SAFETY: a graph may be used from any thread, by one at a time; it is behind a lock.
unsafe impl Send for Recorded {}

impl Graph {
    /// Runs `f` as ever, and keeps on the device what candle uploads for it: a recording cannot upload.
    ///
    /// # Errors
    /// Where the device cannot be opened.
    pub fn prepare<T>(device: &Device, f: impl FnOnce() -> T) -> crate::Result<T> {
        let context = Context::of(device)?;
        let _uploads = context.device.enable_cuda_graph_htod_cache();
        Ok(f())
    }

    /// Records what `f` puts into the device's stream, without running it.
    ///
    /// [Prepare](Self::prepare) it first: kernels and cuDNN's plans are loaded, and scratch memory is taken, at their first use, which
    /// cannot be recorded. Nor can what waits for the device, as reading a number back.
    ///
    /// # Errors
    /// Those of `f`, and the driver's for what cannot be recorded.
    pub fn record(device: &Device, f: impl FnOnce() -> crate::Result<()>) -> crate::Result<Self> {
        /// Sets the address back, also where `f` panics.
        struct Restore(u64);
        impl Drop for Restore {
            fn drop(&mut self) {
                STEP.set(self.0);
            }
        }
        let context = Context::of(device)?;
        let step = context.device.alloc_zeros::<u64>(1)?;
        let stream = Arc::clone(&context.stream);
        let restore = Restore(STEP.replace(step.device_ptr(&stream).0));
        // What candle uploaded for these launches is used again.
        let uploads = context.device.enable_cuda_graph_htod_cache();
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        driver(stream.begin_capture(mode))?;
        let done = f();
        let graph = driver(stream.end_capture(sys::CUgraphInstantiate_flags(0)));
        drop(uploads);
        drop(restore);
        done?;
        match graph? {
            Some(graph) => Ok(Self {
                context,
                graph: Mutex::new(Recorded(graph)),
                step,
            }),
            None => Err(candle_core::Error::Msg("a recording that cannot be replayed".to_owned()).into()),
        }
    }

    /// Puts the recorded launches into the stream, for a step.
    ///
    /// # Errors
    /// The driver's.
    pub fn replay(&self, step: u64) -> Result<()> {
        let graph = self.graph.lock().unwrap_or_else(PoisonError::into_inner);
        let to = self.step.device_ptr(&self.context.stream).0;
        let args = [Arg::U64(step), Arg::Pointer(to)];
        // SAFETY: the kernel writes one number, to where there is room for one.
        unsafe {
            self.context
                .launch(Source::Update, "set_step", Grid::one_each(1), &args)
        }?;
        driver(graph.0.launch())
    }
}

/// Copies each tensor into the other of its pair, in one launch for each few dozen; all are contiguous `f32` on one GPU, the pairs
/// of one size.
///
/// # Errors
/// Where a tensor is none of these.
pub fn copy_all(from_to: &[(&Tensor, &Tensor)]) -> crate::Result<()> {
    use crate::element::{require_contiguous, require_dtype, require_shape};
    const OP: &str = "copy_all";
    for (from, to) in from_to {
        for tensor in [from, to] {
            require_dtype(OP, tensor, candle_core::DType::F32)?;
            require_contiguous(OP, tensor)?;
        }
        require_shape(OP, to, from.dims())?;
    }
    Ok(super::update::copy(from_to)?)
}
