//! A data set, a network and a callback of one's own, in the trainer: what `Dataset`, `nn.Module` and the lines of a training loop
//! are in PyTorch.
//!
//!     cargo run --release --example own_network

use std::error::Error;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use candle_nn::{Linear, Module, linear};
use kestrel_data::Dataset;
use kestrel_data::fingerprint::{Fingerprint, FingerprintHasher};
use kestrel_data::loader::{DataLoader, LoaderConfig};
use kestrel_data::pixels::Image;
use kestrel_data::transforms::{Compose, Normalize, RandomHorizontalFlip};
use kestrel_kernels::AdamConfig;
use kestrel_kernels::memory::CachingAllocator;
use kestrel_models::{Mode, Model, Params};
use kestrel_train::callback::{Callback, Control, EpochReport, EpochTiming};
use kestrel_train::lr_scheduler::{ReduceLROnPlateau, ReduceLROnPlateauConfig};
use kestrel_train::{Trainer, TrainerConfig, optim::Adam};

/// Keeps a step's large blocks for the next one; the system's allocator gives them back each time.
#[global_allocator]
static ALLOCATOR: CachingAllocator = CachingAllocator::new();

const SIDE: usize = 16;

/// Drawings of discs and of squares, each a function of its index: nothing is stored.
struct Shapes {
    len: usize,
    classes: Vec<String>,
}

impl Shapes {
    fn new(len: usize) -> Self {
        let classes = ["disc", "square"].map(str::to_owned).to_vec();
        Self { len, classes }
    }
}

impl Dataset for Shapes {
    fn len(&self) -> usize {
        self.len
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn label(&self, index: usize) -> u32 {
        (index % 2) as u32
    }

    /// Called from many threads at once; what takes long here, such as decoding, is done for the batches to come.
    fn image(&self, index: usize) -> kestrel_data::Result<Image<'_>> {
        let (centre, radius) = (6 + (index / 2 % 5) as i64, 3 + (index / 10 % 3) as i64);
        let mut pixels = vec![(index % 7 * 10) as u8; SIDE * SIDE * 3];
        for (at, pixel) in pixels.chunks_exact_mut(3).enumerate() {
            let (y, x) = ((at / SIDE) as i64 - centre, (at % SIDE) as i64 - centre);
            let inside = if self.label(index) == 0 {
                y * y + x * x <= radius * radius
            } else {
                y.abs().max(x.abs()) <= radius
            };
            if inside {
                pixel.fill(220);
            }
        }
        Image::new(pixels, SIDE, SIDE)
    }

    fn describe(&self) -> String {
        "drawn shapes".to_owned()
    }

    /// What a checkpoint remembers, so that a run is gone on with on the same images alone.
    fn fingerprint(&self) -> kestrel_data::Result<Fingerprint> {
        let labels = (0..self.len).map(|index| self.label(index));
        Ok(FingerprintHasher::new("shapes", &self.classes, labels).finish())
    }
}

/// Two layers of candle's own. `kestrel-models` has convolutions and batch norms that are many times faster in training than
/// candle's; its example `custom_model` uses them.
struct Mlp {
    params: Params,
    fc1: Linear,
    fc2: Linear,
}

impl Mlp {
    fn new(hidden: usize, num_classes: usize, seed: u64) -> Result<Self, Box<dyn Error>> {
        let params = Params::new(seed);
        // The names under which the weights are saved: those of a PyTorch module with the attributes `fc1` and `fc2`.
        let names = params.var_builder(DType::F32, &Device::Cpu);
        Ok(Self {
            fc1: linear(3 * SIDE * SIDE, hidden, names.pp("fc1"))?,
            fc2: linear(hidden, num_classes, names.pp("fc2"))?,
            params,
        })
    }
}

impl Model for Mlp {
    /// `mode` says whether this is training, for layers that differ, such as dropout; PyTorch keeps that in `model.training`.
    fn forward(&self, images: &Tensor, _mode: Mode) -> kestrel_models::Result<Tensor> {
        let hidden = self.fc1.forward(&images.flatten_from(1)?)?.gelu_erf()?;
        Ok(self.fc2.forward(&hidden)?)
    }

    fn params(&self) -> &Params {
        &self.params
    }

    fn num_classes(&self) -> usize {
        2
    }
}

/// Prints an epoch, and ends the run where nothing is left to learn.
struct UntilPerfect;

impl Callback for UntilPerfect {
    fn on_epoch_end(
        &mut self,
        _trainer: &Trainer,
        report: &EpochReport,
        _timing: &EpochTiming,
    ) -> kestrel_train::Result<Control> {
        println!(
            "epoch {}: loss {:.4}, validation {:.1}%",
            report.epoch,
            report.train_loss,
            100.0 * report.val_accuracy
        );
        Ok(if report.val_accuracy == 1.0 {
            Control::Stop
        } else {
            Control::Continue
        })
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let augment = Compose::new()
        .then(RandomHorizontalFlip::new(0.5)?)
        .normalize(Normalize::new([0.5; 3], [0.25; 3])?);
    let plain = Compose::new().normalize(Normalize::new([0.5; 3], [0.25; 3])?);
    let shuffled = LoaderConfig {
        batch_size: 32,
        shuffle: true,
        ..LoaderConfig::default()
    };
    let train = DataLoader::new(Arc::new(Shapes::new(600)), augment, shuffled)?;
    let val = DataLoader::new(Arc::new(Shapes::new(200)), plain, LoaderConfig::default())?;

    let model = Mlp::new(64, 2, 0)?;
    let adam = Adam::new(model.params().trainable(), AdamConfig::default())?;
    let scheduler = ReduceLROnPlateau::new(ReduceLROnPlateauConfig::default())?;
    let options = TrainerConfig {
        epochs: 40,
        log_every: 0,
        seed: 0,
    };
    let mut trainer = Trainer::new(Box::new(model), Box::new(adam), Some(Box::new(scheduler)), options);
    trainer.fit(&train, &val, &mut [&mut UntilPerfect])?;
    match trainer.progress().best_accuracy {
        Some(best) if best > 0.95 => Ok(()),
        best => Err(format!("it has not learnt shapes: {best:?}").into()),
    }
}

#[test]
fn it_learns() -> Result<(), Box<dyn Error>> {
    main()
}
