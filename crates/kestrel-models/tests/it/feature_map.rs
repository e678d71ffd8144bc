//! The last feature map: where it ends, the rest of the network goes on.

use std::sync::Arc;

use candle_core::{DType, Device, Var};
use kestrel_models::{CnnConfig, Depth, Mode, Model, ModelConfig, ResNetConfig, WhitenedCnnConfig};

use crate::cnn_golden::values;
use crate::formula::images;

#[test]
fn the_rest_of_a_network_goes_on_from_its_map() {
    let cnn = CnnConfig {
        width: 2,
        ..CnnConfig::new(3)
    };
    let whitened = WhitenedCnnConfig {
        width: 2,
        ..WhitenedCnnConfig::new(3)
    };
    for (config, shape) in [
        (ModelConfig::Cnn(cnn), [2, 8, 8, 8]),
        (
            ModelConfig::ResNet(ResNetConfig::new(Depth::ResNet18, 3)),
            [2, 1, 1, 512],
        ),
        (
            ModelConfig::ResNet(ResNetConfig::cifar(Depth::ResNet50, 3)),
            [2, 4, 4, 2048],
        ),
        (ModelConfig::WhitenedCnn(whitened), [2, 3, 3, 8]),
    ] {
        let model: Arc<dyn Model> = config.build(0, DType::F32, &Device::Cpu).unwrap().into();
        let images = images(2, 32, DType::F32);
        let map = model.feature_map(&images).unwrap();
        assert_eq!(map.dims(), shape, "{}", config.name());
        assert!(!map.track_op());
        let map = Var::from_tensor(&map).unwrap();
        let logits = model.classify_map(&map).unwrap();
        let want = model.forward(&images, Mode::Eval).unwrap();
        assert_eq!(values(&logits), values(&want), "{}", config.name());
        let gradients = logits.sum_all().unwrap().backward().unwrap();
        assert!(values(gradients.get(&map).unwrap()).iter().any(|g| *g != 0.0));
        assert!(model.feature_map(&images.narrow(1, 0, 1).unwrap()).is_err());
    }
}
