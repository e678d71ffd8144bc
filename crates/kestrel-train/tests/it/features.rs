//! Features that are kept: of which images they may be missing.

use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device};
use kestrel_data::loader::{DataLoader, LoaderConfig};
use kestrel_data::transforms::presets;
use kestrel_data::{BadSamplePolicy, OnBadSample};
use kestrel_models::Model;
use kestrel_train::Error;
use kestrel_train::feature_cache::FeatureCache;

use crate::accumulation::Torn;
use crate::toy_run::{dataset, info};

/// Makes the features of nine images ready, of which some are torn. Whether they were kept.
fn prepare(folder: &Path, torn: &[usize], on_bad_sample: OnBadSample, max_bad_fraction: f64) -> Result<bool, Error> {
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
    let features = FeatureCache::new(folder.to_owned()).loader(model, "cnn", images, 1)?;
    features.prepare(0, &mut |_, _| {})
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
