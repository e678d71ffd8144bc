//! Where the numbers are worked out.

use std::str::FromStr;

use anyhow::{Context, Result, bail};
use candle_core::Device;
use clap::ValueEnum;
use kestrel_kernels::simd::Isa;
use serde::{Deserialize, Serialize};

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
            Self::Auto => Device::cuda_if_available(0).context("opening the GPU; use --device cpu to go without it"),
            Self::Cuda(_) if !candle_core::utils::cuda_is_available() => bail!(
                "this build has no CUDA support; build it with `--features cuda` on a machine with the CUDA toolkit, \
                 or use --device cpu"
            ),
            Self::Cuda(n) => Device::new_cuda(n).with_context(|| format!("opening GPU {n}")),
        }
    }
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

/// The device in words, for the log.
pub(crate) fn describe(device: &Device) -> String {
    match device.location() {
        candle_core::DeviceLocation::Cpu => {
            format!("CPU, {} threads, {}", rayon::current_num_threads(), Isa::current())
        }
        candle_core::DeviceLocation::Cuda { gpu_id } => format!("CUDA device {gpu_id}"),
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
