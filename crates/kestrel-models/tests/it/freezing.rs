//! Frozen parameters: no gradient, and batch norms that normalise by running statistics which stay as they are.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use kestrel_kernels::cross_entropy;
use kestrel_models::{Cnn, CnnConfig, Depth, Error, Mode, Model, Params, ResNet, ResNetConfig, StateDict, is_buffer};

use crate::cnn_golden::{error, values};
use crate::formula::{fill, images};

const TRAIN: Mode = Mode::Train { seed: 0, step: 0 };

fn resnet(dtype: DType) -> ResNet {
    let model = ResNet::new(ResNetConfig::new(Depth::ResNet18, 4), 0, dtype, &Device::Cpu).unwrap();
    fill(model.params(), dtype, 6.0);
    model
}

/// The names of the parameters that a step's gradients reach, and of the buffers that it moves.
fn touched(model: &dyn Model, size: usize, dtype: DType) -> (Vec<String>, Vec<String>) {
    let before = model.params().state_dict().unwrap();
    let logits = model.forward(&images(4, size, dtype), TRAIN).unwrap();
    let targets = Tensor::new(&[0u32, 1, 1, 0], &Device::Cpu).unwrap();
    let grads = cross_entropy(&logits, &targets).unwrap().backward().unwrap();
    let (buffers, parameters): (Vec<_>, Vec<_>) =
        model.params().all().into_iter().partition(|(name, _)| is_buffer(name));
    let reached = parameters.into_iter().filter(|(_, var)| grads.get(var).is_some());
    let moved = buffers
        .into_iter()
        .filter(|(name, var)| values(var) != values(&before[name]));
    (
        reached.map(|(name, _)| name).collect(),
        moved.map(|(name, _)| name).collect(),
    )
}

fn names(model: &dyn Model) -> Vec<String> {
    model.params().trainable().into_iter().map(|(name, _)| name).collect()
}

#[test]
fn frozen_layers_get_no_gradient_and_keep_their_statistics() {
    for dtype in [DType::F32, DType::F64] {
        let model = resnet(dtype);
        for module in ["conv1", "bn1", "layer1", "layer2", "layer4.0.bn1"] {
            model.params().freeze(module).unwrap();
        }
        assert!(names(&model).iter().all(|name| name.starts_with("layer3.")
            || name.starts_with("layer4.") && !name.starts_with("layer4.0.bn1.")
            || name.starts_with("fc.")));
        let (reached, moved) = touched(&model, 32, dtype);
        assert_eq!(reached, names(&model));
        let norms = [
            "layer3.0.bn1",
            "layer3.0.bn2",
            "layer3.0.downsample.1",
            "layer3.1.bn1",
            "layer3.1.bn2",
            "layer4.0.bn2",
            "layer4.0.downsample.1",
            "layer4.1.bn1",
            "layer4.1.bn2",
        ];
        let norms = norms
            .iter()
            .flat_map(|norm| ["running_mean", "running_var"].map(|leaf| format!("{norm}.{leaf}")));
        assert_eq!(moved, norms.collect::<Vec<_>>());
    }
}

#[test]
fn a_frozen_trunk_gives_in_training_what_it_gives_in_evaluation() {
    let model = resnet(DType::F32);
    let images = images(4, 64, DType::F32);
    model.freeze_all_but_head().unwrap();
    for group in model.layer_groups() {
        assert_eq!(group.is_frozen(model.params()), group.name != model.head());
    }
    assert_eq!(names(&model), ["fc.bias", "fc.weight"]);
    let features = model.features(&images, TRAIN).unwrap();
    assert!(!features.track_op(), "nothing of it is kept for a backward");
    assert_eq!(values(&features), values(&model.features(&images, Mode::Eval).unwrap()));
    let (reached, moved) = touched(&model, 64, DType::F32);
    assert_eq!(reached, ["fc.bias", "fc.weight"]);
    assert!(moved.is_empty(), "{moved:?}");
}

/// The gradients of what is trained are those of a network whose frozen batch norms are in evaluation, whether what is
/// frozen comes first, where it is not recorded, or later.
#[test]
fn gradients_do_not_depend_on_where_frozen_layers_lie() {
    let gradients = |dtype, frozen: &[&str]| -> StateDict {
        let model = resnet(dtype);
        for module in frozen {
            model.params().freeze(module).unwrap();
        }
        let logits = model.forward(&images(4, 32, dtype), TRAIN).unwrap();
        let grads = logits.sqr().unwrap().mean_all().unwrap().backward().unwrap();
        let vars = model.params().trainable().into_iter();
        vars.map(|(name, var)| (name, grads.get(&var).unwrap().clone()))
            .collect()
    };
    // With bn1's bias trained, the stem is recorded: layer3's gradients come by another way, and are the same.
    let all = ["conv1", "bn1", "layer1", "layer2", "layer4"];
    let recorded = ["conv1", "bn1.weight", "layer1", "layer2", "layer4"];
    let (fast, exact) = (gradients(DType::F32, &all), gradients(DType::F64, &all));
    assert_eq!(fast.len(), exact.len());
    for (name, want) in &exact {
        assert!(error(&values(&fast[name]), &values(want), 0.0) < 1e-4, "{name}");
    }
    assert_eq!(gradients(DType::F64, &recorded).len(), exact.len() + 1);
}

#[test]
fn thawing_undoes_freezing() {
    let config = CnnConfig {
        width: 2,
        ..CnnConfig::new(2)
    };
    let model = Cnn::new(config, 0, DType::F32, &Device::Cpu).unwrap();
    let all = names(&model);
    model.params().freeze("").unwrap();
    assert!(names(&model).is_empty());
    assert!(model.params().is_frozen("conv1") && model.params().is_frozen("conv1.bias"));
    let logits = model.forward(&images(4, 32, DType::F32), TRAIN).unwrap();
    assert!(!logits.track_op());
    for group in model.layer_groups() {
        group.unfreeze(model.params()).unwrap();
    }
    assert_eq!(names(&model), all);
    let (reached, moved) = touched(&model, 32, DType::F32);
    assert_eq!((reached.len(), moved.len()), (all.len(), 12));
}

#[test]
fn training_from_a_group_on_freezes_what_comes_before_it() {
    let model = resnet(DType::F32);
    model.train_from("layer4").unwrap();
    assert!(
        names(&model)
            .iter()
            .all(|name| name.starts_with("layer4.") || name.starts_with("fc."))
    );
    assert!(model.params().is_frozen("conv1") && model.params().is_frozen("layer3.1.bn2"));
    let before = names(&model);
    let error = model.train_from("layer5").unwrap_err().to_string();
    assert!(
        error.contains("layer5") && error.contains("stem, layer1, layer2"),
        "{error}"
    );
    assert_eq!(names(&model), before);
    model.train_from("stem").unwrap();
    assert_eq!(names(&model).len(), 62);
}

#[test]
fn a_module_that_is_not_there_cannot_be_frozen() {
    let model = resnet(DType::F32);
    for name in ["layer5", "layer", "layer1.0.bn1.running_mean"] {
        let error = model.params().freeze(name).unwrap_err();
        assert!(
            matches!(&error, Error::UnknownModule { name: got } if got == name),
            "{error}"
        );
    }
    assert!(!model.params().is_frozen("layer1"));
}

/// What a feature cache rests on: an image's features do not depend on the images beside it.
#[test]
fn features_do_not_depend_on_the_batch() {
    let model = resnet(DType::F32);
    for size in [32, 96] {
        let images = images(9, size, DType::F32);
        let all = model.features(&images, Mode::Eval).unwrap();
        for (start, len) in [(0, 1), (3, 2), (4, 5), (1, 8)] {
            let part = images.narrow(0, start, len).unwrap().contiguous().unwrap();
            let part = values(&model.features(&part, Mode::Eval).unwrap());
            let want = values(&all.narrow(0, start, len).unwrap());
            let strays = part.iter().zip(&want).filter(|(a, b)| a != b).count();
            assert_eq!(strays, 0, "{size} pixels, images {start} to {}", start + len);
        }
    }
}

/// A model with its own way to freeze, which a model behind a pointer must keep.
struct Own {
    cnn: Cnn,
}

impl Model for Own {
    fn forward(&self, images: &Tensor, mode: Mode) -> kestrel_models::Result<Tensor> {
        self.cnn.forward(images, mode)
    }

    fn params(&self) -> &Params {
        self.cnn.params()
    }

    fn num_classes(&self) -> usize {
        self.cnn.num_classes()
    }

    fn freeze_all_but_head(&self) -> kestrel_models::Result<()> {
        self.params().freeze("fc1")
    }

    fn train_from(&self, group: &str) -> kestrel_models::Result<()> {
        self.params().freeze(group)
    }
}

#[test]
fn a_pointer_to_a_model_freezes_as_the_model_does() {
    fn frozen(model: &impl Model) -> Vec<String> {
        let before = names(model);
        model.freeze_all_but_head().unwrap();
        model.train_from("conv2").unwrap();
        let after = names(model);
        before.into_iter().filter(|name| !after.contains(name)).collect()
    }
    let own = || Own {
        cnn: Cnn::new(
            CnnConfig {
                width: 1,
                ..CnnConfig::new(2)
            },
            0,
            DType::F32,
            &Device::Cpu,
        )
        .unwrap(),
    };
    let want = ["conv2.bias", "conv2.weight", "fc1.bias", "fc1.weight"];
    assert_eq!(frozen(&own()), want);
    let shared: Arc<dyn Model> = Arc::new(own());
    assert_eq!(frozen(&shared), want);
    let boxed: Box<dyn Model> = Box::new(own());
    assert_eq!(frozen(&boxed), want);
}
