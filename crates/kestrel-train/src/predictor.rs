//! A weight file at work: from pictures of any size to honest probabilities, with nothing but the file.

use std::path::Path;

use candle_core::{D, DType, Device, Tensor};
use kestrel_data::transforms::{CenterCrop, Compose, Normalize, Resize, TransformSpec};
use kestrel_models::weights::ModelInfo;
use kestrel_models::{Mode, Model};

use crate::checkpoint::Weights;
use crate::{Error, GradCam, Result};

/// A network with its weights, classes, preprocessing and temperature, as one file holds them.
pub struct Predictor {
    model: Box<dyn Model>,
    info: ModelInfo,
}

impl Predictor {
    /// Reads a weight file or a checkpoint of Kestrel's.
    ///
    /// # Errors
    /// Those of [`Weights::load`], and of a network that cannot be built or loaded.
    pub fn load(path: &Path, device: &Device) -> Result<Self> {
        Self::new(Weights::load(path)?, device)
    }

    /// Of weights that were read.
    ///
    /// # Errors
    /// Those of a network that cannot be built or loaded.
    pub fn new(weights: Weights, device: &Device) -> Result<Self> {
        let Weights { info, tensors } = weights;
        let model = info.model.build(0, DType::F32, device)?;
        model.params().load_state_dict(&tensors)?;
        model.params().flush_denormal()?;
        // Nothing of it is trained: a heatmap's backward need not reach the weights.
        model.params().freeze("")?;
        Ok(Self { model, info })
    }

    /// What the file says of the network.
    pub fn info(&self) -> &ModelInfo {
        &self.info
    }

    /// The network.
    pub fn model(&self) -> &dyn Model {
        self.model.as_ref()
    }

    /// The steps that bring a picture of any size to the network's input: those of the file. Where these leave the size alone,
    /// because the network was trained on images of one size, the shorter side is brought to that size and the middle kept first,
    /// which changes nothing of an image that has it.
    ///
    /// # Errors
    /// [`Error::InvalidTransforms`].
    pub fn transforms(&self) -> Result<Compose> {
        let size = self.info.model.image_size();
        let sized = Compose::new().then(Resize::new(size)).then(CenterCrop::new(size));
        let Some(specs) = described_transforms(&self.info)? else {
            return Ok(sized.normalize(Normalize::new(self.info.mean, self.info.std)?));
        };
        let changes_size = |spec: &TransformSpec| {
            matches!(
                spec,
                TransformSpec::Resize(_)
                    | TransformSpec::CenterCrop(_)
                    | TransformSpec::RandomCrop(_)
                    | TransformSpec::RandomResizedCrop(_)
            )
        };
        if specs.iter().any(changes_size) {
            return Ok(Compose::from_specs(&specs)?);
        }
        let mut all = vec![
            TransformSpec::Resize(Resize::new(size)),
            TransformSpec::CenterCrop(CenterCrop::new(size)),
        ];
        all.extend(specs);
        Ok(Compose::from_specs(&all)?)
    }

    /// The class probabilities of a batch of images that went through [`transforms`](Self::transforms): softmax of the logits over the
    /// file's temperature. Batch norm is folded into the convolutions before it.
    ///
    /// # Shapes
    /// `[N, 3, H, W]` → N rows of `num_classes` numbers that sum to 1.
    ///
    /// # Errors
    /// Where the model fails.
    pub fn probabilities(&self, images: &Tensor) -> Result<Vec<Vec<f32>>> {
        probabilities(self.model(), images, temperature(&self.info))
    }

    /// Where in an image that went through [`transforms`](Self::transforms) the network finds the evidence for its classes.
    ///
    /// # Shapes
    /// `image [1, 3, H, W]`.
    ///
    /// # Errors
    /// Those of [`GradCam::new`].
    pub fn grad_cam(&self, image: &Tensor) -> Result<GradCam> {
        GradCam::new(self.model(), image)
    }
}

/// What a file's logits are divided by: 1 where it does not say.
pub fn temperature(info: &ModelInfo) -> f64 {
    info.temperature.unwrap_or(1.0)
}

/// The evaluation transforms that weights were saved with; `None` where they are the reference's, which leave the size alone.
///
/// # Errors
/// [`Error::InvalidTransforms`].
pub fn described_transforms(info: &ModelInfo) -> Result<Option<Vec<TransformSpec>>> {
    let specs = info.transforms.clone().map(serde_json::from_value).transpose();
    specs.map_err(|source| Error::InvalidTransforms { source })
}

/// Softmax of a model's logits over a temperature.
///
/// # Shapes
/// `[N, 3, H, W]` → N rows of `num_classes` numbers that sum to 1.
///
/// # Errors
/// Where the model fails.
pub fn probabilities(model: &dyn Model, images: &Tensor, temperature: f64) -> Result<Vec<Vec<f32>>> {
    let logits = model.forward(images, Mode::Eval)?.detach();
    let probabilities = candle_nn::ops::softmax(&(logits / temperature)?, D::Minus1)?;
    Ok(probabilities
        .to_dtype(DType::F32)?
        .to_device(&Device::Cpu)?
        .to_vec2::<f32>()?)
}

/// The `k` most likely classes of a row of probabilities with their probabilities, the likeliest first; of equal ones the
/// lowest class. All, if there are no more than `k`.
pub fn top_k(row: &[f32], k: usize) -> Vec<(usize, f32)> {
    let mut classes: Vec<(usize, f32)> = row.iter().copied().enumerate().collect();
    // A stable sort: equal ones stay in the order of their classes.
    classes.sort_by(|a, b| b.1.total_cmp(&a.1));
    classes.truncate(k);
    classes
}

#[cfg(test)]
mod tests {
    use kestrel_models::{CnnConfig, ModelConfig};

    use super::*;

    fn info() -> ModelInfo {
        ModelInfo {
            model: ModelConfig::Cnn(CnnConfig {
                width: 1,
                ..CnnConfig::new(2)
            }),
            classes: vec!["a".into(), "b".into()],
            mean: [0.5; 3],
            std: [0.25; 3],
            transforms: None,
            temperature: None,
        }
    }

    fn predictor(info: ModelInfo) -> Predictor {
        let model = info.model.build(3, DType::F32, &Device::Cpu).unwrap();
        Predictor { model, info }
    }

    #[test]
    fn the_likeliest_come_first_and_ties_in_order() {
        assert_eq!(top_k(&[0.2, 0.4, 0.4, 0.0], 3), [(1, 0.4), (2, 0.4), (0, 0.2)]);
        assert_eq!(top_k(&[1.0], 5).len(), 1);
    }

    #[test]
    fn a_higher_temperature_is_less_sure_of_the_same_class() {
        let images = Tensor::ones((1, 3, 32, 32), DType::F32, &Device::Cpu).unwrap();
        let at = |temperature| {
            let info = ModelInfo { temperature, ..info() };
            let row = predictor(info).probabilities(&images).unwrap().remove(0);
            assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-6);
            top_k(&row, 1)[0]
        };
        let (plain, cool, hot) = (at(None), at(Some(0.5)), at(Some(2.0)));
        assert_eq!(plain, at(Some(1.0)));
        assert!(
            cool.0 == plain.0 && hot.0 == plain.0,
            "the class must not depend on the temperature"
        );
        assert!(cool.1 > plain.1 && hot.1 < plain.1, "{cool:?} {plain:?} {hot:?}");
    }

    #[test]
    fn pictures_of_any_size_come_to_the_networks() {
        let named = |predictor: &Predictor| -> Vec<String> {
            let specs = predictor.transforms().unwrap().specs();
            let name = |spec| serde_json::to_value(spec).unwrap()["name"].as_str().unwrap().to_owned();
            specs.iter().map(name).collect()
        };
        let want = ["Resize", "CenterCrop", "ToTensor", "Normalize"];
        assert_eq!(named(&predictor(info())), want);
        let normalize = r#"{"name": "Normalize", "mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2]}"#;
        for (given, want) in [
            (format!(r#"[{{"name": "ToTensor"}}, {normalize}]"#), &want[..]),
            (
                format!(r#"[{{"name": "Resize", "size": [32, 32]}}, {{"name": "ToTensor"}}, {normalize}]"#),
                &["Resize", "ToTensor", "Normalize"][..],
            ),
        ] {
            let transforms = Some(serde_json::from_str(&given).unwrap());
            assert_eq!(named(&predictor(ModelInfo { transforms, ..info() })), want);
        }
        let transforms = Some(serde_json::json!([{ "name": "Sharpen" }]));
        let error = predictor(ModelInfo { transforms, ..info() }).transforms().unwrap_err();
        assert!(error.to_string().contains("Sharpen"), "{error}");
    }
}
