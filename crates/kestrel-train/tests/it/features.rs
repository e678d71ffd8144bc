//! Features that are kept: of which images they may be missing.

use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device};
use kestrel_data::loader::{DataLoader, LoaderConfig};
use kestrel_data::transforms::presets;
use kestrel_data::{BadSamplePolicy, OnBadSample};
use kestrel_models::Model;
use kestrel_train::feature_cache::{FeatureCache, FeatureLoader};
use kestrel_train::{BatchSource, Error};

use crate::accumulation::Torn;
use crate::toy_run::{dataset, info};

/// The features of nine images, of which some are torn.
fn features(
    folder: &Path,
    torn: &[usize],
    on_bad_sample: OnBadSample,
    max_bad_fraction: f64,
) -> Result<FeatureLoader, Error> {
    let model: Arc<dyn Model> = info(2).model.build(5, DType::F32, &Device::Cpu)?.into();
    model.freeze_all_but_head()?;
    let config = LoaderConfig {
        batch_size: 4,
        bad_samples: BadSamplePolicy {
            on_bad_sample,
            max_bad_fraction,
        },
        ..LoaderConfig::default()
    };
    let images = Arc::new(Torn(dataset(1, 9), torn.to_vec()));
    let images = DataLoader::new(images, presets::cifar_eval()?, config)?;
    FeatureCache::new(folder.to_owned()).loader(model, "cnn", images, 1)
}

/// Makes them ready. Whether they were kept.
fn prepare(folder: &Path, torn: &[usize], on_bad_sample: OnBadSample, max_bad_fraction: f64) -> Result<bool, Error> {
    features(folder, torn, on_bad_sample, max_bad_fraction)?.prepare(0, &mut |_, _| {})
}

/// Those that a GPU makes with factors rounded to TF32 are others.
#[test]
fn features_of_another_rounding_are_not_used() {
    let dir = tempfile::tempdir().unwrap();
    let kept = |tf32: bool| {
        let features = features(dir.path(), &[], OnBadSample::Error, 0.01).unwrap();
        features.with_tf32(tf32).prepare(0, &mut |_, _| {}).unwrap()
    };
    assert_eq!([true, false, false, true].map(kept), [false, false, true, true]);
}

/// As a loader of images does, so that the stage after this one bears no more of them.
#[test]
fn damaged_images_without_features_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let features = features(dir.path(), &[4, 8], OnBadSample::Skip, 0.5).unwrap();
    features.add_bad_samples(&[1]);
    assert_eq!(features.bad_samples(), [1]);
    let mut batches = features.epoch(0).unwrap();
    assert_eq!(batches.next().unwrap().unwrap().indices, [0, 1, 2, 3]);
    assert_eq!(features.bad_samples(), [1]);
    assert_eq!(batches.next().unwrap().unwrap().indices, [5, 6, 7]);
    assert!(batches.next().is_none());
    drop(batches);
    assert_eq!(features.bad_samples(), [1, 4, 8]);
    assert_eq!(features.into_images().bad_samples(), [1, 4, 8]);
}

/// A run that skips leaves features without its damaged images; they are none for a run that may not skip as many.
#[test]
fn kept_features_hide_no_damaged_image() {
    let dir = tempfile::tempdir().unwrap();
    let prepare = |torn: &[usize], policy, fraction| prepare(dir.path(), torn, policy, fraction);
    assert!(!prepare(&[4], OnBadSample::Skip, 0.5).unwrap());
    assert!(prepare(&[4], OnBadSample::Skip, 0.5).unwrap());
    // The errors are those of a run without a cache.
    let error = prepare(&[4], OnBadSample::Error, 0.01).unwrap_err();
    assert!(
        matches!(error, Error::Data(_)) && error.to_string().contains("torn"),
        "{error}"
    );
    let error = prepare(&[4], OnBadSample::Skip, 0.1).unwrap_err();
    assert!(
        matches!(
            error,
            Error::Data(kestrel_data::Error::TooManyBadSamples { bad: 1, .. })
        ),
        "{error}"
    );
    assert!(prepare(&[4], OnBadSample::Skip, 0.5).unwrap());
    // Where the image can be read again, it gets its features.
    assert!(!prepare(&[], OnBadSample::Error, 0.01).unwrap());
    assert!(prepare(&[], OnBadSample::Error, 0.01).unwrap());
}
