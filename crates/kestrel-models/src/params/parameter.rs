//! One parameter as a layer holds it, and the builder that layers make theirs with.

use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::{DType, Device, Shape, Tensor};
use candle_nn::Init;

use super::Params;
use crate::Result;

/// A parameter of a layer, which may be frozen.
#[derive(Clone, Debug)]
pub struct Parameter {
    tensor: Tensor,
    /// The same memory without a graph.
    detached: Tensor,
    frozen: Arc<AtomicBool>,
}

impl Parameter {
    /// The tensor for a forward pass: no gradient reaches that of a frozen parameter.
    pub fn tensor(&self) -> &Tensor {
        if self.is_frozen() { &self.detached } else { &self.tensor }
    }

    /// Whether [`Params::freeze`] has frozen it.
    pub fn is_frozen(&self) -> bool {
        self.frozen.load(Ordering::Relaxed)
    }

    /// Sets the values, in place.
    ///
    /// # Errors
    /// Where `values` has another shape, or a device fails.
    pub fn set(&self, values: &Tensor) -> Result<()> {
        let values = values.reshape(self.detached.shape())?;
        let values = values
            .to_dtype(self.detached.dtype())?
            .to_device(self.detached.device())?;
        Ok(self.detached.slice_set(&values.contiguous()?, 0, 0)?)
    }
}

/// Makes the parameters of layers, under a prefix, in a [`Params`] store.
#[derive(Clone, Debug)]
pub struct ParamBuilder {
    params: Params,
    prefix: String,
    dtype: DType,
    device: Device,
}

impl ParamBuilder {
    pub(super) fn new(params: Params, dtype: DType, device: Device) -> Self {
        Self {
            params,
            prefix: String::new(),
            dtype,
            device,
        }
    }

    /// The builder of a part: `name` and a dot come before its names.
    #[must_use]
    pub fn pp(&self, name: impl Display) -> Self {
        Self {
            prefix: format!("{}{name}.", self.prefix),
            ..self.clone()
        }
    }

    /// The parameter of that name; its first values are drawn by `init`.
    ///
    /// # Errors
    /// Where the store holds the name with another shape.
    pub fn parameter(&self, shape: impl Into<Shape>, name: &str, init: Init) -> Result<Parameter> {
        self.create(shape, name, init, false)
    }

    /// As [`parameter`](Self::parameter), but never trained: it is frozen, and [`Params::unfreeze`] passes it over.
    ///
    /// # Errors
    /// Those of [`parameter`](Self::parameter).
    pub fn fixed(&self, shape: impl Into<Shape>, name: &str, init: Init) -> Result<Parameter> {
        self.create(shape, name, init, true)
    }

    /// The buffer of that name, filled with `value`.
    ///
    /// # Errors
    /// Where the store holds the name with another shape.
    pub fn buffer(&self, shape: impl Into<Shape>, name: &str, value: f64) -> Result<Tensor> {
        Ok(self.create(shape, name, Init::Const(value), false)?.tensor)
    }

    fn create(&self, shape: impl Into<Shape>, name: &str, init: Init, fixed: bool) -> Result<Parameter> {
        let name = format!("{}{name}", self.prefix);
        let (params, shape) = (&self.params, shape.into());
        let (tensor, frozen) = params.get_or_create(&name, &shape, &init, fixed, self.dtype, &self.device)?;
        Ok(Parameter {
            detached: tensor.detach(),
            tensor,
            frozen,
        })
    }
}
