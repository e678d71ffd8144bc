//! Image classifiers on candle with PyTorch's parameter names, initialisation and numbers.
//!
//! ```
//! use candle_core::{DType, Device, Tensor};
//! use kestrel_models::{CnnConfig, Mode, ModelConfig};
//!
//! # fn main() -> Result<(), kestrel_models::Error> {
//! let config = ModelConfig::Cnn(CnnConfig { width: 8, ..CnnConfig::new(10) });
//! let model = config.build(0, DType::F32, &Device::Cpu)?;
//! let images = Tensor::zeros((2, 3, 32, 32), DType::F32, &Device::Cpu)?;
//! let logits = model.forward(&images, Mode::Eval)?;
//! assert_eq!(logits.dims(), [2, 10]);
//! # Ok(())
//! # }
//! ```
//!
//! A model is anything that implements [`Model`]; its parameters live in a [`Params`] store under the names of
//! PyTorch's state dict, so a weight file needs no mapping. Layers of `candle_nn` can be built on the same store
//! through [`Params::var_builder`].
//!
//! A pretrained [`ResNet`] is fine-tuned by loading it with a new head, and freezing what is not to be trained:
//!
//! ```no_run
//! use candle_core::{DType, Device};
//! use kestrel_models::{Depth, Model, ResNet, ResNetConfig, weights};
//!
//! # fn main() -> Result<(), kestrel_models::Error> {
//! let model = ResNet::new(ResNetConfig::new(Depth::ResNet18, 10), 0, DType::F32, &Device::Cpu)?;
//! let file = weights::load("resnet18-f37072fd.pth".as_ref())?;
//! println!("{}", model.params().load_with_new_head(&file.tensors, model.head())?);
//! model.params().flush_denormal()?; // a CPU multiplies subnormal numbers slowly
//! for module in ["conv1", "bn1", "layer1", "layer2"] {
//!     model.params().freeze(module)?;
//! }
//! # Ok(())
//! # }
//! ```

mod cnn;
mod error;
pub mod graph;
pub mod init;
pub mod layers;
mod model;
pub mod onnx;
mod params;
mod registry;
mod resnet;
pub mod weights;
mod whitened_cnn;

pub use cnn::{Cnn, CnnConfig};
pub use error::{Error, Result, StateDictMismatch};
pub use model::{LayerGroup, Mode, Model};
pub use params::{LoadReport, ParamBuilder, Parameter, Params, Replaced, StateDict, is_buffer};
pub use registry::ModelConfig;
pub use resnet::{Depth, ResNet, ResNetConfig, Stem};
pub use whitened_cnn::{WhitenedCnn, WhitenedCnnConfig};
