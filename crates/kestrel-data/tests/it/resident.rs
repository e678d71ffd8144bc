//! A data set that is kept on a device gives the batches that the host makes, bit for bit. The CPU stands for a device.

use std::sync::Arc;

use candle_core::Device;
use kestrel_data::datasets::{Dataset, InMemory, Subset};
use kestrel_data::loader::{Batch, DataLoader, LoaderConfig, NotResident};
use kestrel_data::transforms::{
    AlternatingHorizontalFlip, CenterCrop, ColorJitter, Compose, CutMix, ErasingValue, MixUp, Noise, Normalize,
    PaddingMode, RandomCrop, RandomErasing, RandomHorizontalFlip, Resize, presets,
};
use kestrel_data::{Error, Result};

const SIDE: usize = 12;

fn images(count: usize) -> Arc<dyn Dataset> {
    let bytes = 0..(count * SIDE * SIDE * 3) as u32;
    let pixels = bytes.map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let labels = (0..count as u32).map(|i| i % 3).collect();
    let classes = ["a", "b", "c"].map(str::to_owned).to_vec();
    Arc::new(InMemory::new(pixels, SIDE, SIDE, labels, classes, "test").unwrap())
}

fn loader(dataset: Arc<dyn Dataset>, transforms: Compose) -> DataLoader {
    let config = LoaderConfig {
        batch_size: 7,
        shuffle: true,
        seed: 3,
        ..LoaderConfig::default()
    };
    DataLoader::new(dataset, transforms, config).unwrap()
}

fn normalized() -> Normalize {
    Normalize::new(presets::CIFAR_MEAN, presets::CIFAR_STD).unwrap()
}

/// Pipelines that a device can run.
fn pipelines() -> Vec<Compose> {
    let erasing = |value| RandomErasing {
        p: 0.7,
        value,
        ..RandomErasing::default()
    };
    vec![
        presets::cifar_train(SIDE).unwrap(),
        presets::cifar_eval().unwrap(),
        Compose::new()
            .then(AlternatingHorizontalFlip)
            .then(RandomCrop::new(SIDE).padding(2).padding_mode(PaddingMode::Reflect))
            .normalize(normalized()),
        Compose::new()
            .then(RandomCrop::new(SIDE + 2).padding(3).fill([7, 99, 255]))
            .then(RandomCrop::new(SIDE).padding(1).padding_mode(PaddingMode::Symmetric))
            .then(RandomHorizontalFlip::new(0.5).unwrap())
            .then(RandomCrop::new(SIDE).padding(1))
            .then_on_tensor(erasing(ErasingValue::Channels([0.5, -1.0, 2.0]))),
        Compose::new()
            .then(Resize::new(SIDE))
            .then(CenterCrop::new(SIDE - 3))
            .normalize(normalized())
            .then_on_tensor(erasing(ErasingValue::Value(0.25))),
    ]
}

fn bits(batch: &Batch) -> Vec<u32> {
    let values = batch.images.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    values.into_iter().map(f32::to_bits).collect()
}

/// Every batch of two epochs, and of one that is entered in its middle.
fn check(host: &DataLoader, resident: &DataLoader) {
    assert!(resident.is_resident() && !host.is_resident());
    assert_eq!(host.image_shape(), resident.image_shape());
    for (epoch, first) in [(0, 0), (1, 0), (5, 2)] {
        let want = host.epoch_from(epoch, first).collect::<Result<Vec<_>>>().unwrap();
        let got = resident.epoch_from(epoch, first).collect::<Result<Vec<_>>>().unwrap();
        assert!(want.len() == got.len() && !want.is_empty());
        for (want, got) in want.iter().zip(&got) {
            assert_eq!(want.indices, got.indices);
            assert_eq!(want.images.dims(), got.images.dims());
            assert_eq!(bits(want), bits(got), "{host:?}, epoch {epoch}");
            let classes = |batch: &Batch| batch.targets.to_vec1::<u32>().unwrap();
            assert_eq!(classes(want), classes(got));
            assert!(got.soft_targets.is_none());
        }
    }
}

#[test]
fn batches_are_the_hosts() {
    for transforms in pipelines() {
        let host = loader(images(24), transforms);
        check(&host, &host.resident_on(&Device::Cpu).unwrap());
    }
}

#[test]
fn a_subset_is_as_good() {
    let some: Arc<dyn Dataset> = Arc::new(
        Subset::new(
            images(24),
            vec![20, 3, 3, 11, 0, 8, 23, 5, 1, 14, 2, 22, 9, 9, 17, 6, 4],
        )
        .unwrap(),
    );
    let host = loader(some, presets::cifar_train(SIDE).unwrap());
    check(&host, &host.resident_on(&Device::Cpu).unwrap());
}

#[test]
fn what_a_device_cannot_do_is_named_at_the_start() {
    let noise = RandomErasing {
        value: ErasingValue::Noise(Noise::Random),
        ..RandomErasing::default()
    };
    let twice = RandomErasing::default();
    for (transforms, name) in [
        (Compose::new().then(ColorJitter::default()), "ColorJitter"),
        (Compose::new().then(Resize::exact(20, 20)), "Resize"),
        (Compose::new().then(CenterCrop::new(SIDE + 1)), "CenterCrop"),
        (Compose::new().then_on_tensor(noise), "RandomErasing"),
        (
            Compose::new().then_on_tensor(twice).then_on_tensor(twice),
            "RandomErasing",
        ),
        (Compose::new().then_on_batch(MixUp::new(1.0).unwrap()), "MixUp"),
        (Compose::new().then_on_batch(CutMix::new(1.0).unwrap()), "CutMix"),
    ] {
        let error = loader(images(24), transforms).resident_on(&Device::Cpu).unwrap_err();
        let step = name.to_owned();
        assert!(
            matches!(&error, Error::NotResident(found) if *found == NotResident::Transform { step: step.clone() }),
            "{name}: {error}"
        );
    }
}
