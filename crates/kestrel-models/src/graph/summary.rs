//! A network's layers as a table: output shapes, parameters, multiplications.

use serde::Serialize;

use super::Op;
use crate::{Error, Model, Result};

/// What a network is made of.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// The layers in the order in which they run, the images first.
    pub layers: Vec<LayerSummary>,
    /// Parameters of all layers; buffers such as running statistics are not counted.
    pub parameters: usize,
    /// Multiply-accumulates of one image, of convolutions and linear layers, as torchvision counts them: without biases,
    /// norms and pooling.
    pub macs: u64,
}

/// One layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LayerSummary {
    /// Its name, which its parameters begin with.
    pub name: String,
    /// PyTorch's name of what it does.
    pub kind: &'static str,
    /// The shape of its output for one image: `[C, H, W]` or `[F]`.
    pub output: Vec<usize>,
    /// Its parameters.
    pub parameters: usize,
    /// Its multiply-accumulates for one image.
    pub macs: u64,
}

impl Summary {
    /// The table of a model for images of `height` x `width` pixels.
    ///
    /// # Errors
    /// [`Error::NoGraph`] where the model does not say its layers, [`Error::Graph`] where the images are too small for it.
    pub fn of(model: &dyn Model, height: usize, width: usize) -> Result<Self> {
        let graph = model.graph().ok_or(Error::NoGraph)?;
        let dict = model.params().state_dict()?;
        let shapes = graph.shapes(&dict, height, width)?;
        let tensors = graph.tensors(&dict)?;
        let layers: Vec<LayerSummary> = graph
            .layers()
            .iter()
            .zip(shapes)
            .zip(tensors)
            .map(|((layer, output), tensors)| {
                let counted = tensors.iter().filter(|(leaf, _)| !crate::is_buffer(leaf));
                let parameters = counted.map(|(_, tensor)| tensor.elem_count()).sum();
                let macs = match (&layer.op, tensors.get("weight")) {
                    // Each weight meets each place of the output once.
                    (Op::Conv2d(_), Some(weight)) => weight.elem_count() * output[1..].iter().product::<usize>(),
                    (Op::Linear, Some(weight)) => weight.elem_count(),
                    _ => 0,
                };
                LayerSummary {
                    name: layer.name.clone(),
                    kind: layer.op.name(),
                    output,
                    parameters,
                    macs: macs as u64,
                }
            })
            .collect();
        Ok(Self {
            parameters: layers.iter().map(|layer| layer.parameters).sum(),
            macs: layers.iter().map(|layer| layer.macs).sum(),
            layers,
        })
    }
}
