//! candle's tensors as addresses on the device, and new ones.

use std::sync::{Mutex, PoisonError};

use candle_core::cuda_backend::cudarc::driver::DevicePtr;
use candle_core::cuda_backend::{CudaStorage, CudaStorageSlice};
use candle_core::op::BackpropOp;
use candle_core::{CpuStorage, DType, InplaceOp1, Layout, Result, Shape, Storage, Tensor};

use super::Context;

/// The address of a contiguous tensor's first element.
pub(crate) fn pointer(tensor: &Tensor) -> Result<u64> {
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cuda(storage) => storage_pointer(storage, layout),
        _ => candle_core::bail!("a tensor of a section on a GPU is on another device"),
    }
}

/// The address of the first element of a contiguous layout.
pub(crate) fn storage_pointer(storage: &CudaStorage, layout: &Layout) -> Result<u64> {
    let Some((start, _)) = layout.contiguous_offsets() else {
        return Err(candle_core::Error::RequiresContiguous { op: "cuda" }.bt());
    };
    let stream = storage.device.cuda_stream();
    let (address, size) = match &storage.slice {
        CudaStorageSlice::U8(slice) => (slice.device_ptr(&stream).0, 1),
        CudaStorageSlice::U32(slice) => (slice.device_ptr(&stream).0, 4),
        CudaStorageSlice::BF16(slice) => (slice.device_ptr(&stream).0, 2),
        CudaStorageSlice::F16(slice) => (slice.device_ptr(&stream).0, 2),
        CudaStorageSlice::F32(slice) => (slice.device_ptr(&stream).0, 4),
        CudaStorageSlice::F64(slice) => (slice.device_ptr(&stream).0, 8),
        _ => candle_core::bail!("a kernel takes no tensor of this element type"),
    };
    Ok(address + (start * size) as u64)
}

/// A tensor whose elements are not yet written.
///
/// # Safety
/// Every element is written before it is read.
pub(crate) unsafe fn allocate(context: &Context, dtype: DType, shape: impl Into<Shape>) -> Result<Tensor> {
    let shape = shape.into();
    // SAFETY: the caller's promise.
    let storage = unsafe { storage(context, dtype, shape.elem_count()) }?;
    Ok(Tensor::from_storage(
        Storage::Cuda(storage),
        shape,
        BackpropOp::none(),
        false,
    ))
}

/// A storage whose elements are not yet written.
///
/// # Safety
/// Every element is written before it is read.
pub(super) unsafe fn storage(context: &Context, dtype: DType, count: usize) -> Result<CudaStorage> {
    let device = &context.device;
    // The driver allocates no nothing.
    let count = count.max(1);
    macro_rules! slice {
        ($variant:ident, $T:ty) => {
            // SAFETY: the caller's promise.
            CudaStorageSlice::$variant(unsafe { device.alloc::<$T>(count) }?)
        };
    }
    let slice = match dtype {
        DType::U8 => slice!(U8, u8),
        DType::U32 => slice!(U32, u32),
        DType::BF16 => slice!(BF16, half::bf16),
        DType::F16 => slice!(F16, half::f16),
        DType::F32 => slice!(F32, f32),
        DType::F64 => slice!(F64, f64),
        got => candle_core::bail!("a kernel makes no tensor of {got:?}"),
    };
    Ok(CudaStorage {
        slice,
        device: device.clone(),
    })
}

/// The storage of a tensor that nobody reads again, without a copy.
pub(crate) fn take(context: &Context, tensor: &Tensor) -> Result<CudaStorage> {
    struct Take<'a>(&'a Context, Mutex<Option<CudaStorage>>);
    impl InplaceOp1 for Take<'_> {
        fn name(&self) -> &'static str {
            "section"
        }

        fn cpu_fwd(&self, _storage: &mut CpuStorage, _layout: &Layout) -> Result<()> {
            candle_core::bail!("a tensor of a section on a GPU is on the CPU")
        }

        fn cuda_fwd(&self, whole: &mut CudaStorage, _layout: &Layout) -> Result<()> {
            // SAFETY: nobody reads the tensor again.
            let nothing = unsafe { storage(self.0, DType::U8, 1) }?;
            let taken = std::mem::replace(whole, nothing);
            *self.1.lock().unwrap_or_else(PoisonError::into_inner) = Some(taken);
            Ok(())
        }
    }
    let copied;
    let tensor = if tensor.layout().start_offset() == 0 && tensor.is_contiguous() {
        tensor
    } else {
        copied = tensor.copy()?;
        &copied
    };
    let take = Take(context, Mutex::default());
    tensor.inplace_op1(&take)?;
    match take.1.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(storage) => Ok(storage),
        None => candle_core::bail!("a section's result has no storage"),
    }
}
