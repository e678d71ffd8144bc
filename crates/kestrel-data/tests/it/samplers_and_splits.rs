//! Orders, subsets, splits, limits and fingerprints.

use std::sync::Arc;

use kestrel_data::datasets::Subset;
use kestrel_data::pixels::Image;
use kestrel_data::sampler::{RandomSampler, Sampler, SequentialSampler, WeightedRandomSampler};
use kestrel_data::split::{limit, split_stratified};
use kestrel_data::{Dataset, Error, Fingerprint, InMemory, Result};
use proptest::prelude::*;

/// Images of 1x1 with these labels.
fn dataset(labels: &[u32]) -> Arc<dyn Dataset> {
    let classes = (0..=labels.iter().copied().max().unwrap())
        .map(|label| label.to_string())
        .collect();
    let pixels = (0..labels.len() * 3).map(|i| i as u8).collect();
    Arc::new(InMemory::new(pixels, 1, 1, labels.to_vec(), classes, "test").unwrap())
}

fn count(subset: &Subset, label: u32) -> usize {
    (0..subset.len()).filter(|&index| subset.label(index) == label).count()
}

proptest! {
    #[test]
    fn random_order_is_a_permutation_and_a_function(len in 0usize..300, seed: u64, epoch in 0u64..1000) {
        let sampler = RandomSampler { len, seed };
        let order = sampler.order(epoch);
        prop_assert_eq!(&order, &sampler.order(epoch));
        let mut sorted = order;
        sorted.sort_unstable();
        prop_assert_eq!(sorted, SequentialSampler { len }.order(epoch));
        prop_assert_eq!(sampler.is_empty(), len == 0);
    }

    #[test]
    fn split_is_stratified_disjoint_and_whole(
        labels in proptest::collection::vec(0u32..4, 40..200),
        fraction in 0.1f64..0.9,
        seed: u64,
    ) {
        let data = dataset(&labels);
        let (rest, held_out) = split_stratified(&data, fraction, seed).unwrap();
        let mut all: Vec<usize> = rest.indices().iter().chain(held_out.indices()).copied().collect();
        prop_assert!(rest.indices().is_sorted() && held_out.indices().is_sorted());
        all.sort_unstable();
        prop_assert_eq!(all, (0..labels.len()).collect::<Vec<_>>());
        for label in 0..data.classes().len() as u32 {
            let whole = labels.iter().filter(|&&l| l == label).count();
            prop_assert_eq!(count(&held_out, label), (whole as f64 * fraction).round() as usize);
        }
        let again = split_stratified(&data, fraction, seed).unwrap().1;
        prop_assert_eq!(again.indices(), held_out.indices());
    }

    #[test]
    fn limit_is_balanced(labels in proptest::collection::vec(0u32..5, 1..100), n in 1usize..120) {
        let data = dataset(&labels);
        let limited = limit(&data, n).unwrap();
        prop_assert_eq!(limited.len(), n.min(labels.len()));
        prop_assert!(limited.indices().is_sorted());
        let most = (0..5).map(|label| count(&limited, label)).max().unwrap();
        for label in 0..5 {
            // No class has fewer than another less one, unless it has no more.
            let whole = labels.iter().filter(|&&l| l == label).count();
            prop_assert!(count(&limited, label) >= (most - 1).min(whole));
        }
    }
}

#[test]
fn epochs_and_seeds_have_their_own_orders() {
    let order = |seed, epoch| RandomSampler { len: 100, seed }.order(epoch);
    assert_ne!(order(0, 0), order(0, 1));
    assert_ne!(order(0, 0), order(1, 0));
    assert_ne!(order(0, 0), (0..100).collect::<Vec<_>>());
}

#[test]
fn splits_check_their_parameters() {
    let data = dataset(&[0, 1, 0, 1]);
    for fraction in [0.0, 1.0, -0.5, f64::NAN] {
        assert!(matches!(
            split_stratified(&data, fraction, 0),
            Err(Error::InvalidParameter { .. })
        ));
    }
    assert!(matches!(split_stratified(&data, 0.1, 0), Err(Error::EmptySplit { .. })));
    assert!(matches!(limit(&data, 0), Err(Error::EmptySplit { .. })));
    assert!(matches!(
        Subset::new(data.clone(), vec![0, 4]),
        Err(Error::InvalidParameter { .. })
    ));
    let other = split_stratified(&dataset(&[0; 100]), 0.5, 1).unwrap().0;
    assert_ne!(
        other.indices(),
        split_stratified(&dataset(&[0; 100]), 0.5, 2).unwrap().0.indices()
    );
}

#[test]
fn subset_passes_through() {
    let data = dataset(&[0, 1, 2]);
    let subset = Subset::new(data.clone(), vec![2, 0, 0]).unwrap();
    assert_eq!((subset.len(), subset.label(0), subset.label(1)), (3, 2, 0));
    assert_eq!(subset.image(0).unwrap().pixels(), data.image(2).unwrap().pixels());
    assert_eq!(subset.describe_sample(0), data.describe_sample(2));
    assert_eq!(subset.describe(), "3 of the 3 samples of test");
}

#[test]
fn fingerprints_cover_classes_labels_pixels_size_and_order() {
    let make = |pixels: Vec<u8>, height, width, labels: Vec<u32>, class: &str| {
        let classes = vec![class.to_owned(), "b".to_owned()];
        InMemory::new(pixels, height, width, labels, classes, "x")
            .unwrap()
            .fingerprint()
            .unwrap()
    };
    let base = make(vec![0; 12], 1, 2, vec![0, 1], "a");
    assert_eq!(base, make(vec![0; 12], 1, 2, vec![0, 1], "a"));
    let mut changed = vec![0; 12];
    changed[11] = 1;
    for other in [
        make(changed, 1, 2, vec![0, 1], "a"),
        make(vec![0; 12], 2, 1, vec![0, 1], "a"),
        make(vec![0; 12], 1, 2, vec![1, 0], "a"),
        make(vec![0; 12], 1, 2, vec![0, 1], "c"),
    ] {
        assert_ne!(base, other);
    }
    assert_eq!(base.to_string().len(), 64);
    let data = dataset(&[0, 0, 1]);
    let subset = |indices| Subset::new(data.clone(), indices).unwrap().fingerprint().unwrap();
    assert_ne!(subset(vec![0, 1]), subset(vec![1, 0]));
}

#[test]
fn labels_are_checked() {
    for label in [2, 255, u32::MAX] {
        let made = InMemory::new(vec![0; 6], 1, 1, vec![0, label], vec!["a".into(), "b".into()], "x");
        match made.unwrap_err() {
            Error::LabelOutOfRange {
                index: 1,
                label: got,
                num_classes: 2,
                ..
            } => assert_eq!(got, u64::from(label)),
            other => panic!("{other}"),
        }
    }
    let classes = || vec!["a".to_owned()];
    assert!(matches!(
        InMemory::new(vec![0; 5], 1, 1, vec![0, 0], classes(), "x"),
        Err(Error::PixelCount { .. })
    ));
    assert!(matches!(
        InMemory::new(vec![], 1, 1, vec![], classes(), "x"),
        Err(Error::EmptySplit { .. })
    ));
    let huge = InMemory::new(vec![], usize::MAX, 2, vec![0], classes(), "x");
    assert!(matches!(huge, Err(Error::PixelCount { .. })));
}

/// How often each label is drawn in `epochs` epochs.
fn drawn(sampler: &WeightedRandomSampler, data: &dyn Dataset, epochs: u64) -> Vec<f64> {
    let mut counts = vec![0.0; data.classes().len()];
    for epoch in 0..epochs {
        for index in sampler.order(epoch) {
            counts[data.label(index) as usize] += 1.0;
        }
    }
    counts
}

#[test]
fn weighted_draws_follow_the_weights_and_are_a_function() {
    let labels: Vec<u32> = (0..1000).map(|i| if i < 900 { 0 } else { 1 + i % 2 }).collect();
    let data = dataset(&labels);
    let balanced = WeightedRandomSampler::class_balanced(data.as_ref(), 3).unwrap();
    assert_eq!(balanced.len(), 1000);
    assert_eq!(balanced.order(5), balanced.order(5));
    assert_ne!(balanced.order(5), balanced.order(6));
    for count in drawn(&balanced, data.as_ref(), 30) {
        // Of 30,000 draws a third each: the standard deviation is 82.
        assert!((count - 10_000.0).abs() < 500.0, "{count}");
    }
    let weighted = WeightedRandomSampler::by_class(data.as_ref(), &[1.0, 9.0, 0.0], 3).unwrap();
    let counts = drawn(&weighted, data.as_ref(), 30);
    // 900 samples of weight 1 and 50 of weight 9.
    assert!(
        (counts[0] - 20_000.0).abs() < 500.0 && (counts[1] - 10_000.0).abs() < 500.0,
        "{counts:?}"
    );
    assert_eq!(counts[2], 0.0);
}

#[test]
fn weight_of_zero_is_never_drawn_at_either_end() {
    let sampler = WeightedRandomSampler::new(&[0.0, 1e-300, 0.0, 1e300, 0.0], 1000, 0).unwrap();
    assert!(sampler.order(0).iter().all(|index| [1, 3].contains(index)));
    for weights in [
        &[][..],
        &[0.0],
        &[-1.0, 2.0],
        &[f64::NAN],
        &[f64::INFINITY],
        &[f64::MAX, f64::MAX],
    ] {
        assert!(matches!(
            WeightedRandomSampler::new(weights, 1, 0),
            Err(Error::InvalidParameter { .. })
        ));
    }
    let data = dataset(&[0, 1]);
    assert!(WeightedRandomSampler::by_class(data.as_ref(), &[1.0], 0).is_err());
}

/// One sample, whose label has no class.
struct WithoutClasses;

impl Dataset for WithoutClasses {
    fn len(&self) -> usize {
        1
    }

    fn classes(&self) -> &[String] {
        &[]
    }

    fn label(&self, _: usize) -> u32 {
        3
    }

    fn image(&self, _: usize) -> Result<Image<'_>> {
        Image::new(&[0; 3], 1, 1)
    }

    fn describe(&self) -> String {
        "unlabelled".to_owned()
    }

    fn fingerprint(&self) -> Result<Fingerprint> {
        Ok(Fingerprint::of(b""))
    }
}

#[test]
fn samplers_by_class_refuse_labels_without_a_class() {
    for sampler in [
        WeightedRandomSampler::class_balanced(&WithoutClasses, 0),
        WeightedRandomSampler::by_class(&WithoutClasses, &[], 0),
    ] {
        match sampler.unwrap_err() {
            Error::LabelOutOfRange {
                path,
                index: 0,
                label: 3,
                num_classes: 0,
            } => assert_eq!(path.to_str(), Some("unlabelled")),
            other => panic!("{other}"),
        }
    }
}
