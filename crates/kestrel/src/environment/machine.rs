//! The program and the machine that it runs on, but for GPUs.

use std::fs;

use kestrel_kernels::gpus::{HAS_CUDA, HAS_CUDNN};
use kestrel_kernels::simd::Isa;
use serde::Serialize;

use super::commit;

/// What is known without asking a GPU.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    /// The program's version.
    pub(crate) kestrel: &'static str,
    pub(crate) commit: Option<String>,
    /// The cargo features of the build.
    pub(crate) features: Vec<&'static str>,
    pub(crate) os: &'static str,
    pub(crate) arch: &'static str,
    /// The processor's name, where the system tells it.
    pub(crate) cpu: Option<String>,
    pub(crate) cores: usize,
    /// Threads of the pool that all work on the CPU shares.
    pub(crate) threads: usize,
    /// The instruction set of the kernels.
    pub(crate) instructions: &'static str,
    /// All those that the processor has.
    pub(crate) available_instructions: Vec<&'static str>,
    /// Bytes of memory, where the system tells them.
    pub(crate) memory: Option<u64>,
    /// Bytes of it that can be had.
    pub(crate) available_memory: Option<u64>,
}

impl Machine {
    /// This one, as it is now.
    pub(crate) fn here() -> Self {
        let features = [("cuda", HAS_CUDA), ("cudnn", HAS_CUDNN)];
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        Self {
            kestrel: env!("CARGO_PKG_VERSION"),
            commit: commit(),
            features: features
                .into_iter()
                .filter(|(_, on)| *on)
                .map(|(name, _)| name)
                .collect(),
            os: std::env::consts::OS,
            arch: std::env::consts::ARCH,
            cpu: field(&cpuinfo, "model name").map(str::to_owned),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            threads: rayon::current_num_threads(),
            instructions: Isa::current().name(),
            available_instructions: Isa::ALL
                .into_iter()
                .filter(|isa| isa.is_available())
                .map(Isa::name)
                .collect(),
            memory: field(&meminfo, "MemTotal").and_then(bytes),
            available_memory: field(&meminfo, "MemAvailable").and_then(bytes),
        }
    }
}

/// The value of the first line `NAME : VALUE`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let fields = text.lines().filter_map(|line| line.split_once(':'));
    let mut values = fields
        .filter(|(key, _)| key.trim() == name)
        .map(|(_, value)| value.trim());
    values.next().filter(|value| !value.is_empty())
}

/// Linux writes `24617164 kB`, and means 1024 bytes.
fn bytes(value: &str) -> Option<u64> {
    let number: u64 = value.strip_suffix("kB")?.trim().parse().ok()?;
    number.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let text = "MemTotal:       24617164 kB\nMemFree: 1 kB\nmodel name\t: Some CPU: @ 2 GHz\nempty :\n";
        assert_eq!(field(text, "MemTotal").and_then(bytes), Some(24_617_164 * 1024));
        assert_eq!(field(text, "model name"), Some("Some CPU: @ 2 GHz"));
        for none in ["Mem", "empty", "model"] {
            assert_eq!(field(text, none), None);
        }
        assert_eq!(bytes("12 MB"), None);
    }

    #[test]
    fn the_kernels_run_on_an_instruction_set_of_the_processor() {
        let machine = Machine::here();
        assert!(
            machine.available_instructions.contains(&machine.instructions),
            "{machine:?}"
        );
        assert!(machine.threads > 0 && machine.cores > 0);
    }
}
