//! The shape of every layer's output, and whether a graph and a state dict are of the same network.

use std::collections::{BTreeMap, BTreeSet};

use candle_core::Tensor;

use super::{Graph, Layer, Op};
use crate::{Error, Result, StateDict};

impl Graph {
    /// The parameters and buffers of each layer, in the order of [`layers`](Self::layers).
    ///
    /// # Errors
    /// [`Error::Graph`] where a layer's are not in the dict, the dict has others, or two layers have one name.
    pub(crate) fn tensors<'a>(&self, dict: &'a StateDict) -> Result<Vec<BTreeMap<&'static str, &'a Tensor>>> {
        let mut names = BTreeSet::new();
        let mut used = BTreeSet::new();
        let mut all = Vec::with_capacity(self.layers.len());
        for layer in &self.layers {
            if !names.insert(layer.name.as_str()) {
                return Err(fault(layer, "has another layer's name".to_owned()));
            }
            let (always, perhaps) = layer.op.parameters();
            let mut own = BTreeMap::new();
            for leaf in always.iter().chain(perhaps) {
                let name = format!("{}.{leaf}", layer.name);
                match dict.get(&name) {
                    Some(tensor) => drop(own.insert(*leaf, tensor)),
                    None if perhaps.contains(leaf) => continue,
                    None => return Err(fault(layer, format!("has no {leaf} in the state dict"))),
                }
                used.insert(name);
            }
            all.push(own);
        }
        match dict.keys().find(|name| !used.contains(*name)) {
            Some(name) => Err(Error::Graph {
                layer: name.clone(),
                fault: "is in the state dict and of no layer of the graph".to_owned(),
            }),
            None => Ok(all),
        }
    }

    /// The shape of each layer's output for images `[3, height, width]`, without the batch's axis.
    ///
    /// # Errors
    /// [`Error::Graph`] where a layer cannot take its inputs, or its parameters are not there.
    pub fn shapes(&self, dict: &StateDict, height: usize, width: usize) -> Result<Vec<Vec<usize>>> {
        let tensors = self.tensors(dict)?;
        let mut shapes: Vec<Vec<usize>> = Vec::with_capacity(self.layers.len());
        for (layer, tensors) in self.layers.iter().zip(tensors) {
            let inputs = layer.inputs.iter().map(|node| shapes.get(node.0).map(Vec::as_slice));
            let Some(inputs) = inputs.collect::<Option<Vec<_>>>() else {
                return Err(fault(layer, "takes the output of a layer after it".to_owned()));
            };
            let weight = tensors.get("weight").map(|weight| weight.dims());
            let shape = match (&layer.op, inputs.as_slice()) {
                (Op::Input, []) => Some(vec![3, height, width]),
                (op, [input]) => unary(op, input, weight),
                (Op::Add, [a, b]) if a == b => Some(a.to_vec()),
                _ => None,
            };
            let shape = shape.ok_or_else(|| {
                let takes = weight.map_or_else(String::new, |weight| format!(" with weights {weight:?}"));
                fault(layer, format!("cannot take {inputs:?}{takes}"))
            })?;
            shapes.push(shape);
        }
        Ok(shapes)
    }
}

/// The output of a layer with one input; none where the two do not fit.
fn unary(op: &Op, input: &[usize], weight: Option<&[usize]>) -> Option<Vec<usize>> {
    match (op, input, weight) {
        (Op::Conv2d(config), &[channels, height, width], Some(&[outputs, per_group, kh, kw])) => {
            let side = |size: usize, kernel: usize| {
                let reach = config.dilation * kernel.checked_sub(1)? + 1;
                Some(
                    (size + 2 * config.padding)
                        .checked_sub(reach)?
                        .checked_div(config.stride)?
                        + 1,
                )
            };
            let fits = per_group * config.groups == channels && outputs.is_multiple_of(config.groups);
            fits.then_some(vec![outputs, side(height, kh)?, side(width, kw)?])
        }
        (Op::BatchNorm2d { .. }, [channels, _, _], Some([weight])) => (channels == weight).then(|| input.to_vec()),
        (
            Op::MaxPool2d {
                kernel,
                stride,
                padding,
            },
            &[channels, height, width],
            None,
        ) => {
            let side = |size: usize| Some((size + 2 * padding).checked_sub(*kernel)?.checked_div(*stride)? + 1);
            Some(vec![channels, side(height)?, side(width)?])
        }
        (Op::GlobalAvgPool2d, &[channels, _, _], None) => Some(vec![channels, 1, 1]),
        (Op::Flatten, _, None) => Some(vec![input.iter().product()]),
        (Op::Linear, [features], Some([outputs, inputs])) => (features == inputs).then(|| vec![*outputs]),
        (Op::Relu | Op::Gelu | Op::Dropout { .. } | Op::Scale { .. }, _, None) => Some(input.to_vec()),
        _ => None,
    }
}

fn fault(layer: &Layer, fault: String) -> Error {
    Error::Graph {
        layer: layer.name.clone(),
        fault,
    }
}
