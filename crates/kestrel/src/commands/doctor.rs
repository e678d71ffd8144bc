//! `kestrel doctor`: what the program finds to work with, what is missing, and what to do next.

use std::io::{self, Write};

use anyhow::Result;
use serde_json::Value;

use crate::cli::{DoctorArgs, ReportFormat};
use crate::environment::{Cuda, Gpu, Machine};

/// Runs the command. That there is no GPU is no failure.
pub(crate) fn run(args: &DoctorArgs) -> Result<()> {
    let (machine, cuda) = (Machine::here(), Cuda::here());
    let text = match args.format {
        ReportFormat::Text => text(&machine, &cuda),
        ReportFormat::Json => {
            let mut all = serde_json::to_value(&machine)?;
            if let Value::Object(fields) = &mut all {
                fields.insert("cuda".to_owned(), serde_json::to_value(&cuda)?);
            }
            format!("{all:#}\n")
        }
    };
    Ok(io::stdout().lock().write_all(text.as_bytes())?)
}

/// For people: a line a thing, then a sentence for each that is missing.
fn text(machine: &Machine, cuda: &Cuda) -> String {
    let features = if machine.features.is_empty() {
        "without CUDA".to_owned()
    } else {
        format!("with {}", machine.features.join(" and "))
    };
    let commit = machine.commit.as_ref().map(|commit| format!(", commit {commit}"));
    let mut lines = vec![
        (
            "Kestrel",
            format!("{}{}, built {features}", machine.kestrel, commit.unwrap_or_default()),
        ),
        (
            "CPU",
            format!(
                "{}, {} cores, {} threads",
                machine.cpu.as_deref().unwrap_or(machine.arch),
                machine.cores,
                machine.threads
            ),
        ),
        (
            "Kernels",
            format!(
                "{} (of {})",
                machine.instructions,
                machine.available_instructions.join(", ")
            ),
        ),
    ];
    if let (Some(all), Some(available)) = (machine.memory, machine.available_memory) {
        lines.push(("Memory", format!("{}, {} available", gib(all), gib(available))));
    }
    let versions = [
        ("driver", &cuda.driver),
        ("CUDA up to", &cuda.cuda),
        ("cuDNN", &cuda.cudnn),
    ];
    let versions = versions
        .into_iter()
        .filter_map(|(name, version)| Some(format!("{name} {}", version.as_ref()?)));
    let versions: Vec<String> = versions.collect();
    if !versions.is_empty() {
        lines.push(("NVIDIA", versions.join(", ")));
    }
    for gpu in &cuda.gpus {
        lines.push(("GPU", of_gpu(gpu)));
    }
    let mut text: String = lines
        .iter()
        .map(|(name, value)| format!("{name:<9}{value}\n"))
        .collect();
    for sentence in &cuda.advice {
        text.push_str(&format!("\n{sentence}\n"));
    }
    text
}

fn of_gpu(gpu: &Gpu) -> String {
    format!(
        "cuda:{}, {}, compute capability {}, {}, {} free",
        gpu.ordinal,
        gpu.name,
        gpu.compute_capability,
        gib(gpu.memory),
        gib(gpu.free_memory)
    )
}

fn gib(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_with_a_gpu_in_words() {
        let machine = Machine {
            kestrel: "1.2.3",
            commit: Some("abc".to_owned()),
            features: vec!["cuda", "cudnn"],
            cpu: Some("A processor".to_owned()),
            cores: 16,
            threads: 8,
            instructions: "avx2",
            available_instructions: vec!["avx2", "portable"],
            memory: Some(24 << 30),
            available_memory: Some(3 << 29),
            ..Machine::here()
        };
        let cuda = Cuda {
            built: true,
            built_cudnn: true,
            driver: Some("570.86.10".to_owned()),
            cuda: Some("13.0".to_owned()),
            cudnn: Some("9.10".to_owned()),
            gpus: vec![Gpu {
                ordinal: 1,
                name: "NVIDIA H100".to_owned(),
                compute_capability: "9.0".to_owned(),
                memory: 80 << 30,
                free_memory: 79 << 30,
            }],
            advice: vec!["Do this.".to_owned()],
        };
        let want = "\
Kestrel  1.2.3, commit abc, built with cuda and cudnn
CPU      A processor, 16 cores, 8 threads
Kernels  avx2 (of avx2, portable)
Memory   24.0 GiB, 1.5 GiB available
NVIDIA   driver 570.86.10, CUDA up to 13.0, cuDNN 9.10
GPU      cuda:1, NVIDIA H100, compute capability 9.0, 80.0 GiB, 79.0 GiB free

Do this.
";
        assert_eq!(text(&machine, &cuda), want);
    }
}
