//! `kestrel export`.

use std::io::Write;

use anyhow::Result;
use kestrel_models::weights;
use kestrel_train::checkpoint::{Weights, write_atomic};

use crate::cli::ExportArgs;

/// Runs the command.
pub(crate) fn run(args: &ExportArgs) -> Result<()> {
    let Weights { info, tensors } = Weights::load(&args.weights)?;
    write_atomic(&args.out, &weights::export(&tensors)?)?;
    writeln!(
        std::io::stdout().lock(),
        "{}: {} with {} classes",
        args.out.display(),
        info.model.name(),
        info.classes.len()
    )?;
    Ok(())
}
