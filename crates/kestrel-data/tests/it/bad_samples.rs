//! `--on-bad-sample`: an error that names the file, or a drop that is counted; never a substitute, never a hang.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};
use kestrel_data::datasets::ImageFolder;
use kestrel_data::loader::{DataLoader, LoaderConfig};
use kestrel_data::transforms::Compose;
use kestrel_data::{BadSamplePolicy, Dataset, Error, InMemory, OnBadSample};

/// Twelve PNGs in two classes; the value of each pixel is the sample's index.
fn folder(root: &Path) -> Vec<std::path::PathBuf> {
    (0..12u8)
        .map(|index| {
            let path = root
                .join(if index < 6 { "a" } else { "b" })
                .join(format!("{index:02}.png"));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let mut file = Vec::new();
            PngEncoder::new(&mut file)
                .write_image(&[index; 12], 2, 2, ExtendedColorType::Rgb8)
                .unwrap();
            fs::write(&path, file).unwrap();
            path
        })
        .collect()
}

fn damage(path: &Path) {
    let bytes = fs::read(path).unwrap();
    // The size stays, so that the file did not change since a data set was opened on it.
    fs::write(path, [&bytes[..bytes.len() - 12], &[0; 12]].concat()).unwrap();
}

fn policy(on_bad_sample: OnBadSample, max_bad_fraction: f64) -> BadSamplePolicy {
    BadSamplePolicy {
        on_bad_sample,
        max_bad_fraction,
    }
}

fn loader(root: &Path, bad_samples: BadSamplePolicy, threads: usize) -> kestrel_data::Result<DataLoader> {
    let config = LoaderConfig {
        batch_size: 4,
        threads,
        bad_samples,
        ..LoaderConfig::default()
    };
    DataLoader::new(Arc::new(ImageFolder::open(root).unwrap()), Compose::new(), config)
}

/// The indices of each batch, after a look at pixels and targets.
fn batches(loader: &DataLoader) -> kestrel_data::Result<Vec<Vec<usize>>> {
    let mut all = Vec::new();
    for batch in loader.epoch(0) {
        let batch = batch?;
        let images = (batch.images.affine(255.0, 0.0)).unwrap().flatten_all().unwrap();
        let images: Vec<f32> = images.to_vec1().unwrap();
        assert_eq!(images.len(), 12 * batch.len());
        for (place, (&index, target)) in batch
            .indices
            .iter()
            .zip(batch.targets.to_vec1::<u32>().unwrap())
            .enumerate()
        {
            assert_eq!(target, u32::from(index >= 6));
            assert!(
                images[12 * place..12 * (place + 1)]
                    .iter()
                    .all(|&value| value.round() == index as f32)
            );
        }
        all.push(batch.indices);
    }
    Ok(all)
}

#[test]
fn skipping_drops_counts_and_never_substitutes() {
    let temp = tempfile::tempdir().unwrap();
    let paths = folder(temp.path());
    for index in [0, 5, 6, 11] {
        damage(&paths[index]);
    }
    for threads in [1, 2, 5] {
        let loader = loader(temp.path(), policy(OnBadSample::Skip, 0.5), threads).unwrap();
        assert_eq!(batches(&loader).unwrap(), [vec![1, 2, 3], vec![4, 7], vec![8, 9, 10]]);
        assert_eq!(batches(&loader).unwrap().len(), 3);
        // Each once, for all epochs.
        assert_eq!(loader.num_bad_samples(), 4);
    }
    let decoded = InMemory::decode(&ImageFolder::open(temp.path()).unwrap(), policy(OnBadSample::Skip, 0.5)).unwrap();
    assert_eq!(decoded.labels(), [0, 0, 0, 0, 1, 1, 1, 1]);
    let firsts: Vec<u8> = decoded.pixels().iter().step_by(12).copied().collect();
    assert_eq!(firsts, [1, 2, 3, 4, 7, 8, 9, 10]);
}

#[test]
fn batch_of_bad_samples_only_is_left_out() {
    let temp = tempfile::tempdir().unwrap();
    let paths = folder(temp.path());
    for path in &paths[4..8] {
        damage(path);
    }
    let loader = loader(temp.path(), policy(OnBadSample::Skip, 0.5), 2).unwrap();
    assert_eq!(batches(&loader).unwrap(), [vec![0, 1, 2, 3], vec![8, 9, 10, 11]]);
}

#[test]
fn cap_ends_the_run_and_error_is_the_default() {
    let temp = tempfile::tempdir().unwrap();
    let paths = folder(temp.path());
    for index in [1, 7, 8] {
        damage(&paths[index]);
    }
    let files = ImageFolder::open(temp.path()).unwrap();
    let capped = policy(OnBadSample::Skip, 0.2);
    for error in [
        batches(&loader(temp.path(), capped, 2).unwrap()).unwrap_err(),
        InMemory::decode(&files, capped).unwrap_err(),
    ] {
        let text = error.to_string();
        assert!(
            matches!(
                error,
                Error::TooManyBadSamples {
                    bad: 3,
                    samples: 12,
                    ..
                }
            ),
            "{text}"
        );
        assert!(text.contains("08.png"), "{text}");
    }
    // An epoch that is begun again on the same loader ends too, and not with three samples fewer.
    let again = loader(temp.path(), capped, 2).unwrap();
    for _ in 0..3 {
        let error = batches(&again).unwrap_err();
        assert!(matches!(error, Error::TooManyBadSamples { bad: 3, .. }), "{error}");
    }
    for error in [
        batches(&loader(temp.path(), BadSamplePolicy::default(), 2).unwrap()).unwrap_err(),
        InMemory::decode(&files, BadSamplePolicy::default()).unwrap_err(),
    ] {
        assert!(error.is_bad_image() && error.to_string().contains("01.png"), "{error}");
    }
}

#[test]
fn files_that_change_or_vanish_in_mid_run_are_errors_even_when_skipping() {
    for vanish in [false, true] {
        let temp = tempfile::tempdir().unwrap();
        let paths = folder(temp.path());
        let loader = loader(temp.path(), policy(OnBadSample::Skip, 1.0), 2).unwrap();
        if vanish {
            fs::remove_file(&paths[9]).unwrap();
        } else {
            let bytes = fs::read(&paths[9]).unwrap();
            fs::write(&paths[9], &bytes[..20]).unwrap();
        }
        let error = batches(&loader).unwrap_err();
        assert!(error.to_string().contains("09.png"), "{error}");
        let Error::Sample { index: 9, source, .. } = error else {
            panic!("{error}")
        };
        assert_eq!(matches!(*source, Error::Io { .. }), vanish, "{source}");
        assert_eq!(matches!(*source, Error::Changed { got: 20, .. }), !vanish, "{source}");
    }
}

#[test]
fn nothing_left_is_an_error() {
    let temp = tempfile::tempdir().unwrap();
    for path in folder(temp.path()) {
        damage(&path);
    }
    let skip_all = policy(OnBadSample::Skip, 1.0);
    let files = ImageFolder::open(temp.path()).unwrap();
    assert_eq!(files.len(), 12);
    assert!(matches!(
        InMemory::decode(&files, skip_all),
        Err(Error::EmptySplit { .. })
    ));
    assert!(matches!(
        loader(temp.path(), skip_all, 1),
        Err(Error::EmptySplit { .. })
    ));
}
