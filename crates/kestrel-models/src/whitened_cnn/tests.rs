//! The whitening filters, the first values, and what is trained.

use super::symmetric_eigen::SymmetricEigen;
use super::*;
use candle_nn::Init;

fn narrow() -> WhitenedCnn {
    let config = WhitenedCnnConfig {
        width: 4,
        ..WhitenedCnnConfig::new(10)
    };
    WhitenedCnn::new(config, 0, DType::F32, &Device::Cpu).unwrap()
}

fn images(n: usize) -> Tensor {
    let store = Params::new(3).builder(DType::F32, &Device::Cpu);
    let drawn = store.parameter((n, 3, 32, 32), "images", Init::Randn { mean: 0.3, stdev: 1.0 });
    // Neighbours are alike, as in pictures.
    let drawn = drawn.unwrap().tensor().detach();
    let smooth = (drawn.narrow(3, 0, 31).unwrap() + drawn.narrow(3, 1, 31).unwrap()).unwrap();
    Tensor::cat(&[&smooth, &smooth.narrow(3, 0, 1).unwrap()], 3).unwrap()
}

fn vector(tensor: &Tensor) -> Vec<f64> {
    let tensor = tensor.to_dtype(DType::F64).unwrap();
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn eigenvectors_make_the_matrix_again() {
    let n = 7;
    for rank in [7, 3] {
        let half: Vec<f64> = (0..n * rank)
            .map(|i| ((i * 37 % 101) as f64 / 50.0 - 1.0).powi(3))
            .collect();
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let rows: Vec<&[f64]> = half.chunks_exact(rank).collect();
        let matrix: Vec<f64> = (0..n * n).map(|i| dot(rows[i / n], rows[i % n])).collect();
        let pairs = SymmetricEigen::new(matrix.clone(), n).by_falling_value();
        assert!(pairs.windows(2).all(|pair| pair[0].0 >= pair[1].0));
        for (i, element) in matrix.iter().enumerate() {
            let sum: f64 = pairs.iter().map(|(value, v)| value * v[i / n] * v[i % n]).sum();
            assert!((sum - element).abs() < 1e-12, "{sum} {element}");
        }
        for (i, (_, a)) in pairs.iter().enumerate() {
            for (j, (_, b)) in pairs.iter().enumerate() {
                let want = if i == j { 1.0 } else { 0.0 };
                assert!((dot(a, b) - want).abs() < 1e-13);
            }
        }
    }
}

/// `√(λ / (λ + 5e-4))` is nearly 1: outputs of the first half of the filters are uncorrelated and of unit size.
#[test]
fn whitened_patches_are_white() {
    let model = narrow();
    let images = images(6);
    model.init_from_images(&images).unwrap();
    let whitened = Mode::Eval.section(|tape| {
        let x = tape.leaf(&to_channels_last(&images)?)?;
        model.whiten.forward(tape, &x)
    });
    let whitened = whitened.unwrap().reshape(((), WHITENED)).unwrap();
    let moments = whitened.t().unwrap().matmul(&whitened).unwrap();
    let moments = vector(&(moments / whitened.dim(0).unwrap() as f64).unwrap());
    let half = WHITENED / 2;
    for i in 0..half {
        for j in 0..half {
            let want = if i == j { 1.0 } else { 0.0 };
            let got = moments[i * WHITENED + j];
            assert!((got - want).abs() < 5e-3, "{i} {j}: {got}");
            assert!((moments[(half + i) * WHITENED + j] + got).abs() < 1e-4);
        }
    }
}

#[test]
fn equal_images_give_equal_filters_and_flat_ones_no_noise() {
    let weights = |images: &Tensor| {
        let model = narrow();
        model.init_from_images(images).unwrap();
        vector(model.whiten.weight().tensor())
    };
    assert_eq!(weights(&images(3)), weights(&images(3)));
    assert_ne!(weights(&images(3)), weights(&images(4)));
    let flat = Tensor::ones((2, 3, 32, 32), DType::F32, &Device::Cpu).unwrap();
    assert!(
        weights(&flat)
            .iter()
            .all(|w| w.is_finite() && w.abs() <= 1.0001 / 5e-4f64.sqrt())
    );
    let model = narrow();
    let none = Tensor::zeros((0, 3, 32, 32), DType::F32, &Device::Cpu).unwrap();
    let small = Tensor::zeros((2, 3, 28, 28), DType::F32, &Device::Cpu).unwrap();
    for bad in [none, small] {
        assert!(matches!(model.init_from_images(&bad), Err(Error::InputShape { .. })));
    }
}

#[test]
fn convolutions_pass_their_inputs_on_at_first() {
    let model = narrow();
    for (block, inputs, outputs) in [(0, 24, 4), (1, 4, 16), (2, 16, 16)] {
        let weight = vector(model.blocks[block].conv1.weight().tensor());
        for (i, w) in weight.iter().enumerate() {
            let (filter, input, tap) = (i / (9 * inputs), i / 9 % inputs, i % 9);
            if filter < inputs {
                let want = if (input, tap) == (filter, 4) { 1.0 } else { 0.0 };
                assert_eq!(*w, want, "block {block}, {filter} {input} {tap}");
            } else {
                assert!(w.abs() < (1.0 / (9.0 * inputs as f64)).sqrt());
            }
        }
        assert!(outputs <= inputs || weight[9 * inputs * inputs..].iter().any(|w| *w != 0.0));
    }
}

/// The filters of the whitening and the weights of batch norms never are; the others can be frozen and thawed.
#[test]
fn what_is_fixed_is_never_trained() {
    let model = narrow();
    let names = || -> Vec<String> { model.params().trainable().into_iter().map(|(name, _)| name).collect() };
    let mut want = vec!["head.weight".to_owned(), "whiten.bias".to_owned()];
    for block in 1..=3 {
        want.extend(
            ["bn1.bias", "bn2.bias", "conv1.weight", "conv2.weight"].map(|leaf| format!("block{block}.{leaf}")),
        );
    }
    want.sort();
    assert_eq!(names(), want);
    model.params().freeze("").unwrap();
    assert!(names().is_empty());
    model.params().unfreeze("").unwrap();
    assert_eq!(names(), want);
    model.train_from("head").unwrap();
    assert_eq!(names(), ["head.weight"]);
}

#[test]
fn other_sizes_of_images_and_what_makes_no_network() {
    for (size, side) in [(32, 3), (9, 1), (28, 3), (64, 7)] {
        let config = WhitenedCnnConfig {
            image_size: size,
            width: 2,
            num_classes: 3,
        };
        let model = WhitenedCnn::new(config.clone(), 0, DType::F32, &Device::Cpu).unwrap();
        assert_eq!(config.last_side(), side);
        let images = Tensor::zeros((2, 3, size, size), DType::F32, &Device::Cpu).unwrap();
        let logits = model.forward(&images, Mode::Eval).unwrap();
        assert_eq!(logits.dims(), [2, 3]);
        let features = model.features(&images, Mode::Eval).unwrap();
        assert_eq!(vector(&model.classify(&features, Mode::Eval).unwrap()), vector(&logits));
    }
    for (field, config) in [
        (
            "image_size",
            WhitenedCnnConfig {
                image_size: 8,
                ..WhitenedCnnConfig::new(2)
            },
        ),
        (
            "width",
            WhitenedCnnConfig {
                width: 0,
                ..WhitenedCnnConfig::new(2)
            },
        ),
        ("num_classes", WhitenedCnnConfig::new(0)),
    ] {
        let error = WhitenedCnn::new(config, 0, DType::F32, &Device::Cpu).err().unwrap();
        assert!(error.to_string().contains(field), "{error}");
    }
}
