//! Which GPUs there are, and which versions of NVIDIA's software, to tell a person. Nothing here computes.

use crate::{Error, Result};

/// A GPU of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpu {
    /// The number that it is opened by.
    pub ordinal: usize,
    /// NVIDIA's name for it.
    pub name: String,
    /// Its compute capability: major and minor.
    pub compute_capability: (u32, u32),
    /// All its memory, in bytes.
    pub memory: u64,
    /// Its memory that nobody uses, in bytes.
    pub free: u64,
}

/// Versions of what a build with CUDA runs on, major and minor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Versions {
    /// The newest CUDA that the driver knows.
    pub cuda: Option<(u32, u32)>,
    /// cuDNN; none in a build without it.
    pub cudnn: Option<(u32, u32)>,
}

/// Whether this build has the feature `cuda`.
pub const HAS_CUDA: bool = cfg!(feature = "cuda");

/// Whether this build has the feature `cudnn`.
pub const HAS_CUDNN: bool = cfg!(feature = "cudnn");

/// Number of GPUs that this process sees: none without the feature `cuda`.
///
/// # Errors
/// [`Error::Candle`] where NVIDIA's driver does not start, as on a machine without a GPU.
pub fn count() -> Result<usize> {
    #[cfg(feature = "cuda")]
    return Ok(driver::count()?);
    #[cfg(not(feature = "cuda"))]
    Ok(0)
}

/// The GPU of this number. Its memory is only known to a process that uses it, so this one begins to, which takes some of it.
///
/// # Errors
/// [`Error::InvalidArgument`] where there are not as many, [`Error::Candle`] where the driver refuses.
pub fn gpu(ordinal: usize) -> Result<Gpu> {
    let count = count()?;
    if ordinal >= count {
        return Err(Error::InvalidArgument {
            op: "gpus",
            argument: "the GPU's number",
            expected: "below the number of GPUs",
            got: ordinal as f64,
        });
    }
    #[cfg(feature = "cuda")]
    return Ok(driver::gpu(ordinal)?);
    #[cfg(not(feature = "cuda"))]
    // The count is 0.
    Err(candle_core::Error::NotCompiledWithCudaSupport.into())
}

/// Opens a GPU for training, as `cuda::device`.
///
/// # Errors
/// [`Error::Candle`] where there is no such GPU or the driver refuses, and in a build without the feature `cuda`.
pub fn open(ordinal: usize) -> Result<candle_core::Device> {
    #[cfg(feature = "cuda")]
    return Ok(crate::cuda::device(ordinal)?);
    #[cfg(not(feature = "cuda"))]
    {
        let _ = ordinal;
        Err(candle_core::Error::NotCompiledWithCudaSupport.into())
    }
}

/// The versions of what is installed.
pub fn versions() -> Versions {
    #[cfg(feature = "cuda")]
    return Versions {
        cuda: driver::cuda_version(),
        cudnn: driver::cudnn_version(),
    };
    #[cfg(not(feature = "cuda"))]
    Versions::default()
}

/// The questions to the driver.
#[cfg(feature = "cuda")]
mod driver {
    use candle_core::cuda_backend::cudarc::driver::{CudaContext, DriverError, sys};
    use candle_core::{Error, Result};

    use super::Gpu;

    fn asked<T>(result: std::result::Result<T, DriverError>) -> Result<T> {
        result.map_err(|error| Error::Cuda(Box::new(error)))
    }

    pub(super) fn count() -> Result<usize> {
        Ok(usize::try_from(asked(CudaContext::device_count())?).unwrap_or(0))
    }

    pub(super) fn gpu(ordinal: usize) -> Result<Gpu> {
        let context = asked(CudaContext::new(ordinal))?;
        let (major, minor) = asked(context.compute_capability())?;
        let (free, memory) = asked(context.mem_get_info())?;
        Ok(Gpu {
            ordinal,
            name: asked(context.name())?,
            compute_capability: (major.unsigned_abs(), minor.unsigned_abs()),
            memory: memory as u64,
            free: free as u64,
        })
    }

    pub(super) fn cuda_version() -> Option<(u32, u32)> {
        let mut version = 0;
        // SAFETY: the driver writes one integer, to one that is there.
        let status = unsafe { sys::cuDriverGetVersion(&raw mut version) };
        let version = u32::try_from(version).ok().filter(|&version| version > 0);
        status
            .result()
            .ok()
            .and(version)
            .map(|version| (version / 1000, version % 1000 / 10))
    }

    #[cfg(feature = "cudnn")]
    pub(super) fn cudnn_version() -> Option<(u32, u32)> {
        let version = candle_core::cuda_backend::cudarc::cudnn::result::get_version() as u32;
        // From cuDNN 9 on, 9.10.2 is 91002; before, 8.9.7 was 8907.
        let unit = if version >= 90_000 { 10_000 } else { 1_000 };
        (version >= 1_000).then_some((version / unit, version % unit / 100))
    }

    #[cfg(not(feature = "cudnn"))]
    pub(super) fn cudnn_version() -> Option<(u32, u32)> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With or without a GPU, a number past the last is an error, not a panic.
    #[test]
    fn a_gpu_that_is_not_there_is_an_error() {
        assert!(gpu(usize::MAX).is_err());
        if !HAS_CUDA {
            assert_eq!((count().unwrap(), versions()), (0, Versions::default()));
        }
    }

    #[cfg(feature = "cuda")]
    #[test]
    fn cuda_devices_say_what_they_are() {
        let required = std::env::var_os("KESTREL_REQUIRE_CUDA").is_some();
        if !required && !count().is_ok_and(|count| count > 0) {
            eprintln!("skipped: no CUDA device; set KESTREL_REQUIRE_CUDA to make this a failure");
            return;
        }
        let found = gpu(0).unwrap();
        assert!(
            found.compute_capability.0 >= 5 && found.free <= found.memory,
            "{found:?}"
        );
        assert!(versions().cuda.is_some_and(|version| version >= (11, 0)));
        assert_eq!(versions().cudnn.is_some(), HAS_CUDNN);
    }
}
