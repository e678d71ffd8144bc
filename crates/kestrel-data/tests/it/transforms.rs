//! Transforms: draws, descriptions and a user's own.

use kestrel_data::loader::{DataLoader, LoaderConfig};
use kestrel_data::pixels::{Image, Region};
use kestrel_data::transforms::{
    CenterCrop, ColorJitter, Compose, CutMix, ErasingValue, Factor, InterpolationMode, KeyedRng, MixSpec, MixUp, Noise,
    Normalize, PaddingMode, RandAugment, RandomChoice, RandomCrop, RandomErasing, RandomHorizontalFlip,
    RandomResizedCrop, Resize, SampleKey, Transform, TransformSpec, TrivialAugmentWide, presets,
};
use kestrel_data::{Error, Result};
use kestrel_kernels::random::Purpose;
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

fn rng(index: u64) -> KeyedRng {
    KeyedRng::new(1, Purpose::Transform, 0, index)
}

fn key(index: u64) -> SampleKey {
    SampleKey {
        seed: 1,
        epoch: 0,
        index,
    }
}

#[test]
fn flip_and_crop_draw_uniformly() {
    let train = Compose::new()
        .then(RandomHorizontalFlip::new(0.25).unwrap())
        .then(RandomCrop::new(2).padding(1));
    // Pixel (y, x) is [1, y, x], so that the draw can be read back from the crop.
    let source: Vec<u8> = (0..16).flat_map(|i| [1, i / 4, i % 4]).collect();
    let (mut flips, mut places) = (0, [[0; 5]; 5]);
    let n = 20_000;
    for index in 0..n {
        let mut image = Image::new(source.as_slice(), 4, 4).unwrap();
        train.apply(&mut image, key(index)).unwrap();
        let pixels = image.pixels().into_owned();
        // Where both columns are visible, their order tells the flip.
        if let Some(row) = pixels.chunks_exact(6).find(|row| row[0] == 1 && row[3] == 1) {
            flips += usize::from(row[2] > row[5]);
            let (y, x) = (i32::from(row[1]), i32::from(row[2]));
            let top = if pixels[0] == 1 && pixels[3] == 1 { y + 1 } else { 0 };
            let left = if row[2] > row[5] { 4 - x } else { x + 1 };
            places[top as usize][left as usize] += 1;
        }
    }
    let seen: usize = places.iter().flatten().sum();
    // 15 of 25 places show both columns.
    assert!((seen as f64 / n as f64 - 0.6).abs() < 0.02, "{seen}");
    assert!((flips as f64 / seen as f64 - 0.25).abs() < 0.02, "{flips} of {seen}");
    for row in places {
        for count in &row[1..4] {
            assert!((*count as f64 / n as f64 - 0.04).abs() < 0.006, "{places:?}");
        }
    }
}

/// Half of the images begin mirrored; each is so in every second epoch, and the draws of another seed are others.
#[test]
fn alternating_flip_shows_both_sides_in_two_epochs() {
    let pipeline = |specs: &[TransformSpec]| Compose::from_specs(specs).unwrap();
    let train = pipeline(&[TransformSpec::AlternatingHorizontalFlip, TransformSpec::ToTensor]);
    assert_eq!(pipeline(&train.specs()).specs(), train.specs());
    let mirrored = |seed, epoch, index| {
        let mut image = Image::new(vec![0, 0, 0, 9, 9, 9], 1, 2).unwrap();
        train.apply(&mut image, SampleKey { seed, epoch, index }).unwrap();
        image.pixels()[0] == 9
    };
    let first: Vec<bool> = (0..4000).map(|index| mirrored(1, 0, index)).collect();
    let count = first.iter().filter(|mirrored| **mirrored).count();
    assert!((1900..2100).contains(&count), "{count}");
    for epoch in 1..5 {
        for (index, first) in first.iter().enumerate() {
            assert_eq!(mirrored(1, epoch, index as u64), *first ^ (epoch % 2 == 1));
        }
    }
    let others = (0..4000).filter(|index| mirrored(2, 0, *index) != first[*index as usize]);
    assert!(others.count() > 1900);
}

#[test]
fn crop_that_does_not_fit_is_an_error() {
    let mut image = Image::new(vec![0; 27], 3, 3).unwrap();
    let error = RandomCrop::new(6)
        .padding(1)
        .apply(&mut image, &mut rng(0))
        .unwrap_err();
    assert!(matches!(
        error,
        Error::CropTooLarge {
            crop: (6, 6),
            image: (5, 5)
        }
    ));
    assert!(matches!(
        RandomCrop::new(0).apply(&mut image, &mut rng(0)),
        Err(Error::InvalidParameter { .. })
    ));
    let huge = RandomCrop::new(2).padding(usize::MAX);
    assert!(matches!(
        huge.apply(&mut image, &mut rng(0)),
        Err(Error::InvalidParameter { .. })
    ));
}

proptest! {
    #[test]
    fn crop_always_has_its_size(h in 1usize..40, w in 1usize..40, size in 1usize..40, padding in 0usize..6, index: u64) {
        let mut image = Image::new(vec![9; h * w * 3], h, w).unwrap();
        let fits = h + 2 * padding >= size && w + 2 * padding >= size;
        let applied = RandomCrop::new(size).padding(padding).apply(&mut image, &mut rng(index));
        prop_assert_eq!(applied.is_ok(), fits);
        if fits {
            prop_assert_eq!((image.height(), image.width()), (size, size));
            let mut out = vec![f32::NAN; 3 * size * size];
            Compose::new().write(&image, &mut out).unwrap();
            let pixels = image.pixels();
            for (i, pixel) in pixels.chunks_exact(3).enumerate() {
                for channel in 0..3 {
                    prop_assert_eq!(out[channel * size * size + i], f32::from(pixel[channel]) / 255.0);
                }
            }
        }
    }
}

#[test]
fn parameters_are_checked() {
    for p in [-0.1, 1.1, f32::NAN] {
        assert!(matches!(
            RandomHorizontalFlip::new(p),
            Err(Error::InvalidParameter { .. })
        ));
    }
    assert!(Normalize::new([0.0; 3], [1.0, 0.0, 1.0]).is_err());
    assert!(Normalize::new([f32::INFINITY; 3], [1.0; 3]).is_err());
    let image = Image::new(vec![0; 12], 2, 2).unwrap();
    assert!(matches!(
        Compose::new().write(&image, &mut [0.0; 11]),
        Err(Error::PixelCount {
            expected: 12,
            got: 11,
            ..
        })
    ));
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Config {
    transforms: Vec<TransformSpec>,
}

#[test]
fn descriptions_round_trip_through_toml() {
    let train = presets::cifar_train(32).unwrap();
    let config = Config {
        transforms: train.specs(),
    };
    let text = toml::to_string(&config).unwrap();
    let read: Config = toml::from_str(&text).unwrap();
    assert_eq!(read, config, "{text}");
    assert_eq!(
        Compose::from_specs(&read.transforms).unwrap().specs(),
        config.transforms
    );

    let written = "transforms = [{ name = \"RandomCrop\", size = 32, padding = 4 }, { name = \"ToTensor\" }]";
    let read: Config = toml::from_str(written).unwrap();
    assert_eq!(
        read.transforms[0],
        TransformSpec::RandomCrop(RandomCrop::new(32).padding(4))
    );
    assert!(toml::from_str::<Config>("transforms = [{ name = \"RandomCrop\", sise = 32 }]").is_err());
}

#[test]
fn misplaced_steps_are_refused() {
    let crop = || TransformSpec::RandomCrop(RandomCrop::new(2));
    let normalize = || TransformSpec::Normalize(Normalize::new([0.5; 3], [0.5; 3]).unwrap());
    for specs in [
        vec![],
        vec![crop()],
        vec![TransformSpec::ToTensor, crop()],
        vec![normalize(), TransformSpec::ToTensor],
        vec![TransformSpec::ToTensor, TransformSpec::ToTensor],
        vec![TransformSpec::ToTensor, normalize(), normalize()],
        vec![
            TransformSpec::Custom {
                description: "mine".into(),
            },
            TransformSpec::ToTensor,
        ],
    ] {
        assert!(
            matches!(Compose::from_specs(&specs), Err(Error::InvalidParameter { .. })),
            "{specs:?}"
        );
    }
}

/// A user's own transform, which changes pixels.
#[derive(Debug)]
struct Invert;

impl Transform for Invert {
    fn apply(&self, image: &mut Image<'_>, _rng: &mut KeyedRng) -> Result<()> {
        image.pixels_mut().iter_mut().for_each(|value| *value = 255 - *value);
        Ok(())
    }

    fn name(&self) -> &'static str {
        "Invert"
    }
}

#[test]
fn users_transform_runs_between_others() {
    let compose = Compose::new()
        .then(RandomCrop::new(3).padding(1))
        .then(Invert)
        .then(RandomCrop::new(3));
    let mut image = Image::new(vec![255; 3], 1, 1).unwrap();
    compose.apply(&mut image, key(0)).unwrap();
    let mut out = vec![0.0; 27];
    compose.write(&image, &mut out).unwrap();
    assert_eq!(out.iter().filter(|&&value| value == 0.0).count(), 3);
    assert_eq!(
        compose.specs()[1],
        TransformSpec::Custom {
            description: "Invert".into()
        }
    );
}

/// Every random transform, one after another.
fn everything() -> Compose {
    let jitter = ColorJitter {
        brightness: Some(Factor::Around(0.4)),
        contrast: Some(Factor::Between([0.5, 1.5])),
        saturation: Some(Factor::Around(0.4)),
        hue: Some(Factor::Around(0.1)),
    };
    let mix = RandomChoice::new(vec![
        MixSpec::MixUp(MixUp::new(0.2).unwrap()),
        MixSpec::CutMix(CutMix::new(1.0).unwrap()),
    ]);
    Compose::new()
        .then(RandomResizedCrop::new(40).interpolation(InterpolationMode::Bicubic))
        .then(RandomHorizontalFlip::new(0.5).unwrap())
        .then(jitter)
        .then(RandAugment::default())
        .then(TrivialAugmentWide::default())
        .then(Resize::exact(36, 34))
        .then(CenterCrop::new(32))
        .then(RandomCrop::new(32).padding(4).padding_mode(PaddingMode::Reflect))
        .normalize(Normalize::new([0.5; 3], [0.25; 3]).unwrap())
        .then_on_tensor(RandomErasing {
            value: ErasingValue::Noise(Noise::Random),
            ..RandomErasing::default()
        })
        .then_on_batch(mix.unwrap())
}

#[test]
fn every_description_round_trips_and_builds_the_same_pipeline() {
    let specs = everything().specs();
    assert_eq!(specs.len(), 12);
    let text = toml::to_string(&Config {
        transforms: specs.clone(),
    })
    .unwrap();
    let read: Config = toml::from_str(&text).unwrap();
    assert_eq!(read.transforms, specs, "{text}");
    assert_eq!(Compose::from_specs(&read.transforms).unwrap().specs(), specs);
}

#[test]
fn parameters_out_of_range_are_refused() {
    for bad in [
        r#"{ name = "Resize", size = 0 }"#,
        r#"{ name = "Resize", size = [3, 70000] }"#,
        r#"{ name = "CenterCrop", size = 0 }"#,
        r#"{ name = "RandomResizedCrop", size = 8, scale = [0.5, 0.1] }"#,
        r#"{ name = "RandomResizedCrop", size = 8, ratio = [0.0, 1.0] }"#,
        r#"{ name = "ColorJitter", hue = 0.6 }"#,
        r#"{ name = "ColorJitter", brightness = [-1.0, 1.0] }"#,
        r#"{ name = "RandAugment", magnitude = 31 }"#,
        r#"{ name = "TrivialAugmentWide", num_magnitude_bins = 1 }"#,
    ] {
        let read: Config = toml::from_str(&format!("transforms = [{bad}, {{ name = \"ToTensor\" }}]")).unwrap();
        assert!(
            matches!(
                Compose::from_specs(&read.transforms),
                Err(Error::InvalidParameter { .. })
            ),
            "{bad}"
        );
    }
    for bad in [
        r#"{ name = "RandomErasing", p = 1.5 }"#,
        r#"{ name = "RandomErasing", scale = [0.5, 2.0] }"#,
        r#"{ name = "MixUp", alpha = 0.0 }"#,
        r#"{ name = "RandomChoice", transforms = [] }"#,
    ] {
        let read: Config = toml::from_str(&format!("transforms = [{{ name = \"ToTensor\" }}, {bad}]")).unwrap();
        assert!(
            matches!(
                Compose::from_specs(&read.transforms),
                Err(Error::InvalidParameter { .. })
            ),
            "{bad}"
        );
    }
}

#[test]
fn an_added_step_leaves_the_draws_of_the_others() {
    let draw = |compose: Compose, index| {
        let mut image = Image::new((0..=191).collect::<Vec<u8>>(), 8, 8).unwrap();
        compose.apply(&mut image, key(index)).unwrap();
        image.pixels().into_owned()
    };
    let crop = || RandomCrop::new(8).padding(3);
    let mut differ = 0;
    for index in 0..50 {
        let alone = draw(Compose::new().then(crop()), index);
        // A flip that never happens draws all the same.
        let after = draw(
            Compose::new()
                .then(RandomHorizontalFlip::new(0.0).unwrap())
                .then(crop()),
            index,
        );
        let before = draw(
            Compose::new()
                .then(crop())
                .then(RandomHorizontalFlip::new(0.0).unwrap()),
            index,
        );
        assert!(alone == after && alone == before, "{index}");
        // Two of one name draw apart.
        let flips = Compose::new()
            .then(RandomHorizontalFlip::new(0.5).unwrap())
            .then(RandomHorizontalFlip::new(0.5).unwrap());
        let source: Vec<u8> = (0..=191).collect();
        differ += usize::from(draw(flips, index) != source);
    }
    assert!((10..=40).contains(&differ), "{differ} of 50 pairs of flips differ");
}

#[test]
fn random_resized_crop_draws_as_torchvision_does() {
    let crop = RandomResizedCrop::new(8);
    let (height, width) = (300, 500);
    let mut rng = rng(0);
    let n = 4000;
    let (mut area, mut log_ratio, mut top, mut free) = (0.0, 0.0, 0.0, 0.0);
    for _ in 0..n {
        let part = crop.draw(height, width, &mut rng);
        assert!(part.top + part.height <= height && part.left + part.width <= width);
        let share = (part.height * part.width) as f64 / (height * width) as f64;
        let ratio = part.width as f64 / part.height as f64;
        assert!(
            (0.075..=1.0).contains(&share) && (0.74..=1.35).contains(&ratio),
            "{part:?}"
        );
        area += share;
        log_ratio += ratio.ln();
        if part.height < height {
            top += part.top as f64 / (height - part.height) as f64;
            free += 1.0;
        }
    }
    // 6000 draws of torchvision's get_params have a mean share of 0.355 and a mean logarithm of 0.034 here: the largest parts
    // do not fit and are drawn again.
    let (area, log_ratio) = (area / f64::from(n), log_ratio / f64::from(n));
    assert!((area - 0.355).abs() < 0.012, "{area}");
    assert!((log_ratio - 0.034).abs() < 0.02, "{log_ratio}");
    assert!((top / free - 0.5).abs() < 0.03, "{top} of {free}");
}

#[test]
fn a_part_that_never_fits_is_the_middle() {
    let strip = RandomResizedCrop::new(8).scale([0.9, 1.0]);
    let mut rng = rng(0);
    let wide = strip.draw(10, 100, &mut rng);
    assert_eq!(
        wide,
        Region {
            top: 0,
            left: 43,
            height: 10,
            width: 13
        }
    );
    let tall = strip.draw(100, 10, &mut rng);
    assert_eq!(
        tall,
        Region {
            top: 43,
            left: 0,
            height: 13,
            width: 10
        }
    );
}

#[test]
fn erasing_happens_as_often_and_as_large_as_asked() {
    let erasing = RandomErasing {
        p: 0.25,
        value: ErasingValue::Value(1.0),
        ..RandomErasing::default()
    };
    let compose = Compose::new().then_on_tensor(erasing);
    let (mut erased, mut share) = (0, 0.0);
    for index in 0..4000 {
        let mut image = vec![0.0; 3 * 20 * 30];
        compose.apply_to_tensor(&mut image, (20, 30), key(index)).unwrap();
        let ones = image.iter().filter(|&&value| value == 1.0).count();
        erased += usize::from(ones > 0);
        share += ones as f64 / image.len() as f64;
    }
    assert!((f64::from(erased as u32) / 4000.0 - 0.25).abs() < 0.03, "{erased}");
    // Evenly from 0.02 to 0.33, less those that do not fit.
    let mean = share / f64::from(erased as u32);
    assert!((0.13..0.2).contains(&mean), "{mean}");
}

#[test]
fn color_jitter_draws_within_its_ranges_in_any_order() {
    let jitter = ColorJitter {
        brightness: Some(Factor::Around(1.5)),
        contrast: Some(Factor::Between([0.5, 0.75])),
        saturation: Some(Factor::Around(0.0)),
        hue: Some(Factor::Around(0.2)),
    };
    let mut orders = std::collections::BTreeSet::new();
    let mut brightness = 0.0;
    for index in 0..500 {
        let draw = jitter.draw(&mut rng(index));
        orders.insert(draw.order);
        let [Some(b), Some(c), None, Some(h)] = draw.factors else {
            panic!("{draw:?}")
        };
        assert!((0.0..2.5).contains(&b) && (0.5..0.75).contains(&c) && (-0.2..0.2).contains(&h));
        brightness += b;
    }
    assert_eq!(orders.len(), 24);
    assert!((brightness / 500.0 - 1.25).abs() < 0.1);
}

#[test]
fn mixing_keeps_probabilities_and_draws_from_beta() {
    for (alpha, variance) in [(1.0, 1.0 / 12.0), (0.2, 0.25 / 1.4), (4.0, 0.25 / 9.0)] {
        let compose = Compose::new().then_on_batch(MixUp::new(alpha).unwrap());
        let (mut sum, mut squares) = (0.0, 0.0);
        let n = 4000;
        for index in 0..n {
            let (mut images, mut targets) = (vec![0.0, 1.0], vec![1.0, 0.0, 0.0, 1.0]);
            compose
                .apply_to_batch(&mut images, [2, 1, 1, 1], &mut targets, key(index))
                .unwrap();
            let lam = f64::from(targets[0]);
            assert!((targets[0] + targets[1] - 1.0).abs() < 1e-6);
            assert!((images[0] + images[1] - 1.0).abs() < 1e-6 && (f64::from(images[1]) - lam).abs() < 1e-6);
            sum += lam;
            squares += lam * lam;
        }
        let mean = sum / n as f64;
        let got = squares / n as f64 - mean * mean;
        assert!(
            (mean - 0.5).abs() < 0.03 && (got / variance - 1.0).abs() < 0.1,
            "{alpha}: {mean} {got}"
        );
    }
}

#[test]
fn augmentations_draw_every_operation_and_keep_the_size() {
    for compose in [
        Compose::new().then(RandAugment::default()),
        Compose::new().then(TrivialAugmentWide::default()),
    ] {
        let source: Vec<u8> = (0..12 * 9 * 3).map(|i: u32| (i * 37 % 251) as u8).collect();
        let mut results = std::collections::BTreeSet::new();
        for index in 0..300 {
            let mut image = Image::new(source.as_slice(), 12, 9).unwrap();
            compose.apply(&mut image, key(index)).unwrap();
            assert_eq!((image.height(), image.width()), (12, 9));
            results.insert(image.pixels().into_owned());
        }
        assert!(results.len() > 100, "{}", results.len());
    }
}

#[test]
fn batches_of_every_transform_do_not_depend_on_threads_or_on_the_start() {
    let test = kestrel_data::datasets::sample::load().unwrap().test;
    let test: std::sync::Arc<dyn kestrel_data::Dataset> = std::sync::Arc::new(
        kestrel_data::split::limit(&(test as std::sync::Arc<dyn kestrel_data::Dataset>), 200).unwrap(),
    );
    let run = |threads, prefetch, first| {
        let config = LoaderConfig {
            batch_size: 48,
            shuffle: true,
            seed: 5,
            prefetch,
            threads,
            ..LoaderConfig::default()
        };
        let loader = DataLoader::new(test.clone(), everything(), config).unwrap();
        let batches = loader.epoch_from(3, first).map(|batch| {
            let batch = batch.unwrap();
            let bits = |tensor: &candle_core::Tensor| -> Vec<u32> {
                let values = tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                values.into_iter().map(f32::to_bits).collect()
            };
            let soft = batch.soft_targets.unwrap();
            assert_eq!(soft.dims(), [batch.indices.len(), 10]);
            (bits(&batch.images), bits(&soft), batch.indices)
        });
        batches.collect::<Vec<_>>()
    };
    let straight = run(1, 1, 0);
    assert_eq!(straight.len(), 5);
    for (threads, prefetch) in [(2, 2), (32, 5), (0, 3)] {
        assert!(run(threads, prefetch, 0) == straight, "{threads} threads");
    }
    for first in 1..5 {
        assert!(run(2, 2, first) == straight[first..], "from batch {first}");
    }
}

/// What a transform of one's own draws can be had without a pipeline around it.
#[test]
fn the_draws_of_a_transform_are_those_of_a_pipeline() {
    let flip = RandomHorizontalFlip::new(0.5).unwrap();
    let pipeline = Compose::new().then(RandomCrop::new(2)).then(flip);
    let source: Vec<u8> = (0..12).collect();
    let mut mirrored = 0;
    for index in 0..64 {
        let mut want = Image::new(source.as_slice(), 2, 2).unwrap();
        pipeline.apply(&mut want, key(index)).unwrap();
        let mut got = Image::new(source.as_slice(), 2, 2).unwrap();
        let draws = key(index).draws_of(flip.name());
        flip.apply_in_run(&mut got, draws).unwrap();
        assert_eq!(got.pixels(), want.pixels(), "{index}");
        mirrored += usize::from(got.pixels()[0] == 3);
    }
    assert!((16..48).contains(&mirrored), "{mirrored}");
}
