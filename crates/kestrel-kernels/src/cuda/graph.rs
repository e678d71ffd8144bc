//! Launches recorded once and replayed: a CUDA graph, for nets whose steps the host's launches would otherwise take longest of.

use std::cell::Cell;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::cuda_backend::cudarc::driver::{CudaGraph, CudaSlice, CudaStream, DevicePtr, sys};
use candle_core::{DType, Device, Result, Tensor};

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
    graph: Mutex<Recorded>,
    step: CudaSlice<u64>,
    /// The launches have its address, so it lives as long as they do, also where the context has come to a larger one.
    _workspace: Option<Arc<CudaSlice<u8>>>,
    context: Arc<Context>,
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
    /// Those of `f`, and the driver's for what cannot be recorded; launches run again then, as after a recording.
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
        load_kernels(&context, &step)?;
        let restore = Restore(STEP.replace(step.device_ptr(&context.stream).0));
        // What candle uploaded for these launches is used again.
        let uploads = context.device.enable_cuda_graph_htod_cache();
        let capture = Capture::begin(&context.stream)?;
        // From here on it is not exchanged.
        let workspace = context.kept_workspace();
        let done = f();
        let graph = capture.end();
        drop(uploads);
        drop(restore);
        done?;
        match graph? {
            Some(graph) => Ok(Self {
                graph: Mutex::new(Recorded(graph)),
                step,
                _workspace: workspace,
                context,
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
        set_step(&self.context, &self.step, step)?;
        driver(graph.0.launch())
    }
}

/// Puts a step's number to where recorded launches find it.
fn set_step(context: &Context, to: &CudaSlice<u64>, step: u64) -> Result<()> {
    let args = [Arg::U64(step), Arg::Pointer(to.device_ptr(&context.stream).0)];
    // SAFETY: the kernel writes one number, to where there is room for one.
    unsafe { context.launch(Source::Update, "set_step", Grid::one_each(1), &args) }
}

/// Launches what a recording and its replays launch besides what was prepared: a kernel is loaded at its first launch, and the
/// driver loads none while it records.
fn load_kernels(context: &Context, step: &CudaSlice<u64>) -> crate::Result<()> {
    set_step(context, step, 0)?;
    let device = Device::Cuda(context.device.clone());
    let [from, to] = [(); 2].map(|()| Tensor::zeros(1, DType::F32, &device));
    copy_all(&[(&from?, &to?)])
}

/// A stream that takes launches down instead of running them, until this is ended or dropped.
struct Capture<'a> {
    stream: &'a Arc<CudaStream>,
    ended: bool,
}

impl<'a> Capture<'a> {
    fn begin(stream: &'a Arc<CudaStream>) -> Result<Self> {
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        driver(stream.begin_capture(mode))?;
        Ok(Self { stream, ended: false })
    }

    /// What was taken down.
    fn end(mut self) -> Result<Option<CudaGraph>> {
        let ended = self.ask_driver();
        self.ended = ended.is_ok();
        ended
    }

    fn ask_driver(&self) -> Result<Option<CudaGraph>> {
        self.forget_error();
        driver(self.stream.end_capture(sys::CUgraphInstantiate_flags(0)))
    }

    /// cudarc keeps an error that it could not return, as of freeing memory, and returns it from its next call, which then does
    /// not reach the driver. After what cannot be recorded there is one.
    fn forget_error(&self) {
        let _ = self.stream.context().check_err();
    }
}

impl Drop for Capture<'_> {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        // Nothing was ended where a panic came between, or another thread's error; all else leaves the stream as it was before.
        self.forget_error();
        let ended = sys::CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE;
        if self.stream.capture_status().ok() != Some(ended) {
            // There is nothing to be done about a second failure.
            let _ = self.ask_driver();
        }
        self.forget_error();
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
