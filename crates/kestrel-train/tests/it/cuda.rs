//! Training on a GPU: passes that are recorded against passes that are launched, and numbers that are read later.
//!
//! Without a device every test says that it was skipped; `KESTREL_REQUIRE_CUDA=1` makes that a failure.

use std::sync::{Mutex, MutexGuard, PoisonError};

use candle_core::{DType, Device, Tensor};
use kestrel_kernels::autocast::Precision;
use kestrel_kernels::update::AdamConfig;
use kestrel_models::{Mode, Model, Params};
use kestrel_train::loss::{CrossEntropyLoss, FocalLoss, Loss, Targets};
use kestrel_train::optim::{Adam, Optimizer};
use kestrel_train::{Recorder, TrainPass, Trainer, TrainerConfig};

use crate::toy_run::{info, loader};

/// Epochs of three batches of one size and a smaller one: enough to warm up, to record, and to replay.
const EPOCHS: usize = 6;

/// The device, for one test at a time: a recording would take up what other tests launch.
fn device() -> Option<(Device, MutexGuard<'static, ()>)> {
    static ALONE: Mutex<()> = Mutex::new(());
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    match kestrel_kernels::cuda::device(0) {
        Ok(device) => Some((device, alone)),
        Err(error) if std::env::var_os("KESTREL_REQUIRE_CUDA").is_none() => {
            eprintln!("skipped: no CUDA device ({error})");
            None
        }
        Err(error) => panic!("KESTREL_REQUIRE_CUDA is set, and there is no device: {error}"),
    }
}

fn model_on(device: &Device) -> Box<dyn Model> {
    info(2).model.build(5, DType::F32, device).unwrap()
}

fn adam_of(model: &dyn Model) -> Adam {
    Adam::new(model.params().trainable(), AdamConfig::default()).unwrap()
}

/// Every parameter and running statistic, by name.
fn bits_of(params: &Params) -> Vec<(String, Vec<u32>)> {
    let floats = params.state_dict().unwrap().into_iter();
    floats
        .filter(|(_, tensor)| tensor.dtype() == DType::F32)
        .map(|(name, tensor)| {
            let values = tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            (name, values.into_iter().map(f32::to_bits).collect())
        })
        .collect()
}

/// What training came to: each loss, and the weights.
type Trained = (Vec<u64>, Vec<(String, Vec<u32>)>);

/// Trains by passes, through a recorder if one is given.
fn by_passes(
    device: &Device,
    model: &dyn Model,
    loss: &dyn Loss,
    precision: Precision,
    mut recorder: Option<&mut Recorder>,
) -> Trained {
    let mut adam = adam_of(model);
    let loader = loader(1, 27, true).to_device(device);
    let mut losses = Vec::new();
    for epoch in 0..EPOCHS as u64 {
        for batch in loader.epoch(epoch) {
            let batch = batch.unwrap();
            let pass = TrainPass {
                model,
                loss,
                precision,
                images: &batch.images,
                targets: Targets::of(&batch),
                mode: Mode::Train {
                    seed: 5,
                    step: losses.len() as u64,
                },
            };
            let made = match &mut recorder {
                Some(recorder) => recorder.forward_backward(pass),
                None => pass.forward_backward(),
            };
            let made = made.unwrap();
            let loss = made.loss.to_dtype(DType::F64).unwrap().to_scalar::<f64>().unwrap();
            losses.push(loss.to_bits());
            adam.step(&made.grads).unwrap();
        }
    }
    (losses, bits_of(model.params()))
}

#[test]
fn cuda_recorded_passes_give_the_bits_of_launched_ones() {
    let Some((device, _alone)) = device() else { return };
    let loss = CrossEntropyLoss::new(0.1, Some(vec![1.0, 0.5, 2.0])).unwrap();
    for precision in [Precision::F32, Precision::Bf16, Precision::F16] {
        let launched = by_passes(&device, model_on(&device).as_ref(), &loss, precision, None);
        let mut recorder = Recorder::default();
        let model = model_on(&device);
        let recorded = by_passes(&device, model.as_ref(), &loss, precision, Some(&mut recorder));
        // The launches of so small a net take far longer than its work.
        assert!(recorder.is_recorded(), "{precision}");
        assert!(recorded == launched, "{precision}");
    }
}

/// A model that does not say whether it can be recorded.
struct Silent(Box<dyn Model>);

impl Model for Silent {
    fn forward(&self, images: &Tensor, mode: Mode) -> kestrel_models::Result<Tensor> {
        self.0.forward(images, mode)
    }

    fn params(&self) -> &Params {
        self.0.params()
    }

    fn num_classes(&self) -> usize {
        self.0.num_classes()
    }
}

#[test]
fn cuda_only_what_says_that_it_can_be_is_recorded() {
    let Some((device, _alone)) = device() else { return };
    let (cross_entropy, focal) = (CrossEntropyLoss::default(), FocalLoss::new(2.0, None).unwrap());
    let (own, silent) = (model_on(&device), Silent(model_on(&device)));
    let cases: [(&dyn Model, &dyn Loss); 2] = [(own.as_ref(), &focal), (&silent, &cross_entropy)];
    for (model, loss) in cases {
        let mut recorder = Recorder::default();
        by_passes(&device, model, loss, Precision::F32, Some(&mut recorder));
        assert!(!recorder.is_recorded());
    }
}

#[test]
fn cuda_numbers_that_are_read_later_change_nothing() {
    let Some((device, _alone)) = device() else { return };
    let losses: [fn() -> Box<dyn Loss>; 2] = [
        || Box::new(CrossEntropyLoss::default()),
        || Box::new(FocalLoss::new(2.0, None).unwrap()),
    ];
    for (i, loss) in losses.into_iter().enumerate() {
        let run = |deferred: bool| -> Trained {
            let model = model_on(&device);
            let adam = adam_of(model.as_ref());
            let config = TrainerConfig {
                epochs: EPOCHS,
                log_every: 3,
                seed: 5,
            };
            let mut trainer = Trainer::new(model, Box::new(adam), None, config)
                .with_loss(loss())
                .with_deferred_reads(deferred);
            let [train, val] = [(1, 27, true), (2, 9, false)].map(|(seed, n, train)| loader(seed, n, train));
            trainer
                .fit(&train.to_device(&device), &val.to_device(&device), &mut [])
                .unwrap();
            let epochs = trainer.progress().history.iter();
            let numbers = epochs.flat_map(|epoch| [epoch.train_loss, epoch.train_accuracy, epoch.val_loss]);
            (numbers.map(f64::to_bits).collect(), bits_of(trainer.model().params()))
        };
        assert!(run(true) == run(false), "loss {i}");
    }
}
