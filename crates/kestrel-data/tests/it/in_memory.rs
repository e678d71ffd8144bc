//! Image files decoded into memory: what is asked of memory, and how soon a fault ends it.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use kestrel_data::datasets::ImageFiles;
use kestrel_data::pixels::Image;
use kestrel_data::{BadSamplePolicy, Dataset, Error, Fingerprint, InMemory, OnBadSample, Result};

/// So many files of 2x2 pixels, made when asked for and counted, some of them at fault.
struct Made {
    files: usize,
    classes: Vec<String>,
    decoded: AtomicUsize,
    fault: fn(usize) -> Option<Fault>,
}

enum Fault {
    /// It has another size.
    Larger,
    /// It is damaged.
    Damaged,
}

impl Made {
    fn new(files: usize, fault: fn(usize) -> Option<Fault>) -> Self {
        Self {
            files,
            classes: vec!["a".to_owned()],
            decoded: AtomicUsize::new(0),
            fault,
        }
    }
}

impl Dataset for Made {
    fn len(&self) -> usize {
        self.files
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn label(&self, _: usize) -> u32 {
        0
    }

    fn image(&self, index: usize) -> Result<Image<'_>> {
        self.decoded.fetch_add(1, Ordering::Relaxed);
        match (self.fault)(index) {
            None => Image::new(&[7; 12], 2, 2),
            Some(Fault::Larger) => Image::new(&[7; 27], 3, 3),
            Some(Fault::Damaged) => Err(Error::TruncatedImage {
                path: self.path(index),
                reason: "made so",
            }),
        }
    }

    fn describe(&self) -> String {
        "made".to_owned()
    }

    fn fingerprint(&self) -> Result<Fingerprint> {
        Ok(Fingerprint::of(b"made"))
    }
}

impl ImageFiles for Made {
    fn path(&self, index: usize) -> PathBuf {
        format!("{index}.png").into()
    }

    fn read(&self, _: usize) -> Result<Vec<u8>> {
        Ok(Vec::new())
    }
}

fn skip(max_bad_fraction: f64) -> BadSamplePolicy {
    BadSamplePolicy {
        on_bad_sample: OnBadSample::Skip,
        max_bad_fraction,
    }
}

#[test]
fn images_that_memory_cannot_hold_are_an_error_before_they_are_decoded() {
    // More than any address space holds, and more than can be counted.
    for files in [1 << 50, usize::MAX / 2] {
        let made = Made::new(files, |_| None);
        let error = InMemory::decode(&made, BadSamplePolicy::default()).unwrap_err();
        let text = error.to_string();
        assert!(
            matches!(&error, Error::ImagesExceedMemory { images, size: (2, 2), .. } if *images == files),
            "{text}"
        );
        assert!(
            text.contains(&files.to_string()) && text.contains("2x2") && text.contains("name transforms"),
            "{text}"
        );
        assert!(!error.is_bad_image());
        assert_eq!(made.decoded.into_inner(), 1);
    }
}

#[test]
fn decoding_ends_soon_after_the_first_fault_that_ends_it() {
    let odd = Made::new(100_000, |index| (index == 900).then_some(Fault::Larger));
    let error = InMemory::decode(&odd, skip(1.0)).unwrap_err();
    assert!(matches!(error, Error::SizeMismatch { index: 900, .. }), "{error}");
    let decoded = odd.decoded.into_inner();
    assert!((901..50_000).contains(&decoded), "{decoded}");
    // One more than may be skipped, the first that is too many.
    let damaged = Made::new(100_000, |index| (index % 10 == 3).then_some(Fault::Damaged));
    let error = InMemory::decode(&damaged, skip(0.0002)).unwrap_err();
    match &error {
        Error::TooManyBadSamples { bad: 21, last, .. } => assert!(last.to_string().contains("203.png"), "{error}"),
        _ => panic!("{error}"),
    }
    let decoded = damaged.decoded.into_inner();
    assert!((204..50_000).contains(&decoded), "{decoded}");
}

#[test]
fn what_is_left_after_skipping_moves_up() {
    // The first and the last of them, and some in a row.
    let fault = |index: usize| (index == 0 || index % 100 > 96).then_some(Fault::Damaged);
    let decoded = InMemory::decode(&Made::new(1000, fault), skip(0.05)).unwrap();
    assert_eq!((decoded.len(), decoded.pixels().len()), (969, 969 * 12));
    assert!(decoded.pixels().iter().all(|&value| value == 7));
    // How many they were is still known, by whatever name the classes go.
    let renamed = decoded.with_classes(vec!["b".to_owned()]).unwrap();
    assert_eq!(renamed.left_out(), 31);
}
