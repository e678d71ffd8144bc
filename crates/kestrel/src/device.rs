//! Where the numbers are worked out.

use std::str::FromStr;

use anyhow::{Context, Result, bail};
use candle_core::Device;
use clap::ValueEnum;
use kestrel_kernels::autocast::Precision;
use kestrel_kernels::gpus::{self, HAS_CUDA};
use kestrel_kernels::simd::Isa;
use serde::{Deserialize, Serialize};

use crate::config::PrecisionName;

/// `auto`, `cpu`, `cuda` or `cuda:N`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) enum DeviceChoice {
    /// The first GPU if there is one that this build can use, else the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// A GPU by number.
    Cuda(usize),
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            _ => s
                .strip_prefix("cuda:")
                .and_then(|n| n.parse().ok())
                .map(Self::Cuda)
                .ok_or_else(|| format!("no device is called {s:?}; use auto, cpu, cuda or cuda:N")),
        }
    }
}

impl TryFrom<String> for DeviceChoice {
    type Error = String;

    fn try_from(s: String) -> Result<Self, String> {
        s.parse()
    }
}

impl From<DeviceChoice> for String {
    fn from(choice: DeviceChoice) -> String {
        match choice {
            DeviceChoice::Auto => "auto".into(),
            DeviceChoice::Cpu => "cpu".into(),
            DeviceChoice::Cuda(n) => format!("cuda:{n}"),
        }
    }
}

impl DeviceChoice {
    /// Opens the device.
    pub(crate) fn open(self) -> Result<Device> {
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Auto => match gpus::count() {
                Ok(0) => Ok(Device::Cpu),
                Ok(_) => open_gpu(0).context("use --device cpu to go without it"),
                Err(reason) => {
                    // The build is for a machine with a GPU, so this may not be what was meant.
                    tracing::warn!("No GPU is used: NVIDIA's driver does not start ({reason})");
                    Ok(Device::Cpu)
                }
            },
            Self::Cuda(_) if !HAS_CUDA => bail!(
                "this build has no CUDA support; build it with `--features cuda` on a machine with the CUDA toolkit, \
                 or use --device cpu"
            ),
            Self::Cuda(n) => match gpus::count() {
                Ok(0) => bail!(
                    "there is no GPU that CUDA can use; see that `nvidia-smi` lists one and that CUDA_VISIBLE_DEVICES does \
                     not hide it, or use --device cpu"
                ),
                Ok(1) if n > 0 => bail!("there is no GPU {n}, only one: --device cuda:0"),
                Ok(count) if n >= count => bail!("there is no GPU {n}; there are cuda:0 to cuda:{}", count - 1),
                Ok(_) => open_gpu(n),
                Err(reason) => bail!(
                    "NVIDIA's driver does not start ({reason}); `kestrel doctor` says more, --device cpu goes without it"
                ),
            },
        }
    }
}

fn open_gpu(ordinal: usize) -> Result<Device> {
    gpus::open(ordinal).with_context(|| format!("opening GPU {ordinal}"))
}

/// The instruction set of the CPU's kernels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum CpuFeatures {
    /// The fastest one that the processor has.
    #[default]
    Auto,
    /// 16 lanes.
    Avx512,
    /// 8 lanes.
    Avx2,
    /// 4 lanes, on AArch64.
    Neon,
    /// Plain Rust, on any machine.
    Portable,
}

impl CpuFeatures {
    /// Makes it the choice of the whole process; called before any work.
    pub(crate) fn choose(self) -> Result<()> {
        let isa = match self {
            Self::Auto => return Ok(()),
            Self::Avx512 => Isa::Avx512,
            Self::Avx2 => Isa::Avx2,
            Self::Neon => Isa::Neon,
            Self::Portable => Isa::Portable,
        };
        Isa::force(isa).context("choosing the CPU's features; --cpu-features auto takes the fastest")
    }
}

/// Sets the size of the thread pool that all CPU work shares; 0 leaves one thread a core.
pub(crate) fn set_threads(threads: usize) -> Result<()> {
    if threads > 0 {
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build_global()
            .context("starting the thread pool")?;
    }
    Ok(())
}

/// Runs what computes for long on a thread of the pool, where that has others: it hands them its work without being put to sleep and
/// woken for each operation, and takes a share itself.
///
/// With one thread it stays on this one, or work that a third hands to the pool, as the norms of a checkpoint, would wait for
/// whoever waits for it. On a GPU nothing is gained.
pub(crate) fn in_pool<R: Send>(device: &Device, work: impl FnOnce() -> R + Send) -> R {
    if !device.is_cpu() || rayon::current_num_threads() == 1 {
        return work();
    }
    let span = tracing::Span::current();
    rayon::scope(|_| span.in_scope(work))
}

/// Chooses the precision for the whole process, before any work, and says once what another than `f32` means on the CPU.
pub(crate) fn set_precision(name: PrecisionName, device: &Device) -> Result<()> {
    match name {
        PrecisionName::Tf32 if !device.is_cuda() => {
            bail!("precision tf32 is of NVIDIA's GPUs; on the CPU choose f32, or bf16 to see what fewer digits do")
        }
        #[cfg(feature = "cuda")]
        PrecisionName::Tf32 => kestrel_kernels::cuda::allow_tf32(true),
        PrecisionName::Bf16 | PrecisionName::F16 if device.is_cpu() => {
            let precision = Precision::from(name);
            tracing::info!(
                "Precision: {precision}, on the CPU computed in f32 and rounded: right, but slower; meant for checking what a GPU \
                 will do"
            );
        }
        _ => {}
    }
    Ok(())
}

/// The device in words, for the log.
pub(crate) fn describe(device: &Device) -> String {
    match device.location() {
        candle_core::DeviceLocation::Cpu => {
            format!("CPU, {} threads, {}", rayon::current_num_threads(), Isa::current())
        }
        candle_core::DeviceLocation::Cuda { gpu_id } => match gpus::gpu(gpu_id) {
            Ok(gpu) => format!("GPU {gpu_id}, {}", gpu.name),
            Err(_) => format!("GPU {gpu_id}"),
        },
        candle_core::DeviceLocation::Metal { gpu_id } => format!("Metal device {gpu_id}"),
    }
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;
    use kestrel_kernels::simd::Isa;

    use super::{CpuFeatures, DeviceChoice};

    #[test]
    fn every_instruction_set_can_be_asked_for_by_its_name() {
        let asked: Vec<_> = CpuFeatures::value_variants()
            .iter()
            .filter_map(|choice| choice.to_possible_value())
            .map(|value| value.get_name().to_owned())
            .collect();
        let names = Isa::ALL.map(|isa| isa.name().to_owned());
        assert_eq!(asked[0], "auto");
        assert_eq!(asked[1..], names);
    }

    #[test]
    fn names_round_trip() {
        for name in ["auto", "cpu", "cuda:3"] {
            let choice: DeviceChoice = name.parse().unwrap();
            assert_eq!(String::from(choice), name);
        }
        assert_eq!("cuda".parse(), Ok(DeviceChoice::Cuda(0)));
        for bad in ["gpu", "cuda:", "cuda:x", ""] {
            assert!(bad.parse::<DeviceChoice>().is_err(), "{bad}");
        }
    }
}
