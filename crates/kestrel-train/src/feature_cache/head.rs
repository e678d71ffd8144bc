//! A model's last layer as a model.

use std::sync::Arc;

use candle_core::Tensor;
use kestrel_models::{LayerGroup, Mode, Model, Params, Result};

/// The last layer of a model, as a model whose images are the features `[N, F]` before that layer. Its parameters are the
/// whole model's.
pub struct Head(Arc<dyn Model>);

impl Head {
    /// The head of `model`.
    pub fn new(model: Arc<dyn Model>) -> Self {
        Self(model)
    }
}

impl Model for Head {
    fn forward(&self, features: &Tensor, mode: Mode) -> Result<Tensor> {
        self.0.classify(features, mode)
    }

    fn features(&self, features: &Tensor, _mode: Mode) -> Result<Tensor> {
        Ok(features.clone())
    }

    fn classify(&self, features: &Tensor, mode: Mode) -> Result<Tensor> {
        self.0.classify(features, mode)
    }

    fn can_be_recorded(&self) -> bool {
        self.0.can_be_recorded()
    }

    fn params(&self) -> &Params {
        self.0.params()
    }

    fn layer_groups(&self) -> Vec<LayerGroup> {
        self.0.layer_groups()
    }

    fn head(&self) -> &'static str {
        self.0.head()
    }

    fn num_classes(&self) -> usize {
        self.0.num_classes()
    }
}
