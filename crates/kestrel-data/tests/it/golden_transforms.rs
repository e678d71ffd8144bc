//! Equality of the transforms with torchvision on given draws, by the golden files of `scripts/golden/transforms.py`.

use std::collections::BTreeSet;

use kestrel_data::pixels::{Image, Region};
use kestrel_data::transforms::{
    AugmentOp, AugmentSpace, CenterCrop, ColorJitterDraw, CutMix, ErasingValue, InterpolationMode, MixUp, Mixture,
    PaddingMode, RandomCrop, RandomErasing, RandomResizedCrop, Resize, Transform, color,
};
use kestrel_kernels::random::{KeyedRng, Purpose};
use safetensors::SafeTensors;

use crate::golden::{bits, draws, image, read};

fn rng() -> KeyedRng {
    KeyedRng::new(0, Purpose::Transform, 0, 0)
}

fn doubles(file: &SafeTensors<'_>, name: &str) -> Vec<f64> {
    let tensor = file.tensor(name).unwrap();
    let (chunks, _) = tensor.data().as_chunks::<8>();
    chunks.iter().map(|&bytes| f64::from_le_bytes(bytes)).collect()
}

fn floats(file: &SafeTensors<'_>, name: &str) -> Vec<f32> {
    bits(file, name).into_iter().map(f32::from_bits).collect()
}

/// The names of a file's cases that start with `prefix`: what stands before `.result`.
fn cases(file: &SafeTensors<'_>, prefix: &str) -> Vec<String> {
    let names: BTreeSet<String> = file
        .names()
        .into_iter()
        .filter(|name| name.starts_with(prefix))
        .filter_map(|name| name.strip_suffix(".result"))
        .map(str::to_owned)
        .collect();
    assert!(!names.is_empty(), "no cases of {prefix}");
    names.into_iter().collect()
}

/// Compares with the case's result; gives the largest difference.
fn worst(file: &SafeTensors<'_>, case: &str, got: &Image<'_>) -> u8 {
    let want = file.tensor(&format!("{case}.result")).unwrap();
    assert_eq!(want.shape(), [got.height(), got.width(), 3], "{case}");
    let differences = got.pixels().iter().zip(want.data()).map(|(a, b)| a.abs_diff(*b)).max();
    differences.unwrap()
}

#[test]
fn resizing_is_near_pillow() {
    let bytes = read("resize.safetensors");
    let file = SafeTensors::deserialize(&bytes).unwrap();
    // A bicubic filter has negative weights, and the two passes enlarge the difference of the first.
    for (name, mode, tolerance) in [
        ("bilinear", InterpolationMode::Bilinear, 1),
        ("bicubic", InterpolationMode::Bicubic, 3),
    ] {
        for case in cases(&file, &format!("exact.{name}.")) {
            let mut image = image(&file, &format!("{case}.image"));
            let shape = file.tensor(&format!("{case}.result")).unwrap().shape().to_vec();
            let resize = Resize::exact(shape[0], shape[1]).interpolation(mode);
            resize.apply(&mut image, &mut rng()).unwrap();
            assert!(
                worst(&file, &case, &image) <= tolerance,
                "{case}: {}",
                worst(&file, &case, &image)
            );
        }
        for case in cases(&file, &format!("side.{name}.")) {
            let mut image = image(&file, &format!("{case}.image"));
            let size = draws(&file, &format!("{case}.size"))[0];
            let resize = Resize::new(size).interpolation(mode);
            resize.apply(&mut image, &mut rng()).unwrap();
            assert!(
                worst(&file, &case, &image) <= tolerance,
                "{case}: {}",
                worst(&file, &case, &image)
            );
        }
        for case in cases(&file, &format!("part.{name}.")) {
            let mut image = image(&file, &format!("{case}.image"));
            let draws = draws(&file, &format!("{case}.draws"));
            let part = Region {
                top: draws[0],
                left: draws[1],
                height: draws[2],
                width: draws[3],
            };
            let crop = RandomResizedCrop::new(draws[4]).interpolation(mode);
            crop.apply_at(&mut image, part).unwrap();
            assert!(
                worst(&file, &case, &image) <= tolerance,
                "{case}: {}",
                worst(&file, &case, &image)
            );
        }
    }
}

#[test]
fn center_crop_equals_torchvision() {
    let bytes = read("resize.safetensors");
    let file = SafeTensors::deserialize(&bytes).unwrap();
    for case in cases(&file, "center.") {
        let mut image = image(&file, &format!("{case}.image"));
        let crop = CenterCrop::new(draws(&file, &format!("{case}.size"))[0]);
        crop.apply(&mut image, &mut rng()).unwrap();
        assert_eq!(worst(&file, &case, &image), 0, "{case}");
    }
}

#[test]
fn every_padding_mode_equals_torchvision() {
    let bytes = read("padding.safetensors");
    let file = SafeTensors::deserialize(&bytes).unwrap();
    for (name, mode) in [
        ("constant", PaddingMode::Constant),
        ("edge", PaddingMode::Edge),
        ("reflect", PaddingMode::Reflect),
        ("symmetric", PaddingMode::Symmetric),
    ] {
        for case in cases(&file, name) {
            let mut image = image(&file, &format!("{case}.image"));
            let draws = draws(&file, &format!("{case}.draws"));
            let crop = RandomCrop::new(draws[3]).padding(draws[0]).padding_mode(mode);
            let crop = if name == "constant" {
                crop.fill([9, 200, 77])
            } else {
                crop
            };
            crop.apply_at(&mut image, draws[1], draws[2]).unwrap();
            assert_eq!(worst(&file, &case, &image), 0, "{case}");
        }
    }
}

#[test]
fn color_jitter_equals_torchvision() {
    let bytes = read("color.safetensors");
    let file = SafeTensors::deserialize(&bytes).unwrap();
    for case in cases(&file, "") {
        let mut image = image(&file, &format!("{case}.image"));
        let order: Vec<u8> = draws(&file, &format!("{case}.order"))
            .iter()
            .map(|&which| which as u8)
            .collect();
        let factors = doubles(&file, &format!("{case}.factors"));
        let draw = ColorJitterDraw {
            order: order.try_into().unwrap(),
            factors: std::array::from_fn(|i| (!factors[i].is_nan()).then_some(factors[i])),
        };
        draw.apply(&mut image);
        assert_eq!(worst(&file, &case, &image), 0, "{case} {draw:?}");
    }
    for (number, factor) in [0.0, 0.3, -0.45].into_iter().enumerate() {
        let mut image = image(&file, "wheel.image");
        color::adjust_hue(&mut image, factor);
        assert_eq!(
            image.pixels(),
            file.tensor(&format!("wheel.{number}")).unwrap().data(),
            "{factor}"
        );
    }
}

fn op(name: &str) -> AugmentOp {
    AugmentOp::ALL.into_iter().find(|op| format!("{op:?}") == name).unwrap()
}

#[test]
fn augmentations_equal_torchvision() {
    let bytes = read("augment.safetensors");
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut seen = BTreeSet::new();
    for case in cases(&file, "op.") {
        let name = case.split('.').nth(1).unwrap();
        seen.insert(name.to_owned());
        let mut image = image(&file, &format!("{case}.image"));
        let magnitude = doubles(&file, &format!("{case}.magnitude"))[0];
        let fill = draws(&file, &format!("{case}.fill"));
        let fill = [fill[0] as u8, fill[1] as u8, fill[2] as u8];
        op(name).apply(&mut image, magnitude, fill).unwrap();
        assert_eq!(worst(&file, &case, &image), 0, "{case} {magnitude}");
    }
    assert_eq!(seen.len(), AugmentOp::ALL.len());
}

#[test]
fn magnitudes_equal_torchvision() {
    let bytes = read("augment.safetensors");
    let file = SafeTensors::deserialize(&bytes).unwrap();
    for (name, space) in [("rand", AugmentSpace::Rand), ("wide", AugmentSpace::TrivialWide)] {
        for op in AugmentOp::ALL {
            let want = doubles(&file, &format!("table.{name}.{op:?}"));
            assert_eq!(op.is_signed(), want[31] == 1.0, "{op:?}");
            for (bin, &want) in want[..31].iter().enumerate() {
                let got = op.magnitude(space, bin, 31, (20, 14));
                // PyTorch may round the product and the sum as one.
                assert!(
                    (got - want).abs() <= 1e-6 * want.abs().max(1.0),
                    "{op:?} {bin}: {got} {want}"
                );
            }
        }
    }
}

#[test]
fn erasing_equals_torchvision() {
    let bytes = read("batch.safetensors");
    let file = SafeTensors::deserialize(&bytes).unwrap();
    for case in cases(&file, "erase.") {
        let mut image = floats(&file, "erase.image");
        let draws = draws(&file, &format!("{case}.draws"));
        let value = floats(&file, &format!("{case}.value"));
        let value = match value.as_slice() {
            &[value] => ErasingValue::Value(value),
            values => ErasingValue::Channels(values.try_into().unwrap()),
        };
        let part = Region {
            top: draws[0],
            left: draws[1],
            height: draws[2],
            width: draws[3],
        };
        let erasing = RandomErasing {
            value,
            ..RandomErasing::default()
        };
        erasing.erase(&mut image, (9, 12), part, &mut rng());
        assert_eq!(image, floats(&file, &format!("{case}.result")), "{case}");
    }
}

#[test]
fn mixing_equals_torchvision() {
    let bytes = read("batch.safetensors");
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let labels = draws(&file, "labels");
    let one_hot: Vec<f32> = labels
        .iter()
        .flat_map(|&label| (0..4).map(move |k| f32::from(u8::from(k == label))))
        .collect();
    for number in 0..3 {
        for name in ["mix_up", "cut_mix"] {
            let (mut images, mut targets) = (floats(&file, "images"), one_hot.clone());
            let mut batch = Mixture {
                images: &mut images,
                shape: [5, 3, 6, 8],
                targets: &mut targets,
            };
            let lam = doubles(&file, &format!("{name}.{number}.lam"))[0];
            if name == "mix_up" {
                MixUp::mix(&mut batch, lam);
            } else {
                let place = draws(&file, &format!("{name}.{number}.draws"));
                CutMix::cut(&mut batch, CutMix::rectangle(lam, (place[0], place[1]), (6, 8)));
            }
            assert_eq!(
                images,
                floats(&file, &format!("{name}.{number}.images")),
                "{name} {number}"
            );
            assert_eq!(
                targets,
                floats(&file, &format!("{name}.{number}.targets")),
                "{name} {number}"
            );
        }
    }
}
