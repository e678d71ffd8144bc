//! `kestrel export`.

use std::io::Write;

use anyhow::{Context, Result, anyhow, bail};
use candle_core::{DType, Device};
use kestrel_models::weights::{self, ModelInfo};
use kestrel_models::{StateDict, onnx};
use kestrel_train::checkpoint::{Weights, write_atomic};

use crate::cli::{ExportArgs, ExportFormat};
use crate::exit;

/// Runs the command: writes the file, and prints what it is and how to load it.
pub(crate) fn run(args: &ExportArgs) -> Result<()> {
    let format = format(args).map_err(exit::usage)?;
    let Weights { info, tensors } = Weights::load(&args.weights)?;
    if args
        .out
        .canonicalize()
        .is_ok_and(|out| args.weights.canonicalize().is_ok_and(|weights| weights == out))
    {
        return Err(exit::usage(anyhow!(
            "--out is the file that --weights names, and what is written holds less: no classes, no preprocessing; choose \
             another name"
        )));
    }
    let (bytes, snippet) = match format {
        ExportFormat::Safetensors => (
            weights::export(&tensors)?,
            weights::pytorch_snippet(&info.model, &args.out),
        ),
        ExportFormat::Onnx => {
            let bytes = to_onnx(&info, &tensors).with_context(|| format!("exporting {}", args.weights.display()))?;
            (bytes, onnx::runtime_snippet(&args.out))
        }
    };
    write_atomic(&args.out, &bytes)?;
    writeln!(
        std::io::stdout().lock(),
        "{}: {} with {} classes. In Python:\n\n{snippet}",
        args.out.display(),
        info.model.name(),
        info.classes.len()
    )?;
    Ok(())
}

/// What is written: as asked, else by the end of the file's name.
fn format(args: &ExportArgs) -> Result<ExportFormat> {
    let ends_in = |ending: &str| {
        args.out
            .extension()
            .is_some_and(|of_out| of_out.eq_ignore_ascii_case(ending))
    };
    match args.format {
        Some(format) => Ok(format),
        None if ends_in("onnx") => Ok(ExportFormat::Onnx),
        None if ends_in("safetensors") => Ok(ExportFormat::Safetensors),
        None => bail!(
            "--out is {}, and what is written goes by the name's end: .safetensors for PyTorch, which loads it with \
             safetensors.torch.load_file, or .onnx; choose such a name, such as {}, or say with --format what to write",
            args.out.display(),
            args.out.with_extension("safetensors").display()
        ),
    }
}

fn to_onnx(info: &ModelInfo, tensors: &StateDict) -> Result<Vec<u8>> {
    let model = info.model.build(0, DType::F32, &Device::Cpu)?;
    model.params().load_state_dict(tensors)?;
    Ok(onnx::export(
        model.as_ref(),
        info.model.image_size(),
        &onnx::metadata(info)?,
    )?)
}
