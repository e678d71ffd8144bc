//! A gate before an update: whether it is made is known on the device alone.

use candle_core::{DType, Tensor};

use crate::element;
use crate::{Error, Result};

const OP: &str = "gated";

/// Whether a gate on the host is shut.
///
/// # Errors
/// Where a device fails.
pub fn is_shut(gate: &Tensor) -> Result<bool> {
    Ok(gate.to_scalar::<f32>()? == 0.0)
}

/// Runs `update`, whose result stands where `gate` is 1; where it is 0, `moved` are left exactly as they were.
///
/// `moved` are all tensors that `update` sets. On the CPU a shut gate is read, and nothing is run. On any other device nothing is
/// read or waited for: `update` is run, and each element is then the new one or the old one, so that no NaN comes through.
///
/// # Shapes
/// `gate` `[]` of `f32`; `moved` contiguous.
///
/// # Errors
/// [`Error::ShapeMismatch`], [`Error::DTypeMismatch`], and those of `update`.
pub fn gated<E: From<Error>>(
    gate: &Tensor,
    moved: &[&Tensor],
    update: impl FnOnce() -> std::result::Result<(), E>,
) -> std::result::Result<(), E> {
    check(gate)?;
    if gate.device().is_cpu() {
        return if is_shut(gate)? { Ok(()) } else { update() };
    }
    by_choice(gate, moved, update)
}

fn check(gate: &Tensor) -> Result<()> {
    element::require_shape(OP, gate, &[])?;
    if gate.dtype() == DType::F32 {
        return Ok(());
    }
    Err(Error::DTypeMismatch {
        op: OP,
        expected: "f32".to_owned(),
        got: gate.dtype(),
    })
}

fn by_choice<E: From<Error>>(
    gate: &Tensor,
    moved: &[&Tensor],
    update: impl FnOnce() -> std::result::Result<(), E>,
) -> std::result::Result<(), E> {
    let copies: candle_core::Result<Vec<Tensor>> = moved.iter().map(|tensor| tensor.detach().copy()).collect();
    let copies = copies.map_err(Error::from)?;
    update()?;
    let choose = |tensor: &Tensor, before: &Tensor| -> candle_core::Result<()> {
        let now = tensor.detach();
        let open = gate.ne(0f32)?.broadcast_as(now.shape())?;
        // A product would let NaN through.
        let chosen = open.where_cond(&now, before)?;
        now.flatten_all()?.slice_set(&chosen.flatten_all()?, 0, 0)
    };
    for (tensor, before) in moved.iter().zip(&copies) {
        choose(tensor, before).map_err(Error::from)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;
    use crate::{AdamConfig, adam_step};

    /// Both ways: an open gate is the update, and a shut one lets nothing through, NaN included.
    #[test]
    fn a_shut_gate_leaves_everything_as_it_was() -> Result<()> {
        let gate = |open: f32| Tensor::new(open, &Device::Cpu);
        let state = || -> candle_core::Result<_> {
            let param = Var::new(&[[1f32, -2.0], [3.0, -0.0]], &Device::Cpu)?;
            let (m, v) = (param.zeros_like()?, param.ones_like()?.contiguous()?);
            Ok((param, m, v))
        };
        let bits = |tensors: [&Tensor; 3]| -> candle_core::Result<Vec<u32>> {
            let mut bits = Vec::new();
            for tensor in tensors {
                bits.extend(tensor.flatten_all()?.to_vec1::<f32>()?.into_iter().map(f32::to_bits));
            }
            Ok(bits)
        };
        for value in [0.5f32, f32::NAN, f32::INFINITY] {
            let grad = Tensor::full(value, (2, 2), &Device::Cpu)?;
            let run = |open: Option<f32>, by_choice_alone: bool| -> Result<Vec<u32>> {
                let (param, m, v) = state()?;
                let update = || adam_step(&param, &grad, &m, &v, 1, &AdamConfig::default());
                let moved = [param.as_tensor(), &m, &v];
                match open {
                    None => update()?,
                    Some(open) if by_choice_alone => by_choice(&gate(open)?, &moved, update)?,
                    Some(open) => gated(&gate(open)?, &moved, update)?,
                }
                Ok(bits(moved)?)
            };
            let (param, m, v) = state()?;
            let before = bits([param.as_tensor(), &m, &v])?;
            for by_choice_alone in [false, true] {
                assert_eq!(run(Some(1.0), by_choice_alone)?, run(None, false)?, "{value}");
                assert_eq!(run(Some(0.0), by_choice_alone)?, before, "{value}");
            }
            assert_ne!(run(None, false)?, before);
        }
        Ok(())
    }

    #[test]
    fn a_gate_is_a_scalar_of_f32() -> Result<()> {
        for gate in [Tensor::new(&[1f32], &Device::Cpu)?, Tensor::new(1f64, &Device::Cpu)?] {
            assert!(gated::<Error>(&gate, &[], || Ok(())).is_err());
        }
        Ok(())
    }
}
