//! ONNX files, read again field by field. `scripts/check_onnx.py` runs such files in onnxruntime.

use std::collections::BTreeMap;

use candle_core::{DType, Device};
use kestrel_models::weights::ModelInfo;
use kestrel_models::{CnnConfig, Depth, Model, ModelConfig, ResNetConfig, StateDict, onnx};

use crate::cnn_golden::values;
use crate::formula::fill;

/// A field's value.
#[derive(Clone, Debug, PartialEq)]
enum Field {
    Varint(u64),
    Fixed([u8; 4]),
    Bytes(Vec<u8>),
}

/// A message: the values of each field by its number, in order.
#[derive(Debug, Default)]
struct Message(BTreeMap<u64, Vec<Field>>);

impl Message {
    fn read(mut bytes: &[u8]) -> Self {
        let mut message = Self::default();
        while !bytes.is_empty() {
            let key = varint(&mut bytes);
            let field = match key & 7 {
                0 => Field::Varint(varint(&mut bytes)),
                5 => Field::Fixed(take(&mut bytes, 4).try_into().unwrap()),
                2 => {
                    let len = varint(&mut bytes) as usize;
                    Field::Bytes(take(&mut bytes, len).to_vec())
                }
                other => panic!("type {other}"),
            };
            message.0.entry(key >> 3).or_default().push(field);
        }
        message
    }

    fn all(&self, number: u64) -> &[Field] {
        self.0.get(&number).map_or(&[], Vec::as_slice)
    }

    fn bytes(&self, number: u64) -> Vec<&[u8]> {
        let bytes = self.all(number).iter().map(|field| match field {
            Field::Bytes(bytes) => bytes.as_slice(),
            other => panic!("{other:?}"),
        });
        bytes.collect()
    }

    fn texts(&self, number: u64) -> Vec<String> {
        let bytes = self.bytes(number).into_iter();
        bytes.map(|bytes| String::from_utf8(bytes.to_vec()).unwrap()).collect()
    }

    fn text(&self, number: u64) -> String {
        self.texts(number).pop().unwrap()
    }

    fn messages(&self, number: u64) -> Vec<Message> {
        self.bytes(number).into_iter().map(Message::read).collect()
    }

    fn int(&self, number: u64) -> u64 {
        match self.all(number) {
            [Field::Varint(value)] => *value,
            other => panic!("{other:?}"),
        }
    }

    /// A packed field.
    fn ints(&self, number: u64) -> Vec<u64> {
        let mut bytes = self.bytes(number).pop().unwrap();
        let mut values = Vec::new();
        while !bytes.is_empty() {
            values.push(varint(&mut bytes));
        }
        values
    }
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..).step_by(7) {
        let byte = take(bytes, 1)[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            break;
        }
    }
    value
}

fn take<'a>(bytes: &mut &'a [u8], len: usize) -> &'a [u8] {
    let (taken, rest) = bytes.split_at(len);
    *bytes = rest;
    taken
}

fn info(model: ModelConfig) -> ModelInfo {
    ModelInfo {
        classes: (0..model.num_classes())
            .map(|class| format!("class \"{class}\""))
            .collect(),
        model,
        mean: [0.5, 0.25, 0.125],
        std: [1.0, 2.0, 4.0],
        transforms: Some(serde_json::json!([{ "name": "ToTensor" }])),
        temperature: Some(1.5),
    }
}

fn exported(config: ModelConfig) -> (Box<dyn Model>, Message) {
    let model = config.build(0, DType::F32, &Device::Cpu).unwrap();
    fill(model.params(), DType::F32, 1.0);
    let info = info(config);
    let export = || onnx::export(model.as_ref(), info.model.image_size(), &onnx::metadata(&info).unwrap()).unwrap();
    let bytes = export();
    assert_eq!(export(), bytes);
    let file = Message::read(&bytes);
    (model, file)
}

/// Every initializer is a tensor of the dict, bit for bit, and every tensor of the dict is one.
fn initializers_are(graph: &Message, dict: &StateDict) {
    let mut names = Vec::new();
    for tensor in graph.messages(5) {
        let name = tensor.text(8);
        let dims: Vec<usize> = tensor.ints(1).iter().map(|size| *size as usize).collect();
        assert_eq!((dims.as_slice(), tensor.int(2)), (dict[&name].dims(), 1), "{name}");
        let raw = tensor.bytes(9).pop().unwrap();
        let (floats, rest) = raw.as_chunks::<4>();
        let got: Vec<f64> = floats.iter().map(|bytes| f32::from_le_bytes(*bytes).into()).collect();
        assert!(got == values(&dict[&name]) && rest.is_empty(), "{name}");
        names.push(name);
    }
    names.sort();
    assert!(names.iter().eq(dict.keys()));
}

/// Each node takes what stands before it, and the last gives the logits.
fn is_a_chain(graph: &Message) {
    let mut known: Vec<String> = graph.messages(5).iter().map(|tensor| tensor.text(8)).collect();
    known.push("image".to_owned());
    for node in graph.messages(1) {
        for input in node.texts(1) {
            assert!(known.contains(&input), "{} takes {input}", node.text(3));
        }
        let output = node.text(2);
        assert!(!known.contains(&output), "{output} twice");
        known.push(output);
    }
    assert_eq!(known.last().unwrap(), "logits");
}

fn value_is(value: &Message, name: &str, dims: &[u64]) {
    assert_eq!(value.text(1), name);
    let tensor = value.messages(2)[0].messages(1).pop().unwrap();
    assert_eq!(tensor.int(1), 1);
    let mut sizes = tensor.messages(2)[0].messages(1).into_iter();
    assert_eq!(sizes.next().unwrap().text(2), "batch");
    assert!(sizes.map(|size| size.int(1)).eq(dims.iter().copied()));
}

#[test]
fn a_cnn_is_its_layers_and_its_record() {
    let config = ModelConfig::Cnn(CnnConfig {
        width: 2,
        ..CnnConfig::new(3)
    });
    let (model, file) = exported(config);
    assert_eq!((file.int(1), file.text(2)), (9, "kestrel".to_owned()));
    let opset = file.messages(8).pop().unwrap();
    assert_eq!((opset.text(1).as_str(), opset.int(2)), ("", 20));
    let graph = file.messages(7).pop().unwrap();
    value_is(&graph.messages(11)[0], "image", &[3, 32, 32]);
    value_is(&graph.messages(12)[0], "logits", &[3]);
    initializers_are(&graph, &model.params().state_dict().unwrap());
    is_a_chain(&graph);
    let kinds: Vec<String> = graph.messages(1).iter().map(|node| node.text(4)).collect();
    let block = [
        "Conv",
        "BatchNormalization",
        "Relu",
        "Conv",
        "BatchNormalization",
        "Relu",
        "MaxPool",
    ];
    // Dropout does nothing in evaluation, and is no node.
    let want = [&block[..], &block, &block, &["Flatten", "Gemm", "Relu", "Gemm"]].concat();
    assert_eq!(kinds, want);

    let metadata: BTreeMap<String, String> = file
        .messages(14)
        .iter()
        .map(|entry| (entry.text(1), entry.text(2)))
        .collect();
    let metadata: Vec<(&str, &str)> = metadata
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .collect();
    assert_eq!(
        metadata,
        [
            ("architecture", "cnn"),
            ("classes", r#"["class \"0\"","class \"1\"","class \"2\""]"#),
            ("image_size", "32"),
            ("mean", "[0.5,0.25,0.125]"),
            ("std", "[1.0,2.0,4.0]"),
            ("temperature", "1.5"),
            ("transforms", r#"[{"name":"ToTensor"}]"#),
        ]
    );
}

#[test]
fn a_residual_network_has_its_strides_and_sums() {
    for (config, side) in [
        (ResNetConfig::new(Depth::ResNet18, 2), 224),
        (ResNetConfig::cifar(Depth::ResNet18, 2), 32),
    ] {
        let (model, file) = exported(ModelConfig::ResNet(config));
        let graph = file.messages(7).pop().unwrap();
        value_is(&graph.messages(11)[0], "image", &[3, side, side]);
        initializers_are(&graph, &model.params().state_dict().unwrap());
        is_a_chain(&graph);
        let nodes = graph.messages(1);
        let node = |name: &str| nodes.iter().find(|node| node.text(3) == name).unwrap();
        let attribute = |node: &str, name: &str| {
            let attributes = nodes.iter().find(|n| n.text(3) == node).unwrap().messages(5);
            let found = attributes.into_iter().find(|attribute| attribute.text(1) == name);
            found.unwrap().ints(8)
        };
        assert_eq!(attribute("layer2.0.downsample.0", "strides"), [2, 2]);
        assert_eq!(attribute("conv1", "pads"), if side == 224 { [3; 4] } else { [1; 4] });
        let add = node("layer2.0.add").texts(1);
        assert!(
            add[0].starts_with("layer2.0.bn") && add[1] == "layer2.0.downsample.1",
            "{add:?}"
        );
        assert_eq!(node("fc").texts(1), ["flatten", "fc.weight", "fc.bias"]);
        let epsilon = node("bn1").messages(5).pop().unwrap();
        assert_eq!(epsilon.all(2), [Field::Fixed(1e-5f32.to_le_bytes())]);
    }
}
