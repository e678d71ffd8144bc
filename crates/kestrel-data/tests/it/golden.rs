//! Equality with torchvision and Pillow on given draws, by the golden files of `scripts/golden/data.py`.

use std::path::Path;

use kestrel_data::decode;
use kestrel_data::pixels::{Image, Region};
use kestrel_data::transforms::{Compose, Normalize, RandomCrop, presets};
use kestrel_kernels::random::{KeyedRng, Purpose};
use safetensors::SafeTensors;

use crate::manifest_dir::manifest_dir;

pub(crate) fn read(name: &str) -> Vec<u8> {
    std::fs::read(manifest_dir().join("tests/golden").join(name)).unwrap()
}

pub(crate) fn draws(file: &SafeTensors<'_>, name: &str) -> Vec<usize> {
    let tensor = file.tensor(name).unwrap();
    tensor
        .data()
        .as_chunks::<8>()
        .0
        .iter()
        .map(|&bytes| i64::from_le_bytes(bytes) as usize)
        .collect()
}

/// The bits, so that equality is exact.
pub(crate) fn bits(file: &SafeTensors<'_>, name: &str) -> Vec<u32> {
    let tensor = file.tensor(name).unwrap();
    tensor
        .data()
        .as_chunks::<4>()
        .0
        .iter()
        .map(|&bytes| u32::from_le_bytes(bytes))
        .collect()
}

pub(crate) fn image<'a>(file: &SafeTensors<'a>, name: &str) -> Image<'a> {
    let tensor = file.tensor(name).unwrap();
    let &[height, width, 3] = tensor.shape() else {
        panic!("{:?}", tensor.shape())
    };
    Image::new(tensor.data(), height, width).unwrap()
}

fn written(compose: &Compose, image: &Image<'_>) -> Vec<u32> {
    let mut out = vec![f32::NAN; 3 * image.height() * image.width()];
    compose.write(image, &mut out).unwrap();
    out.into_iter().map(f32::to_bits).collect()
}

#[test]
fn geometry_equals_torchvision() {
    let bytes = read("geometry.safetensors");
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let cases = file.len() / 3;
    assert_eq!(cases, 18);
    for case in 0..cases {
        let mut image = image(&file, &format!("{case}.image"));
        let &[flip, padding, top, left, height, width, flip_after, padding_after] =
            draws(&file, &format!("{case}.draws")).as_slice()
        else {
            panic!("draws of case {case}")
        };
        if flip == 1 {
            image.hflip();
        }
        image.pad(padding);
        image.crop(top, left, height, width).unwrap();
        if flip_after == 1 {
            image.hflip();
        }
        image.pad(padding_after);
        let want = file.tensor(&format!("{case}.result")).unwrap();
        assert_eq!(want.shape(), [image.height(), image.width(), 3], "case {case}");
        assert_eq!(image.pixels(), want.data(), "case {case}");
        // The fused pass reads the same pixels.
        let plain = Image::new(want.data(), image.height(), image.width()).unwrap();
        assert_eq!(
            written(&Compose::new(), &image),
            written(&Compose::new(), &plain),
            "case {case}"
        );
    }
}

#[test]
fn to_tensor_and_normalize_equal_torchvision_bit_for_bit() {
    let bytes = read("normalize.safetensors");
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let values: Vec<u8> = (0..=255).flat_map(|value| [value; 3]).collect();
    let values = Image::new(values, 16, 16).unwrap();
    let imagenet = Normalize::new([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]).unwrap();
    assert_eq!(written(&Compose::new(), &values), bits(&file, "values.to_tensor"));
    assert_eq!(
        written(&presets::cifar_eval().unwrap(), &values),
        bits(&file, "values.cifar")
    );
    assert_eq!(
        written(&Compose::new().normalize(imagenet), &values),
        bits(&file, "values.imagenet")
    );
}

#[test]
fn cifar_pipeline_equals_torchvision_bit_for_bit() {
    let bytes = read("normalize.safetensors");
    let file = SafeTensors::deserialize(&bytes).unwrap();
    for case in 0..4 {
        let mut image = image(&file, &format!("{case}.image"));
        let draws = draws(&file, &format!("{case}.draws"));
        if draws[0] == 1 {
            image.hflip();
        }
        RandomCrop::new(32)
            .padding(4)
            .apply_at(&mut image, draws[1], draws[2])
            .unwrap();
        let want = bits(&file, &format!("{case}.result"));
        assert_eq!(written(&presets::cifar_train(32).unwrap(), &image), want, "case {case}");
    }
}

#[test]
fn conversions_to_rgb_equal_pillow() {
    let bytes = read("conversions.safetensors");
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let names: Vec<&str> = file
        .names()
        .into_iter()
        .filter_map(|name| name.strip_suffix(".file"))
        .collect();
    assert_eq!(names.len(), 7);
    for name in names {
        let encoded = file.tensor(&format!("{name}.file")).unwrap();
        let image = decode::decode(encoded.data(), Path::new(name)).unwrap();
        assert_eq!(
            image.pixels(),
            file.tensor(&format!("{name}.rgb")).unwrap().data(),
            "{name}"
        );
    }
}

/// The kinds of JPEG in `jpeg.safetensors`.
fn jpeg_kinds(file: &SafeTensors<'_>) -> Vec<String> {
    file.names()
        .into_iter()
        .filter_map(|name| name.strip_suffix(".file"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn jpegs_of_every_kind_are_near_pillows_pixels() {
    let bytes = read("jpeg.safetensors");
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let kinds = jpeg_kinds(&file);
    assert_eq!(kinds.len(), 11);
    for kind in kinds {
        let encoded = file.tensor(&format!("{kind}.file")).unwrap();
        let decoded = decode::decode(encoded.data(), Path::new(&kind));
        let (decoded, want) = (decoded.unwrap(), file.tensor(&format!("{kind}.rgb")).unwrap());
        assert_eq!([decoded.height(), decoded.width(), 3], want.shape(), "{kind}");
        let pixels = decoded.pixels();
        let differences: Vec<u8> = pixels.iter().zip(want.data()).map(|(a, b)| a.abs_diff(*b)).collect();
        let worst = differences.iter().copied().max().unwrap();
        let mean = differences.iter().map(|&d| f64::from(d)).sum::<f64>() / differences.len() as f64;
        assert!(worst <= 3 && mean < 0.5, "{kind}: worst {worst}, mean {mean}");
        if !kind.contains("progressive") && kind != "cmyk" {
            assert_eq!(worst, 0, "{kind}");
        }
    }
}

#[test]
fn a_part_of_a_jpeg_is_the_same_part_of_the_whole() {
    let bytes = read("jpeg.safetensors");
    let file = SafeTensors::deserialize(&bytes).unwrap();
    for kind in jpeg_kinds(&file) {
        let encoded = file.tensor(&format!("{kind}.file")).unwrap();
        let whole = decode::decode(encoded.data(), Path::new(&kind)).unwrap();
        let (height, width) = (whole.height(), whole.width());
        for case in 0..200 {
            let mut rng = KeyedRng::new(0, Purpose::Transform, 0, case);
            let mut span = |size: usize| {
                let start = rng.below(size as u64) as usize;
                (start, 1 + rng.below((size - start) as u64) as usize)
            };
            let ((top, height_of_part), (left, width_of_part)) = (span(height), span(width));
            let region = Region {
                top,
                left,
                height: height_of_part,
                width: width_of_part,
            };
            let mut choose = |h, w| {
                assert_eq!((h, w), (height, width));
                Some(region)
            };
            let mut part = decode::decode_part(encoded.data(), Path::new(&kind), &mut choose).unwrap();
            assert_eq!((part.height(), part.width()), (height, width));
            let mut want = whole.clone();
            for image in [&mut part, &mut want] {
                image.crop(top, left, height_of_part, width_of_part).unwrap();
            }
            assert!(part.pixels() == want.pixels(), "{kind} {region:?}");
        }
    }
}

#[test]
fn jpegs_of_every_kind_are_errors_when_cut_anywhere() {
    let bytes = read("jpeg.safetensors");
    let file = SafeTensors::deserialize(&bytes).unwrap();
    for kind in jpeg_kinds(&file) {
        let whole = file.tensor(&format!("{kind}.file")).unwrap().data();
        for length in 0..whole.len() {
            let cut = decode::decode(&whole[..length], Path::new(&kind));
            assert!(cut.is_err(), "{kind}: {length} of {} bytes passed", whole.len());
        }
    }
}

#[test]
fn damaged_jpegs_give_an_image_or_an_error_and_never_a_panic() {
    let bytes = read("jpeg.safetensors");
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut errors = 0;
    for kind in jpeg_kinds(&file) {
        let whole = file.tensor(&format!("{kind}.file")).unwrap().data();
        for case in 0..400 {
            let mut rng = KeyedRng::new(1, Purpose::Transform, 0, case);
            let mut damaged = whole.to_vec();
            for _ in 0..1 + rng.below(3) {
                let at = rng.below(damaged.len() as u64) as usize;
                damaged[at] = rng.next_u32() as u8;
            }
            match decode::decode(&damaged, Path::new(&kind)) {
                // The header may now tell another size, but not one that its pixels do not have.
                Ok(image) => assert_eq!(image.pixels().len(), image.height() * image.width() * 3),
                Err(_) => errors += 1,
            }
        }
    }
    assert!(errors > 400, "{errors}");
}
