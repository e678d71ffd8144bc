//! NVIDIA's GPUs and software, as this build finds them, and what is missing.

use std::fs;

use anyhow::Result;
use candle_core::{Device, DeviceLocation};
use kestrel_kernels::gpus::{self, HAS_CUDA, HAS_CUDNN, Versions};
use serde::Serialize;

/// All that there is of CUDA here.
#[derive(Debug, Serialize)]
pub(crate) struct Cuda {
    /// Whether the program was built for it, and for cuDNN.
    pub(crate) built: bool,
    pub(crate) built_cudnn: bool,
    /// The version of the driver that the system has loaded, whatever the build.
    pub(crate) driver: Option<String>,
    /// The newest CUDA that the driver knows; cuDNN's version.
    pub(crate) cuda: Option<String>,
    pub(crate) cudnn: Option<String>,
    /// The GPUs that this program can use.
    pub(crate) gpus: Vec<Gpu>,
    /// What is missing, and what to do about it: a sentence each.
    pub(crate) advice: Vec<String>,
}

/// A GPU.
#[derive(Debug, Serialize)]
pub(crate) struct Gpu {
    pub(crate) ordinal: usize,
    pub(crate) name: String,
    pub(crate) compute_capability: String,
    /// Bytes of memory, and those that nobody uses.
    pub(crate) memory: u64,
    pub(crate) free_memory: u64,
}

impl Gpu {
    /// The GPU behind a device; none of the CPU.
    pub(crate) fn of(device: &Device) -> Result<Option<Self>> {
        match device.location() {
            DeviceLocation::Cuda { gpu_id } => Ok(Some(gpus::gpu(gpu_id)?.into())),
            _ => Ok(None),
        }
    }
}

impl From<gpus::Gpu> for Gpu {
    fn from(gpu: gpus::Gpu) -> Self {
        Self {
            ordinal: gpu.ordinal,
            name: gpu.name,
            compute_capability: version(gpu.compute_capability),
            memory: gpu.memory,
            free_memory: gpu.free,
        }
    }
}

/// What the driver answers.
struct Answer {
    count: Result<usize, String>,
    gpus: Vec<Result<Gpu, String>>,
}

impl Cuda {
    /// What this process finds.
    pub(crate) fn here() -> Self {
        let count = gpus::count().map_err(|e| e.to_string());
        let ordinals = 0..count.as_ref().copied().unwrap_or(0);
        let asked = ordinals.map(|ordinal| gpus::gpu(ordinal).map(Gpu::from).map_err(|e| e.to_string()));
        let answer = Answer {
            gpus: asked.collect(),
            count,
        };
        Self::of((HAS_CUDA, HAS_CUDNN), loaded_driver(), gpus::versions(), answer)
    }

    fn of((built, built_cudnn): (bool, bool), driver: Option<String>, versions: Versions, answer: Answer) -> Self {
        let mut advice = Vec::new();
        match (&answer.count, built, &driver) {
            (_, false, None) => advice.push(
                "No NVIDIA driver is loaded and this program was built without CUDA, so all work is done on the CPU; to \
                 use a GPU, install NVIDIA's driver and build with `--features cuda,cudnn`."
                    .to_owned(),
            ),
            (_, false, Some(driver)) => advice.push(format!(
                "NVIDIA's driver {driver} is loaded, but this program was built without CUDA; build it with `--features \
                 cuda,cudnn`, on a machine with the CUDA toolkit."
            )),
            (Err(reason), true, _) => advice.push(format!(
                "NVIDIA's driver does not start ({reason}); install it, and see that `nvidia-smi` lists a GPU."
            )),
            (Ok(0), true, _) => advice.push(
                "The driver shows no GPU; see that `nvidia-smi` lists one, and that CUDA_VISIBLE_DEVICES does not hide it."
                    .to_owned(),
            ),
            (Ok(_), true, _) => {}
        }
        let mut gpus = Vec::new();
        for (ordinal, gpu) in answer.gpus.into_iter().enumerate() {
            match gpu {
                Ok(gpu) => gpus.push(gpu),
                Err(reason) => advice.push(format!(
                    "GPU {ordinal} does not answer ({reason}); see with `nvidia-smi` whether another process holds it."
                )),
            }
        }
        if built && !built_cudnn {
            advice.push(
                "This program was built without cuDNN, which convolutions on a GPU are slow without; build it with \
                 `--features cuda,cudnn`."
                    .to_owned(),
            );
        }
        Self {
            built,
            built_cudnn,
            driver,
            cuda: versions.cuda.map(version),
            cudnn: versions.cudnn.map(version),
            gpus,
            advice,
        }
    }
}

fn version((major, minor): (u32, u32)) -> String {
    format!("{major}.{minor}")
}

/// The version of NVIDIA's kernel module.
fn loaded_driver() -> Option<String> {
    module_version(&fs::read_to_string("/proc/driver/nvidia/version").ok()?)
}

/// `NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar …`: the first word of numbers and points.
fn module_version(text: &str) -> Option<String> {
    let is_version = |word: &&str| word.contains('.') && word.chars().all(|c| c.is_ascii_digit() || c == '.');
    text.lines()
        .next()?
        .split_whitespace()
        .find(is_version)
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(count: Result<usize, String>) -> Answer {
        Answer {
            count,
            gpus: Vec::new(),
        }
    }

    fn gpu() -> Gpu {
        Gpu {
            ordinal: 0,
            name: "H100".to_owned(),
            compute_capability: "9.0".to_owned(),
            memory: 2,
            free_memory: 1,
        }
    }

    #[test]
    fn each_lack_has_its_advice() {
        let driver = || Some("550.54".to_owned());
        let refused = || answer(Err("no driver".to_owned()));
        let broken = Answer {
            count: Ok(2),
            gpus: vec![Ok(gpu()), Err("busy".to_owned())],
        };
        for (built, driver, answer, words) in [
            ((false, false), None, answer(Ok(0)), &["on the CPU"][..]),
            (
                (false, false),
                driver(),
                answer(Ok(0)),
                &["550.54 is loaded, but this program was built without"],
            ),
            ((true, true), None, refused(), &["does not start (no driver)"]),
            ((true, true), driver(), answer(Ok(0)), &["CUDA_VISIBLE_DEVICES"]),
            ((true, false), driver(), answer(Ok(1)), &["without cuDNN"]),
            ((true, true), driver(), answer(Ok(1)), &[]),
            ((true, true), driver(), broken, &["GPU 1 does not answer (busy)"]),
        ] {
            let found = Cuda::of(built, driver, Versions::default(), answer).advice;
            assert_eq!(found.len(), words.len(), "{found:?}");
            for (sentence, words) in found.iter().zip(words) {
                assert!(sentence.contains(words) && sentence.ends_with('.'), "{sentence}");
            }
        }
    }

    #[test]
    fn the_module_says_its_version() {
        for (text, want) in [
            (
                "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 2024",
                Some("550.54.15"),
            ),
            (
                "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.10  Release",
                Some("570.86.10"),
            ),
            ("", None),
            ("no numbers here", None),
        ] {
            assert_eq!(module_version(text).as_deref(), want);
        }
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn a_build_without_cuda_has_no_gpu() {
        let cuda = Cuda::here();
        assert!(
            !cuda.built && cuda.gpus.is_empty() && cuda.advice.len() == 1,
            "{cuda:?}"
        );
        assert!(Gpu::of(&Device::Cpu).unwrap().is_none());
    }
}
