//! Transforms: draws, descriptions and a user's own.

use kestrel_data::pixels::Image;
use kestrel_data::transforms::{
    Compose, Normalize, RandomCrop, RandomHorizontalFlip, SampleKey, Transform, TransformSpec, presets,
};
use kestrel_data::{Error, Result};
use kestrel_kernels::random::{KeyedRng, Purpose};
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
