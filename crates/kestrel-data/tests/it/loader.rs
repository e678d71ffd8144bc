//! The loader: the same batches for any thread count and from any start, every fault an error, nothing hangs.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::time::Duration;

use kestrel_data::datasets::sample;
use kestrel_data::loader::{Batch, DataLoader, LoaderConfig};
use kestrel_data::pixels::Image;
use kestrel_data::transforms::{Compose, presets};
use kestrel_data::{Dataset, Error, Fingerprint, InMemory, Result};

/// Fails the test if `work` takes longer than five seconds.
fn within_5_s<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = channel();
    let thread = std::thread::spawn(move || sender.send(work()));
    let value = receiver
        .recv_timeout(Duration::from_secs(5))
        .expect("it hangs, or it panicked");
    thread.join().unwrap().unwrap();
    value
}

fn config(batch_size: usize, threads: usize) -> LoaderConfig {
    LoaderConfig {
        batch_size,
        shuffle: true,
        seed: 3,
        threads,
        ..LoaderConfig::default()
    }
}

/// All that is in a batch, to compare.
fn contents(batch: &Batch) -> (Vec<usize>, Vec<u32>, Vec<u32>, Vec<usize>) {
    let images = batch.images.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let targets = batch.targets.to_vec1::<u32>().unwrap();
    let bits = images.into_iter().map(f32::to_bits).collect();
    (batch.images.dims().to_vec(), bits, targets, batch.indices.clone())
}

#[test]
fn batches_do_not_depend_on_threads_or_on_the_start() {
    let test = sample::load().unwrap().test;
    let run = |threads, prefetch, first| {
        let config = LoaderConfig {
            prefetch,
            ..config(96, threads)
        };
        let loader = DataLoader::new(test.clone(), presets::cifar_train(32).unwrap(), config).unwrap();
        loader
            .epoch_from(2, first)
            .map(|batch| contents(&batch.unwrap()))
            .collect::<Vec<_>>()
    };
    let straight = run(1, 1, 0);
    assert_eq!(straight.len(), 11);
    assert_eq!(straight[10].0, [1000 - 960, 3, 32, 32]);
    for (threads, prefetch) in [(0, 2), (2, 0), (8, 5)] {
        assert!(run(threads, prefetch, 0) == straight, "{threads} threads");
    }
    for first in 0..=12 {
        assert!(run(2, 2, first) == straight[first.min(11)..], "from batch {first}");
    }
    let mut seen: Vec<usize> = straight.iter().flat_map(|batch| batch.3.clone()).collect();
    seen.sort_unstable();
    assert_eq!(seen, (0..1000).collect::<Vec<_>>());
}

#[test]
fn epochs_and_seeds_differ_and_targets_belong_to_their_images() {
    let test = sample::load().unwrap().test;
    let first = |seed, epoch| {
        let config = LoaderConfig { seed, ..config(32, 0) };
        let loader = DataLoader::new(test.clone(), presets::cifar_train(32).unwrap(), config).unwrap();
        let batch = loader.epoch(epoch).next().unwrap().unwrap();
        for (&index, &target) in batch.indices.iter().zip(&batch.targets.to_vec1::<u32>().unwrap()) {
            assert_eq!(test.label(index), target);
        }
        contents(&batch)
    };
    assert!(first(0, 0) == first(0, 0));
    assert!(first(0, 0) != first(0, 1) && first(0, 0) != first(1, 0));
}

#[test]
fn what_is_opened_and_loaded_says_what_it_is() {
    let splits = sample::load().unwrap().into_dyn();
    let loader = DataLoader::new(Arc::clone(&splits.test), Compose::new(), config(500, 1)).unwrap();
    let mut epoch = loader.epoch(7);
    epoch.next().unwrap().unwrap();
    let texts = [format!("{splits:?}"), format!("{epoch:?}")];
    assert!(
        texts.iter().all(|text| text.contains(&splits.test.describe())),
        "{texts:?}"
    );
    assert!(texts[1].contains("epoch: 7, next_batch: 1"), "{texts:?}");
    let opened = kestrel_data::datasets::Opened::Splits(splits);
    assert!(format!("{opened:?}").starts_with("Splits(Splits {"));
}

#[test]
fn counts_follow_drop_last() {
    let test: Arc<dyn Dataset> = sample::load().unwrap().test;
    for (batch_size, drop_last, batches, samples) in [
        (128, false, 8, 1000),
        (128, true, 7, 896),
        (100, true, 10, 1000),
        (2000, false, 1, 1000),
        (2000, true, 0, 0),
    ] {
        let config = LoaderConfig {
            batch_size,
            drop_last,
            ..LoaderConfig::default()
        };
        let loader = DataLoader::new(test.clone(), Compose::new(), config).unwrap();
        assert_eq!((loader.num_batches(), loader.num_samples()), (batches, samples));
        assert_eq!(loader.image_shape(), [3, 32, 32]);
        let mut epoch = loader.epoch(0);
        let sizes: Vec<usize> = epoch.by_ref().map(|batch| batch.unwrap().len()).collect();
        assert_eq!((sizes.len(), sizes.iter().sum()), (batches, samples));
        assert!(epoch.wait() > Duration::ZERO || batches == 0);
    }
}

#[test]
fn values_are_the_pixels_in_order() {
    let data = InMemory::new((0..24).collect(), 2, 2, vec![1, 0], vec!["a".into(), "b".into()], "two").unwrap();
    let loader = DataLoader::new(Arc::new(data), Compose::new(), LoaderConfig::default()).unwrap();
    let batch = loader.epoch(0).next().unwrap().unwrap();
    let images = (batch.images * 255.0)
        .unwrap()
        .round()
        .unwrap()
        .flatten_all()
        .unwrap()
        .to_vec1::<f32>()
        .unwrap();
    let want = [
        0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11, 12, 15, 18, 21, 13, 16, 19, 22, 14, 17, 20, 23,
    ];
    assert_eq!(images, want.map(|v| v as f32));
    assert_eq!(batch.targets.to_vec1::<u32>().unwrap(), [1, 0]);
}

/// What a sample of [`Faulty`] does.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    ImagePanics,
    LabelPanics,
    /// A label that no class has.
    Label(u32),
    Fails,
    OtherSize,
}

/// 40 black images of 4x4, of which one is faulty.
struct Faulty {
    fault: Fault,
    at: usize,
    classes: Vec<String>,
    reads: AtomicUsize,
}

impl Faulty {
    fn new(fault: Fault, at: usize) -> Arc<Self> {
        Arc::new(Self {
            fault,
            at,
            classes: vec!["one".into()],
            reads: AtomicUsize::new(0),
        })
    }
}

impl Dataset for Faulty {
    fn len(&self) -> usize {
        40
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn label(&self, index: usize) -> u32 {
        assert!(
            index != self.at || self.fault != Fault::LabelPanics,
            "no label for {index}"
        );
        match self.fault {
            Fault::Label(label) if index == self.at => label,
            _ => 0,
        }
    }

    fn image(&self, index: usize) -> Result<Image<'_>> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let side = match self.fault {
            Fault::ImagePanics if index == self.at => panic!("the decoder fell over"),
            Fault::Fails if index == self.at => return Err(Error::EmptySplit { path: "nowhere".into() }),
            Fault::OtherSize if index == self.at => 5,
            _ => 4,
        };
        Image::new(vec![0; side * side * 3], side, side)
    }

    fn describe(&self) -> String {
        "a faulty data set".into()
    }

    fn fingerprint(&self) -> Result<Fingerprint> {
        Ok(Fingerprint::of(b"faulty"))
    }
}

/// The batches before the fault, and the fault.
fn run(fault: Fault, at: usize) -> (usize, Error) {
    within_5_s(move || {
        let config = LoaderConfig {
            batch_size: 4,
            threads: 2,
            ..LoaderConfig::default()
        };
        let loader = match DataLoader::new(Faulty::new(fault, at), Compose::new(), config) {
            Ok(loader) => loader,
            Err(error) => return (0, error),
        };
        let mut epoch = loader.epoch(0);
        let mut good = 0;
        loop {
            match epoch.next() {
                Some(Ok(_)) => good += 1,
                Some(Err(error)) => {
                    assert!(epoch.next().is_none(), "the epoch goes on after its error");
                    return (good, error);
                }
                None => panic!("the epoch ended without its error"),
            }
        }
    })
}

#[test]
fn panic_names_the_sample_and_nothing_hangs() {
    for at in [0, 7, 39] {
        let (good, error) = run(Fault::ImagePanics, at);
        assert_eq!(good, at / 4);
        assert!(matches!(error, Error::Panicked { index, .. } if index == at), "{error}");
        assert!(error.to_string().contains("the decoder fell over"), "{error}");
    }
    let (good, error) = run(Fault::LabelPanics, 7);
    assert_eq!(good, 1);
    assert!(
        matches!(error, Error::Panicked { index: 7, .. }) && error.to_string().contains("no label for 7"),
        "{error}"
    );
}

#[test]
fn failing_sample_is_named() {
    let (good, error) = run(Fault::Fails, 13);
    assert_eq!(good, 3);
    assert_eq!(
        error.to_string(),
        "sample 13 of a faulty data set: nowhere holds no samples; expected class folders with images"
    );
}

/// Of such a label candle's cross-entropy makes no loss and no error, and mixing an empty target.
#[test]
fn a_label_that_no_class_has_is_an_error_also_where_batches_are_mixed() {
    use kestrel_data::transforms::MixUp;
    for label in [1, u32::MAX] {
        for transforms in [Compose::new(), Compose::new().then_on_batch(MixUp::new(0.2).unwrap())] {
            let config = LoaderConfig {
                batch_size: 4,
                ..LoaderConfig::default()
            };
            let loader = DataLoader::new(Faulty::new(Fault::Label(label), 6), transforms, config).unwrap();
            let mut epoch = loader.epoch(0);
            epoch.next().unwrap().unwrap();
            let error = epoch.next().unwrap().unwrap_err();
            let Error::Sample { index: 6, source, .. } = error else {
                panic!("{error}")
            };
            assert!(
                matches!(*source, Error::LabelOutOfRange { index: 6, label: got, num_classes: 1, .. } if got == u64::from(label)),
                "{source}"
            );
        }
    }
}

#[test]
fn odd_size_is_an_error() {
    let (good, error) = run(Fault::OtherSize, 20);
    let Error::Sample { index: 20, source, .. } = error else {
        panic!("{error}")
    };
    assert!(
        matches!(
            *source,
            Error::SizeMismatch {
                index: 20,
                expected: (4, 4),
                got: (5, 5),
                ..
            }
        ) && good == 5
    );
}

#[test]
fn dropped_epoch_waits_for_what_is_under_way_and_stays_within_the_prefetch_depth() {
    within_5_s(|| {
        let dataset = Faulty::new(Fault::Fails, usize::MAX);
        let config = LoaderConfig {
            batch_size: 4,
            prefetch: 2,
            ..LoaderConfig::default()
        };
        let loader = DataLoader::new(dataset.clone(), Compose::new(), config).unwrap();
        let mut epoch = loader.epoch(0);
        epoch.next().unwrap().unwrap();
        // One sample to learn the size, one batch taken, two ahead.
        let most = 1 + 4 * 3;
        while dataset.reads.load(Ordering::Relaxed) < most {
            std::thread::sleep(Duration::from_millis(1));
        }
        drop(epoch);
        drop(loader);
        // Whoever made a batch held the data set; nobody does, and none was begun in the meantime.
        assert_eq!(Arc::strong_count(&dataset), 1);
        assert_eq!(dataset.reads.load(Ordering::Relaxed), most);
    });
}

#[test]
fn parameters_are_checked() {
    let data = || Faulty::new(Fault::Fails, usize::MAX);
    let config = LoaderConfig {
        batch_size: 0,
        ..LoaderConfig::default()
    };
    assert!(matches!(
        DataLoader::new(data(), Compose::new(), config),
        Err(Error::InvalidParameter { .. })
    ));
    let text = "batch_size = 64\nshuffle = true\n";
    let read: LoaderConfig = toml::from_str(text).unwrap();
    assert_eq!(
        read,
        LoaderConfig {
            batch_size: 64,
            shuffle: true,
            ..LoaderConfig::default()
        }
    );
    assert!(toml::from_str::<LoaderConfig>("batchsize = 3").is_err());
}

/// The thread that waits for a batch may be the only one that can make it.
#[test]
fn an_epoch_ends_within_a_pool_of_one_thread() {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let splits = kestrel_data::datasets::sample::load().unwrap();
        let config = LoaderConfig {
            batch_size: 64,
            ..LoaderConfig::default()
        };
        let transforms = kestrel_data::transforms::presets::cifar_eval().unwrap();
        let loader = DataLoader::new(splits.test, transforms, config).unwrap();
        sender.send(pool.install(|| loader.epoch(0).map(Result::unwrap).count()))
    });
    let batches = receiver.recv_timeout(std::time::Duration::from_secs(60)).unwrap();
    assert_eq!(batches, 1000usize.div_ceil(64));
}
