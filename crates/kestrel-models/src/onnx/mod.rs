//! ONNX files: a trained network with all that a picture needs on its way to an answer. Writes them, reads none.
//!
//! ```text
//! image   [batch, 3, H, W]   f32, normalised; any batch
//! logits  [batch, C]         f32
//! ```
//!
//! The metadata hold what is not in the graph: `classes`, `mean`, `std` and `transforms` as JSON, `image_size`,
//! `architecture`, and the `temperature` by which logits are divided before the softmax, where one was fitted. Batch norms stay nodes of their own; every runtime folds them into the convolutions before them.
//!
//! # Source
//! `onnx.proto` and `Operators.md` of <https://github.com/onnx/onnx>, opset 20. `scripts/check_onnx.py` holds files against
//! `onnx.checker` and onnxruntime.

mod node;
mod protobuf;

use std::path::Path;

use candle_core::{DType, Device, Tensor};

use crate::graph::Graph;
use crate::weights::ModelInfo;
use crate::{Error, Model, Result};
use protobuf::Message;

/// The version of the operators, of ONNX 1.15 (2023): the first with Gelu.
const OPSET: i64 = 20;
/// The version of the format that came with it.
const IR_VERSION: i64 = 9;
/// `TensorProto.DataType.FLOAT`.
const FLOAT: i64 = 1;

/// The name of the graph's input.
pub const INPUT: &str = "image";
/// The name of the graph's output.
pub const OUTPUT: &str = "logits";

/// An ONNX file of a model for square images of `side` pixels, with these metadata. Equal contents give equal bytes.
///
/// # Errors
/// [`Error::NoGraph`] where the model does not say its layers, [`Error::Graph`] where what it says is not what it has.
pub fn export(model: &dyn Model, side: usize, metadata: &[(&str, String)]) -> Result<Vec<u8>> {
    let graph = model.graph().ok_or(Error::NoGraph)?;
    let dict = model.params().state_dict()?;
    // Says what does not fit, before anything is written.
    graph.shapes(&dict, side, side)?;
    let mut nodes = Vec::new();
    let mut initializers = Vec::new();
    // The name under which each layer's output is known.
    let mut outputs: Vec<String> = Vec::new();
    let last = last_operator(&graph)?;
    for (at, (layer, tensors)) in graph.layers().iter().zip(graph.tensors(&dict)?).enumerate() {
        let mut inputs: Vec<String> = layer
            .inputs
            .iter()
            .map(|node| outputs[graph.index(*node)].clone())
            .collect();
        let Some(op) = node::operator(&layer.op) else {
            // The images, or a layer that does nothing in evaluation.
            outputs.push(inputs.pop().unwrap_or_else(|| INPUT.to_owned()));
            continue;
        };
        let (always, perhaps) = layer.op.parameters();
        for leaf in always.iter().chain(perhaps) {
            if let Some(tensor) = tensors.get(leaf) {
                let name = format!("{}.{leaf}", layer.name);
                initializers.push(initializer(&name, tensor)?);
                inputs.push(name);
            }
        }
        if let Some(value) = op.constant {
            let name = format!("{}.factor", layer.name);
            initializers.push(initializer(&name, &Tensor::new(value as f32, &Device::Cpu)?)?);
            inputs.push(name);
        }
        let output = if at == last { OUTPUT } else { layer.name.as_str() };
        nodes.push(op.message(&layer.name, &inputs, output));
        outputs.push(output.to_owned());
    }
    let image = value(INPUT, &[3, side as i64, side as i64]);
    let logits = value(OUTPUT, &[model.num_classes() as i64]);
    let graph = Message::new()
        .messages(1, nodes)
        .text(2, "classifier")
        .messages(5, initializers)
        .message(11, &image)
        .message(12, &logits);
    let entry = |(key, value): &(&str, String)| Message::new().text(1, key).text(2, value);
    let entries = metadata.iter().map(entry);
    let opset = Message::new().text(1, "").int(2, OPSET);
    let model = Message::new()
        .int(1, IR_VERSION)
        .text(2, "kestrel")
        .text(3, env!("CARGO_PKG_VERSION"))
        .message(7, &graph)
        .message(8, &opset)
        .messages(14, entries);
    Ok(model.into_bytes())
}

/// A few lines of Python that run a file of [`export`] in onnxruntime.
pub fn runtime_snippet(path: &Path) -> String {
    // JSON's escapes are Python's.
    let path = serde_json::Value::from(path.to_string_lossy());
    format!(
        "import json, onnxruntime\n\
         session = onnxruntime.InferenceSession({path})\n\
         about = session.get_modelmeta().custom_metadata_map\n\
         logits = session.run([\"{OUTPUT}\"], {{\"{INPUT}\": images}})[0]  # f32 [N, 3, H, W], normalised by about's mean and std\n\
         print([json.loads(about[\"classes\"])[i] for i in logits.argmax(1)])"
    )
}

/// The layer whose output the logits are: the last, or what it hands on.
fn last_operator(graph: &Graph) -> Result<usize> {
    let mut at = graph.layers().len().checked_sub(1).ok_or(Error::NoGraph)?;
    while node::operator(&graph.layers()[at].op).is_none() {
        let input = graph.layers()[at].inputs.first();
        at = graph.index(*input.ok_or(Error::NoGraph)?);
    }
    Ok(at)
}

/// A `TensorProto` in f32.
fn initializer(name: &str, tensor: &Tensor) -> Result<Message> {
    let dims: Vec<i64> = tensor.dims().iter().map(|size| *size as i64).collect();
    let values = tensor.to_dtype(DType::F32)?.to_device(&Device::Cpu)?.flatten_all()?;
    let bytes: Vec<u8> = values
        .to_vec1::<f32>()?
        .into_iter()
        .flat_map(f32::to_le_bytes)
        .collect();
    Ok(Message::new()
        .ints(1, &dims)
        .int(2, FLOAT)
        .text(8, name)
        .bytes(9, &bytes))
}

/// A `ValueInfoProto` of `[batch, dims...]` in f32.
fn value(name: &str, dims: &[i64]) -> Message {
    let batch = Message::new().text(2, "batch");
    let sizes = dims.iter().map(|size| Message::new().int(1, *size));
    let shape = Message::new().message(1, &batch).messages(1, sizes);
    let tensor = Message::new().int(1, FLOAT).message(2, &shape);
    let of = Message::new().message(1, &tensor);
    Message::new().text(1, name).message(2, &of)
}

/// What a program needs to know beside the graph, for [`export`].
///
/// # Errors
/// [`Error::Record`] where a value is none that JSON has.
pub fn metadata(info: &ModelInfo) -> Result<Vec<(&'static str, String)>> {
    let mut entries = vec![
        ("architecture", info.model.name().to_owned()),
        ("classes", serde_json::to_string(&info.classes)?),
        ("image_size", info.model.image_size().to_string()),
        ("mean", serde_json::to_string(&info.mean)?),
        ("std", serde_json::to_string(&info.std)?),
    ];
    if let Some(transforms) = &info.transforms {
        entries.push(("transforms", transforms.to_string()));
    }
    if let Some(temperature) = info.temperature {
        entries.push(("temperature", temperature.to_string()));
    }
    Ok(entries)
}
