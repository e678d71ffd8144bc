//! Layers as ONNX operators.

use super::protobuf::Message;
use crate::graph::Op;

/// An operator with its attributes.
pub(super) struct Operator {
    name: &'static str,
    attributes: Vec<Message>,
    /// Its second input, where that is a number.
    pub(super) constant: Option<f64>,
}

/// What a layer is in ONNX; none where it hands its input on in evaluation.
pub(super) fn operator(op: &Op) -> Option<Operator> {
    let plain = |name| (name, Vec::new());
    let (name, attributes) = match op {
        Op::Input | Op::Dropout { .. } => return None,
        Op::Conv2d(config) => (
            "Conv",
            vec![
                ints("dilations", &[config.dilation; 2]),
                int("group", config.groups),
                ints("pads", &[config.padding; 4]),
                ints("strides", &[config.stride; 2]),
            ],
        ),
        Op::BatchNorm2d { eps } => ("BatchNormalization", vec![float("epsilon", *eps as f32)]),
        Op::Relu => plain("Relu"),
        Op::Gelu => plain("Gelu"),
        Op::MaxPool2d {
            kernel,
            stride,
            padding,
        } => (
            "MaxPool",
            vec![
                ints("kernel_shape", &[*kernel; 2]),
                ints("pads", &[*padding; 4]),
                ints("strides", &[*stride; 2]),
            ],
        ),
        Op::GlobalAvgPool2d => plain("GlobalAveragePool"),
        Op::Add => plain("Add"),
        Op::Flatten => ("Flatten", vec![int("axis", 1)]),
        // Weights are `[outputs, inputs]`.
        Op::Linear => ("Gemm", vec![int("transB", 1)]),
        Op::Scale { .. } => plain("Mul"),
    };
    let constant = match op {
        Op::Scale { factor } => Some(*factor),
        _ => None,
    };
    Some(Operator {
        name,
        attributes,
        constant,
    })
}

impl Operator {
    /// A `NodeProto`.
    pub(super) fn message(self, name: &str, inputs: &[String], output: &str) -> Message {
        let inputs = inputs.iter().fold(Message::new(), |node, input| node.text(1, input));
        inputs
            .text(2, output)
            .text(3, name)
            .text(4, self.name)
            .messages(5, self.attributes)
    }
}

// `AttributeProto.AttributeType`.
const TYPE_FLOAT: i64 = 1;
const TYPE_INT: i64 = 2;
const TYPE_INTS: i64 = 7;

fn float(name: &str, value: f32) -> Message {
    Message::new().text(1, name).float(2, value).int(20, TYPE_FLOAT)
}

fn int(name: &str, value: usize) -> Message {
    Message::new().text(1, name).int(3, value as i64).int(20, TYPE_INT)
}

fn ints(name: &str, values: &[usize]) -> Message {
    let values: Vec<i64> = values.iter().map(|value| *value as i64).collect();
    Message::new().text(1, name).ints(8, &values).int(20, TYPE_INTS)
}
