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
        let (tensor, frozen) = self.create(shape, name, init)?;
        Ok(Parameter {
            detached: tensor.detach(),
            tensor,
            frozen,
        })
    }

    /// The buffer of that name, filled with `value`.
    ///
    /// # Errors
    /// Where the store holds the name with another shape.
    pub fn buffer(&self, shape: impl Into<Shape>, name: &str, value: f64) -> Result<Tensor> {
        Ok(self.create(shape, name, Init::Const(value))?.0)
    }

    fn create(&self, shape: impl Into<Shape>, name: &str, init: Init) -> Result<(Tensor, Arc<AtomicBool>)> {
        let name = format!("{}{name}", self.prefix);
        Ok(self
            .params
            .get_or_create(&name, &shape.into(), &init, self.dtype, &self.device)?)
    }
}
