//! Image folders that are decoded as a batch is made: images of many sizes, damaged ones, and faults while decoding.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};
use kestrel_data::datasets::{self, ImageFolder, Opened};
use kestrel_data::loader::{Batch, DataLoader, LoaderConfig};
use kestrel_data::pixels::{Image, Region};
use kestrel_data::transforms::{Compose, MixUp, RandomResizedCrop, Transform};
use kestrel_data::{BadSamplePolicy, Dataset, Error, OnBadSample, Result};
use kestrel_kernels::random::KeyedRng;

/// Writes an image of one colour.
fn write(path: &Path, (width, height): (u32, u32), value: u8) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let pixels = vec![value; (3 * width * height) as usize];
    let mut file = Vec::new();
    let encoded = if path.extension().unwrap() == "png" {
        PngEncoder::new(&mut file).write_image(&pixels, width, height, ExtendedColorType::Rgb8)
    } else {
        JpegEncoder::new_with_quality(&mut file, 100).write_image(&pixels, width, height, ExtendedColorType::Rgb8)
    };
    encoded.unwrap();
    fs::write(path, file).unwrap();
}

/// Eight images in each of two classes, no two of one size.
fn mixed_sizes(root: &Path) {
    for index in 0..16_u32 {
        let class = if index < 8 { "a" } else { "b" };
        let ending = if index % 2 == 0 { "jpg" } else { "png" };
        let path = root.join(class).join(format!("{index:02}.{ending}"));
        write(&path, (9 + 3 * index, 70 - 2 * index), 10 * index as u8);
    }
}

fn config(batch_size: usize, threads: usize) -> LoaderConfig {
    LoaderConfig {
        batch_size,
        threads,
        ..LoaderConfig::default()
    }
}

fn batches(loader: &DataLoader) -> Result<Vec<Batch>> {
    loader.epoch(0).collect()
}

fn values(batch: &Batch) -> Vec<f32> {
    let images = (batch.images.affine(255.0, 0.0)).unwrap();
    images.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn images_of_many_sizes_become_batches_of_one() {
    let temp = tempfile::tempdir().unwrap();
    for split in ["train", "test"] {
        mixed_sizes(&temp.path().join(split));
    }
    let Some(Opened::Splits(splits)) = datasets::open_undecoded(temp.path()).unwrap() else {
        panic!("the folder has splits");
    };
    let crop = || Compose::new().then(RandomResizedCrop::new(6));
    let run = |threads| {
        let loader = DataLoader::new(Arc::clone(&splits.train), crop(), config(5, threads)).unwrap();
        assert_eq!(loader.image_shape(), [3, 6, 6]);
        batches(&loader).unwrap()
    };
    let straight = run(1);
    let sizes: Vec<usize> = straight.iter().map(Batch::len).collect();
    assert_eq!(sizes, [5, 5, 5, 1]);
    for batch in &straight {
        for (image, &index) in values(batch).chunks_exact(3 * 36).zip(&batch.indices) {
            // JPEG may be off by one.
            assert!(
                image.iter().all(|value| (value - 10.0 * index as f32).abs() < 1.5),
                "{index}: {image:?}"
            );
        }
    }
    for (a, b) in straight.iter().zip(run(3)) {
        assert!(values(a) == values(&b) && a.indices == b.indices);
    }
}

#[test]
fn images_of_many_sizes_are_refused_where_nothing_makes_them_one() {
    let temp = tempfile::tempdir().unwrap();
    mixed_sizes(temp.path());
    let undecoded: Arc<dyn Dataset> = Arc::new(ImageFolder::open(temp.path()).unwrap());
    let loader = DataLoader::new(undecoded, Compose::new(), config(4, 2)).unwrap();
    for error in [
        batches(&loader).unwrap_err(),
        datasets::open_any(temp.path(), BadSamplePolicy::default())
            .err()
            .unwrap(),
    ] {
        let text = error.to_string();
        assert!(
            text.contains("01.png") && text.contains("68x12") && text.contains("70x9"),
            "{text}"
        );
    }
}

#[test]
fn what_lies_in_memory_or_is_no_image_file_is_not_undecoded() {
    let temp = tempfile::tempdir().unwrap();
    assert!(datasets::open_undecoded(temp.path()).unwrap().is_none());
    // CIFAR-10's own folders: 60,000 small images are better kept in memory.
    for class in [
        "airplane",
        "automobile",
        "bird",
        "cat",
        "deer",
        "dog",
        "frog",
        "horse",
        "ship",
        "truck",
    ] {
        for split in ["train", "test"] {
            write(&temp.path().join(split).join(class).join("0.png"), (32, 32), 7);
        }
    }
    assert!(datasets::open_undecoded(temp.path()).unwrap().is_none());
    let opened = datasets::open_any(temp.path(), BadSamplePolicy::default()).unwrap();
    assert!(matches!(opened, Opened::Splits(splits) if splits.train.len() == 10));
}

#[test]
fn mix_up_mixes_the_images_that_are_left_after_skipping() {
    let temp = tempfile::tempdir().unwrap();
    for index in 0..8_u8 {
        let class = if index < 6 { "a" } else { "b" };
        write(
            &temp.path().join(class).join(format!("{index}.png")),
            (4, 4),
            20 * index,
        );
    }
    let bad = temp.path().join("a/5.png");
    let bytes = fs::read(&bad).unwrap();
    fs::write(&bad, &bytes[..bytes.len() / 2]).unwrap();
    let config = LoaderConfig {
        bad_samples: BadSamplePolicy {
            on_bad_sample: OnBadSample::Skip,
            max_bad_fraction: 0.2,
        },
        ..config(4, 2)
    };
    let transforms = Compose::new().then_on_batch(MixUp::new(1.0).unwrap());
    let loader = DataLoader::new(Arc::new(ImageFolder::open(temp.path()).unwrap()), transforms, config).unwrap();
    let batches = batches(&loader).unwrap();
    let batch = &batches[1];
    assert_eq!(batch.indices, [4, 6, 7]);
    assert_eq!(batch.images.dims(), [3, 3, 4, 4]);
    let firsts: Vec<f32> = values(batch).into_iter().step_by(48).collect();
    // x[i] * lam + x[i - 1] * (1 - lam), the first with the last.
    let lam = (firsts[0] - 140.0) / (80.0 - 140.0);
    assert!((0.0..=1.0).contains(&lam), "{firsts:?}");
    assert!(
        (firsts[1] - (120.0 * lam + 80.0 * (1.0 - lam))).abs() < 1e-3,
        "{firsts:?}"
    );
    assert!(
        (firsts[2] - (140.0 * lam + 120.0 * (1.0 - lam))).abs() < 1e-3,
        "{firsts:?}"
    );
    let soft: Vec<Vec<f32>> = batch.soft_targets.as_ref().unwrap().to_vec2().unwrap();
    for (row, want) in soft.iter().zip([[lam, 1.0 - lam], [1.0 - lam, lam], [0.0, 1.0]]) {
        assert!(
            row.len() == 2 && row.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-5),
            "{soft:?} {lam}"
        );
    }
    assert_eq!(loader.num_bad_samples(), 1);
}

/// Panics where it is asked which part of an image of this width it looks at.
#[derive(Debug)]
struct PanicsAtWidth(usize);

impl Transform for PanicsAtWidth {
    fn apply(&self, _image: &mut Image<'_>, _rng: &mut KeyedRng) -> Result<()> {
        Ok(())
    }

    fn region(&self, _height: usize, width: usize, _rng: &mut KeyedRng) -> Option<Region> {
        assert!(width != self.0, "no region");
        None
    }

    fn name(&self) -> &'static str {
        "PanicsAtWidth"
    }
}

#[test]
fn a_panic_in_the_choice_of_a_part_names_the_sample_and_nothing_hangs() {
    let temp = tempfile::tempdir().unwrap();
    mixed_sizes(temp.path());
    // A JPEG, of which a part can be decoded, and the sample that the loader learns the size from.
    for index in [10, 0] {
        let dataset = ImageFolder::open(temp.path()).unwrap();
        let (sender, receiver) = channel();
        std::thread::spawn(move || {
            let transforms = Compose::new()
                .then(PanicsAtWidth(9 + 3 * index))
                .then(RandomResizedCrop::new(6));
            let made = DataLoader::new(Arc::new(dataset), transforms, config(4, 2));
            sender.send(made.and_then(|loader| batches(&loader)).err())
        });
        let error = receiver.recv_timeout(Duration::from_secs(5)).expect("it hangs");
        let error = error.expect("an error");
        assert!(
            matches!(&error, Error::Panicked { index: at, message, .. } if *at == index && message.contains("no region")),
            "{error}"
        );
    }
}
