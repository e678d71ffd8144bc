//! What is kept for each device: its kernels, scratch memory, and cuDNN's handle.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::cuda_backend::cudarc::driver::{CudaFunction, CudaSlice, CudaStream, DevicePtr, sys};
use candle_core::cuda_backend::{CudaDevice, DeviceId};
use candle_core::{Device, Result};

use super::launch::driver;

/// The PTX of the kernels, by the name of its source.
#[allow(unreachable_pub, reason = "written by the build script")]
mod ptx {
    include!(concat!(env!("OUT_DIR"), "/ptx.rs"));
}

/// Blocks of channels whose counters fit; a block has at least one channel.
const COUNTERS: usize = 1 << 16;

/// Opens a GPU for training: one stream for all threads, and memory that stays with the process.
///
/// candle's `Device::new_cuda` gives each thread a stream of its own and two events to each tensor; a training step then waits
/// for the host. Tensors of this device need neither.
///
/// # Errors
/// Where there is no such GPU, or the driver refuses.
pub fn device(ordinal: usize) -> Result<Device> {
    let device = Device::new_cuda_with_stream(ordinal)?;
    let cuda = device.as_cuda_device()?;
    // SAFETY: every use of a tensor of this device goes through its one stream, which keeps them in order.
    unsafe { cuda.disable_event_tracking() };
    keep_freed_memory(cuda)?;
    Ok(device)
}

/// Lets the driver's pool keep what is freed: otherwise it hands memory back at each synchronisation, and asks for it again.
fn keep_freed_memory(device: &CudaDevice) -> Result<()> {
    let stream = device.cuda_stream();
    let context = stream.context();
    driver(context.bind_to_thread())?;
    if !context.has_async_alloc() {
        return Ok(());
    }
    let mut pool = std::ptr::null_mut();
    // SAFETY: the device is open, and `pool` outlives the call.
    let found = unsafe { sys::cuDeviceGetDefaultMemPool(&mut pool, context.cu_device()) };
    driver(found.result())?;
    let mut threshold = u64::MAX;
    let attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
    // SAFETY: the attribute is a u64, which the driver copies.
    let set = unsafe { sys::cuMemPoolSetAttribute(pool, attribute, (&raw mut threshold).cast()) };
    driver(set.result())
}

/// Whether `f32` convolutions may round their factors to TF32 (10 bits of mantissa) and so run on tensor cores.
static TF32: AtomicBool = AtomicBool::new(false);

/// Lets cuDNN's `f32` convolutions round their factors to TF32, as `torch.backends.cudnn.allow_tf32`; off unless this is called.
/// For the whole process; convolutions that have run keep what they were planned with.
pub fn allow_tf32(allow: bool) {
    TF32.store(allow, Ordering::Relaxed);
}

/// Whether TF32 is allowed.
#[cfg(feature = "cudnn")]
pub(super) fn tf32() -> bool {
    TF32.load(Ordering::Relaxed)
}

/// A device as the ops of this module use it.
pub(crate) struct Context {
    pub(super) device: CudaDevice,
    pub(super) stream: Arc<CudaStream>,
    /// Streaming multiprocessors.
    pub(super) processors: usize,
    functions: Mutex<HashMap<String, CudaFunction>>,
    /// Zeros between launches.
    counters: CudaSlice<u32>,
    /// Shared with the graphs whose launches have its address.
    workspace: Mutex<Option<Arc<CudaSlice<u8>>>>,
    #[cfg(feature = "cudnn")]
    pub(super) cudnn: super::cudnn::Cudnn,
}

impl Context {
    /// That of a device, made at its first use.
    pub(crate) fn of(device: &Device) -> Result<Arc<Self>> {
        static CONTEXTS: Mutex<Vec<(DeviceId, Arc<Context>)>> = Mutex::new(Vec::new());
        let cuda = device.as_cuda_device()?;
        let mut contexts = CONTEXTS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, context)) = contexts.iter().find(|(id, _)| *id == cuda.id()) {
            return Ok(Arc::clone(context));
        }
        let context = Arc::new(Self::new(cuda)?);
        contexts.push((cuda.id(), Arc::clone(&context)));
        Ok(context)
    }

    fn new(device: &CudaDevice) -> Result<Self> {
        let stream = device.cuda_stream();
        let attribute = sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT;
        let processors = driver(stream.context().attribute(attribute))?;
        Ok(Self {
            #[cfg(feature = "cudnn")]
            cudnn: super::cudnn::Cudnn::new(&stream)?,
            device: device.clone(),
            processors: processors.max(1) as usize,
            functions: Mutex::default(),
            counters: device.alloc_zeros(COUNTERS)?,
            workspace: Mutex::default(),
            stream,
        })
    }

    /// A kernel by name; `source` is the file that has it.
    pub(super) fn function(&self, source: Source, name: &str) -> Result<CudaFunction> {
        let mut functions = self.functions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(function) = functions.get(name) {
            return Ok(function.clone());
        }
        let (module, ptx) = source.ptx();
        let function = self.device.get_or_load_custom_func(name, module, ptx)?;
        let function = function.into_cuda_function();
        functions.insert(name.to_owned(), function.clone());
        Ok(function)
    }

    /// Counters for `columns` columns of blocks, all 0; a kernel leaves them so.
    pub(super) fn counters(&self, columns: usize) -> Result<u64> {
        if columns > COUNTERS {
            candle_core::bail!("{columns} blocks of channels are more than a kernel takes, {COUNTERS}");
        }
        Ok(self.counters.device_ptr(&self.stream).0)
    }

    /// Scratch memory of at least `bytes`, held until the launch that uses it is in the stream: then it is the next caller's. It
    /// only grows, and not within a recording: what a recording allocates is the graph's, and no launch outside of it may use it.
    pub(super) fn workspace(&self, bytes: usize) -> Result<Workspace<'_>> {
        let mut slice = self.workspace.lock().unwrap_or_else(PoisonError::into_inner);
        if slice.as_ref().is_none_or(|slice| slice.len() < bytes) {
            if self.is_recording()? {
                candle_core::bail!("a recording takes {bytes} bytes of scratch memory, more than there were before it");
            }
            // The old one is freed in the stream's order, after what still uses it, or with the last graph that does.
            *slice = None;
            // SAFETY: it is written before it is read.
            let larger = unsafe { self.device.alloc::<u8>(bytes.max(1 << 20)) }?;
            *slice = Some(Arc::new(larger));
        }
        let address = slice.as_ref().map_or(0, |slice| slice.device_ptr(&self.stream).0);
        Ok(Workspace { address, _slice: slice })
    }

    /// The scratch memory that there is, for whoever must keep it from being freed.
    pub(super) fn kept_workspace(&self) -> Option<Arc<CudaSlice<u8>>> {
        self.workspace.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the stream takes launches down instead of running them.
    fn is_recording(&self) -> Result<bool> {
        let status = driver(self.stream.capture_status())?;
        Ok(status != sys::CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE)
    }
}

/// Scratch memory; nobody else has it, and it is not freed, as long as this lives.
pub(super) struct Workspace<'a> {
    pub(super) address: u64,
    _slice: MutexGuard<'a, Option<Arc<CudaSlice<u8>>>>,
}

/// A file of kernels.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Source {
    BatchNorm,
    CrossEntropy,
    Dropout,
    Pool,
    Resident,
    Rows,
    Update,
}

impl Source {
    fn ptx(self) -> (&'static str, &'static str) {
        match self {
            Self::BatchNorm => ("kestrel batch_norm", ptx::BATCH_NORM),
            Self::CrossEntropy => ("kestrel cross_entropy", ptx::CROSS_ENTROPY),
            Self::Dropout => ("kestrel dropout", ptx::DROPOUT),
            Self::Pool => ("kestrel pool", ptx::POOL),
            Self::Resident => ("kestrel resident", ptx::RESIDENT),
            Self::Rows => ("kestrel rows", ptx::ROWS),
            Self::Update => ("kestrel update", ptx::UPDATE),
        }
    }
}
