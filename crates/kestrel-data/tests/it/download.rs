//! Downloads against a scripted server on loopback: one script a case.

use std::fs;
use std::path::Path;
use std::time::Duration;

use kestrel_data::download::{Download, Options, Progress};
use kestrel_data::{Error, Fingerprint, Result};

use crate::server::{Answer, Server, answer, ok};

fn body() -> Vec<u8> {
    (0..200_000u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect()
}

fn options() -> Options {
    Options {
        connect_timeout: Duration::from_secs(2),
        read_timeout: Duration::from_millis(400),
        tries: 2,
        backoff: Duration::from_millis(1),
    }
}

/// Fetches `body()` from `urls` into `folder`.
fn fetch(urls: &[&str], folder: &Path, progress: &mut dyn FnMut(Progress)) -> Result<std::path::PathBuf> {
    let (whole, sha256) = (body(), Fingerprint::of(&body()).to_string());
    let download = Download {
        urls,
        file_name: "file.bin",
        size: Some(whole.len() as u64),
        sha256: &sha256,
    };
    download.fetch(folder, &options(), progress)
}

/// Fetches with these answers; gives the result, the ranges asked for, and whether the file stands at its final path.
fn case(answers: Vec<Answer>, part: &[u8]) -> (Result<std::path::PathBuf>, Vec<Option<String>>, bool) {
    let temp = tempfile::tempdir().unwrap();
    if !part.is_empty() {
        fs::write(temp.path().join(".file.bin.part"), part).unwrap();
    }
    let server = Server::start(answers);
    let url = server.url.clone();
    let result = fetch(&[&url], temp.path(), &mut |_| {});
    let path = temp.path().join("file.bin");
    let stands = path.exists();
    assert!(!stands || fs::read(path).unwrap() == body());
    (result, server.ranges(), stands)
}

#[test]
fn good_download_reports_progress_and_is_not_repeated() {
    let temp = tempfile::tempdir().unwrap();
    let server = Server::start(vec![ok(&body())]);
    let mut seen = Vec::new();
    let path = fetch(&[&server.url], temp.path(), &mut |progress| seen.push(progress)).unwrap();
    assert_eq!(fs::read(&path).unwrap(), body());
    assert_eq!(
        seen.first(),
        Some(&Progress {
            done: 0,
            total: 200_000
        })
    );
    assert_eq!(
        seen.last(),
        Some(&Progress {
            done: 200_000,
            total: 200_000
        })
    );
    assert!(seen.is_sorted_by_key(|progress| progress.done));
    assert_eq!(server.ranges(), [None]);
    // The server is gone: what is there and right is not fetched again.
    assert_eq!(
        fetch(&["https://127.0.0.1:9/"], temp.path(), &mut |_| {}).unwrap(),
        path
    );
}

#[test]
fn truncated_download_goes_on_by_range() {
    let whole = body();
    let first = answer("200 OK", "", whole.len(), &whole[..50_000]);
    let range = "Content-Range: bytes 50000-199999/200000\r\n";
    let rest = answer("206 Partial Content", range, 150_000, &whole[50_000..]);
    let (result, ranges, _) = case(vec![first, rest], &[]);
    result.unwrap();
    assert_eq!(ranges, [None, Some("bytes=50000-".to_owned())]);
}

#[test]
fn download_of_an_earlier_process_goes_on() {
    let whole = body();
    let range = "Content-Range: bytes 777-199999/200000\r\n";
    let rest = answer("206 Partial Content", range, 199_223, &whole[777..]);
    let (result, ranges, _) = case(vec![rest], &whole[..777]);
    result.unwrap();
    assert_eq!(ranges, [Some("bytes=777-".to_owned())]);
    // A part that is already whole needs no server.
    case(vec![], &whole).0.unwrap();
}

#[test]
fn ignored_or_wrong_range_starts_again() {
    let whole = body();
    let (result, ranges, _) = case(vec![ok(&whole)], &whole[..777]);
    result.unwrap();
    assert_eq!(ranges.len(), 1);
    let wrong = answer(
        "206 Partial Content",
        "Content-Range: bytes 0-199999/200000\r\n",
        200_000,
        &whole,
    );
    case(vec![wrong, ok(&whole)], &whole[..777]).0.unwrap();
    let refused = answer("416 Range Not Satisfiable", "", 0, b"");
    case(vec![refused, ok(&whole)], &whole[..777]).0.unwrap();
}

#[test]
fn wrong_bytes_never_reach_the_final_path() {
    let mut wrong = body();
    wrong[100_000] ^= 1;
    let (result, ranges, stands) = case(vec![ok(&wrong), ok(&wrong)], &[]);
    assert!(matches!(result, Err(Error::ChecksumMismatch { .. })) && !stands);
    // The wrong part is not built upon.
    assert_eq!(ranges, [None, None]);
    // A wrong part of an earlier process is noticed at the end, and fetched again.
    let rest = answer(
        "206 Partial Content",
        "Content-Range: bytes 3-199999/200000\r\n",
        199_997,
        &body()[3..],
    );
    case(vec![rest, ok(&body())], b"bad").0.unwrap();
}

#[test]
fn too_many_bytes_end_the_download() {
    let longer = [body(), vec![0; 100_000]].concat();
    let (result, _, stands) = case(vec![ok(&longer)], &[]);
    let error = result.unwrap_err().to_string();
    assert!(
        error.contains("more than the expected 200000 bytes") && !stands,
        "{error}"
    );
}

#[test]
fn stalled_server_times_out() {
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n";
    let stall = Answer::Stall([head.as_slice(), &body()[..1000]].concat());
    let started = std::time::Instant::now();
    let (result, ranges, stands) = case(vec![stall, Answer::Stall(Vec::new())], &[]);
    assert!(matches!(result, Err(Error::Download { .. })) && !stands);
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    // What had come is kept.
    assert_eq!(ranges, [None, Some("bytes=1000-".to_owned())]);
}

#[test]
fn server_errors_are_tried_again_and_missing_files_are_not() {
    case(vec![answer("503 Service Unavailable", "", 0, b""), ok(&body())], &[])
        .0
        .unwrap();
    let error = case(vec![answer("404 Not Found", "", 0, b"")], &[])
        .0
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("404") && error.contains("other means") && !error.contains("--"),
        "{error}"
    );
}

#[test]
fn next_mirror_is_tried() {
    let temp = tempfile::tempdir().unwrap();
    let (bad, good) = (
        Server::start(vec![answer("404 Not Found", "", 0, b"")]),
        Server::start(vec![ok(&body())]),
    );
    fetch(&[&bad.url, &good.url], temp.path(), &mut |_| {}).unwrap();
}

#[test]
fn plain_http_is_refused_off_this_machine_for_redirects_too() {
    let temp = tempfile::tempdir().unwrap();
    let insecure = |url: &str| fetch(&[url], temp.path(), &mut |_| {});
    for url in [
        "http://example.com/file",
        "ftp://127.0.0.1/file",
        "http://127.0.0.1.example.com/",
        "http://10.0.0.1/",
    ] {
        assert!(matches!(insecure(url), Err(Error::InsecureUrl { .. })), "{url}");
    }
    assert!(matches!(insecure("no url"), Err(Error::InvalidParameter { .. })));
    let redirect = answer("302 Found", "Location: http://example.com/file\r\n", 0, b"");
    match case(vec![redirect], &[]).0.unwrap_err() {
        Error::InsecureUrl { url } => assert_eq!(url, "http://example.com/file"),
        other => panic!("{other}"),
    }
    // A redirect on this machine is followed.
    let target = Server::start(vec![ok(&body())]);
    let redirect = answer("302 Found", &format!("Location: {}\r\n", target.url), 0, b"");
    case(vec![redirect], &[]).0.unwrap();
}

#[test]
fn second_process_is_told_to_wait() {
    let temp = tempfile::tempdir().unwrap();
    let held = fs::File::create(temp.path().join(".file.bin.part")).unwrap();
    held.lock().unwrap();
    assert!(matches!(
        fetch(&["https://127.0.0.1:9/"], temp.path(), &mut |_| {}),
        Err(Error::Busy { .. })
    ));
}

#[test]
fn cifar10_is_fetched_checked_unpacked_and_kept() {
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use kestrel_data::Dataset;
    use kestrel_data::datasets::cifar10;

    // All black, so that it packs to a few hundred kilobytes.
    let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    let black = vec![0; 30_730_000];
    for name in [
        "data_batch_1",
        "data_batch_2",
        "data_batch_3",
        "data_batch_4",
        "data_batch_5",
        "test_batch",
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_size(black.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, format!("{}/{name}.bin", cifar10::FOLDER), black.as_slice())
            .unwrap();
    }
    let packed = tar.into_inner().unwrap().finish().unwrap();
    let sha256 = Fingerprint::of(&packed).to_string();
    let server = Server::start(vec![ok(&packed)]);
    let urls = [server.url.as_str()];
    let download = Download {
        urls: &urls,
        file_name: cifar10::ARCHIVE_NAME,
        size: Some(packed.len() as u64),
        sha256: &sha256,
    };
    let temp = tempfile::tempdir().unwrap();
    let data = temp.path().join("data");
    let open = || cifar10::open_or_download(&data, &download, &options(), &mut |_| {});
    assert_eq!(open().unwrap().train.len(), 50_000);
    // From the cache: the server has no second answer.
    assert_eq!(open().unwrap().test.len(), 10_000);
    let mut kept: Vec<_> = fs::read_dir(&data)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    kept.sort();
    assert_eq!(kept, [&format!(".{}.lock", cifar10::FOLDER), cifar10::FOLDER]);
    // A flipped bit in the cache is found.
    let batch = data.join(cifar10::FOLDER).join("data_batch_2.bin");
    let mut changed = black;
    changed[5_000] = 1;
    fs::write(&batch, changed).unwrap();
    assert!(matches!(open(), Err(Error::ChecksumMismatch { path, .. }) if path == batch));
    // Without its manifest it is no cache.
    fs::remove_file(data.join(cifar10::FOLDER).join("kestrel-manifest.txt")).unwrap();
    assert!(matches!(open(), Err(Error::Unverified { .. })));
}

#[test]
fn official_archive_is_pinned() {
    use kestrel_data::datasets::cifar10::ARCHIVE;
    assert_eq!((ARCHIVE.size, ARCHIVE.sha256.len()), (Some(170_052_171), 64));
    assert!(ARCHIVE.urls.iter().all(|url| url.starts_with("https://")));
}

#[test]
fn idx_files_are_fetched_checked_and_kept_by_a_manifest() {
    use kestrel_data::Dataset;
    use kestrel_data::datasets::idx::{self, Remote};

    let images = |count: u8| {
        [
            &[0, 0, 8, 3, 0, 0, 0, count, 0, 0, 0, 2, 0, 0, 0, 2][..],
            &vec![count; 4 * usize::from(count)],
        ]
        .concat()
    };
    let labels = |count: u8| [&[0, 0, 8, 1, 0, 0, 0, count][..], &vec![1; usize::from(count)]].concat();
    let bodies = [images(3), labels(3), images(2), labels(2)];
    let sums = bodies.each_ref().map(|body| Fingerprint::of(body).to_string());
    // The first address of the first file lacks it.
    let missing = Server::start(vec![answer("404 Not Found", "", 0, b"")]);
    let server = Server::start(bodies.iter().map(|body| ok(body)).collect());
    let (both, one) = ([missing.url.as_str(), server.url.as_str()], [server.url.as_str()]);
    let file = |index: usize, file_name| Download {
        urls: if index == 0 { &both } else { &one },
        file_name,
        size: Some(bodies[index].len() as u64),
        sha256: &sums[index],
    };
    let remote = Remote {
        name: "Tiny",
        folder: "tiny",
        classes: &["a", "b"],
        files: [file(0, "a"), file(1, "b"), file(2, "c"), file(3, "d")],
    };
    let temp = tempfile::tempdir().unwrap();
    let data = temp.path().join("data");
    let mut last = None;
    let mut open = || idx::open_or_download(&data, &remote, &options(), &mut |progress| last = Some(progress));
    let splits = open().unwrap();
    assert_eq!((splits.train.len(), splits.test.len()), (3, 2));
    assert_eq!(splits.test.image(1).unwrap().pixels()[0], 2);
    // From the cache: the server has no fifth answer.
    assert_eq!(open().unwrap().train.classes(), ["a", "b"]);
    let total = bodies.iter().map(|body| body.len() as u64).sum();
    assert_eq!(last, Some(Progress { done: total, total }));
    fs::write(data.join("tiny/d"), labels(1)).unwrap();
    let mut ignore = |_: Progress| {};
    let mut again = || idx::open_or_download(&data, &remote, &options(), &mut ignore);
    assert!(matches!(again(), Err(Error::ChecksumMismatch { path, .. }) if path.ends_with("tiny/d")));
    fs::remove_file(data.join("tiny/kestrel-manifest.txt")).unwrap();
    assert!(matches!(again(), Err(Error::Unverified { .. })));
}

#[test]
fn official_idx_files_are_pinned_and_mirrored() {
    use kestrel_data::datasets::idx::{FASHION_MNIST, MNIST};
    for file in MNIST.files.iter().chain(&FASHION_MNIST.files) {
        assert!(
            file.size.is_some_and(|size| size > 4_000) && file.sha256.len() == 64 && file.urls.len() == 2,
            "{file:?}"
        );
        assert!(
            file.urls
                .iter()
                .all(|url| url.starts_with("https://") && url.ends_with(file.file_name))
        );
    }
}

#[test]
fn a_file_of_unknown_size_is_checked_by_the_first_digits_of_its_sha256() {
    let sha256 = Fingerprint::of(&body()).to_string();
    let fetch = |answers: Vec<Answer>, digits: &str| {
        let server = Server::start(answers);
        let temp = tempfile::tempdir().unwrap();
        let download = Download {
            urls: &[server.url.as_str()],
            file_name: "file.bin",
            size: None,
            sha256: digits,
        };
        let mut last = None;
        let result = download.fetch(temp.path(), &options(), &mut |progress| last = Some(progress));
        let bytes = fs::read(temp.path().join("file.bin")).ok();
        // Once it is there and right, the server is not asked again.
        if result.is_ok() {
            download.fetch(temp.path(), &options(), &mut |_| {}).unwrap();
        }
        server.ranges();
        (result, last, bytes)
    };
    let (result, last, bytes) = fetch(vec![ok(&body())], &sha256[..8]);
    result.unwrap();
    assert_eq!(bytes, Some(body()));
    let whole = body().len() as u64;
    assert_eq!(
        last,
        Some(Progress {
            done: whole,
            total: whole
        })
    );

    // Cut off on the way, and continued.
    let cut = answer("200 OK", "", body().len(), &body()[..1000]);
    let range = format!("Content-Range: bytes 1000-{}/{whole}\r\n", whole - 1);
    let rest = answer("206 Partial Content", &range, body().len() - 1000, &body()[1000..]);
    let (result, _, bytes) = fetch(vec![cut, rest], &sha256[..8]);
    result.unwrap();
    assert_eq!(bytes, Some(body()));

    let (result, _, bytes) = fetch(vec![ok(b"other"), ok(b"other")], &sha256[..8]);
    assert!(matches!(result, Err(Error::ChecksumMismatch { .. })) && bytes.is_none());
    // Nothing to check it by, whether a file is there or not.
    let temp = tempfile::tempdir().unwrap();
    for there in [false, true] {
        if there {
            fs::write(temp.path().join("file.bin"), "any bytes").unwrap();
        }
        let unpinned = Download {
            urls: &["https://127.0.0.1:9/"],
            file_name: "file.bin",
            size: None,
            sha256: "",
        };
        let error = unpinned.fetch(temp.path(), &options(), &mut |_| {}).unwrap_err();
        assert!(
            matches!(error, Error::InvalidParameter { name: "sha256", .. }),
            "{there}: {error}"
        );
    }
}

/// A data set of four IDX files, two black training images and two test images; each file from a server of its own, which gives it
/// to any number of connections.
fn tiny_idx(use_it: &dyn Fn(&kestrel_data::datasets::idx::Remote<'_>)) {
    let images = [&[0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 2][..], &[0; 8]].concat();
    let labels = vec![0, 0, 8, 1, 0, 0, 0, 2, 0, 1];
    let bodies = [images.clone(), labels.clone(), images, labels];
    let sums = bodies.each_ref().map(|body| Fingerprint::of(body).to_string());
    let servers = bodies.each_ref().map(|body| Server::start(vec![ok(body); 20]));
    let urls = servers.each_ref().map(|server| [server.url.as_str()]);
    let file = |index: usize, file_name| Download {
        urls: &urls[index],
        file_name,
        size: Some(bodies[index].len() as u64),
        sha256: &sums[index],
    };
    use_it(&kestrel_data::datasets::idx::Remote {
        name: "Tiny",
        folder: "tiny",
        classes: &["a", "b"],
        files: [file(0, "a"), file(1, "b"), file(2, "c"), file(3, "d")],
    });
}

/// Whoever comes while the copy is made is told to wait, at every instant of it: not only while a file is on its way.
#[test]
fn a_copy_that_is_being_made_is_locked_as_a_whole() {
    use kestrel_data::datasets::{cifar10, idx};
    let temp = tempfile::tempdir().unwrap();
    let lock = |folder: &str| {
        let file = fs::File::create(temp.path().join(format!(".{folder}.lock"))).unwrap();
        file.lock().unwrap();
        file
    };
    let held = lock(cifar10::FOLDER);
    // The archive is whole, so that there would be nothing left to fetch.
    let packed = b"not looked at";
    fs::write(temp.path().join(cifar10::ARCHIVE_NAME), packed).unwrap();
    let download = Download {
        urls: &[],
        file_name: cifar10::ARCHIVE_NAME,
        size: None,
        sha256: &Fingerprint::of(packed).to_string(),
    };
    let open = || cifar10::open_or_download(temp.path(), &download, &options(), &mut |_| {});
    assert!(matches!(open(), Err(Error::Busy { path }) if path.ends_with(format!(".{}.lock", cifar10::FOLDER))));
    drop(held);
    assert!(matches!(open(), Err(Error::Io { action: "unpack", .. })));
    tiny_idx(&|remote| {
        let open = || idx::open_or_download(temp.path(), remote, &options(), &mut |_| {});
        let held = lock("tiny");
        assert!(matches!(open(), Err(Error::Busy { .. })));
        drop(held);
        open().unwrap();
        // A copy that is whole needs no lock.
        let held = lock("tiny");
        open().unwrap();
        drop(held);
    });
}

#[test]
fn of_first_runs_at_once_one_makes_the_copy_and_the_others_find_it_or_are_told_to_wait() {
    use kestrel_data::datasets::idx;
    for _ in 0..10 {
        let temp = tempfile::tempdir().unwrap();
        tiny_idx(&|remote| {
            let open = || idx::open_or_download(temp.path(), remote, &options(), &mut |_| {}).map(drop);
            let results: Vec<_> = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..4).map(|_| scope.spawn(open)).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            let others = |error: &Error| matches!(error, Error::Busy { .. });
            assert!(
                results.iter().all(|result| result.as_ref().err().is_none_or(others))
                    && results.iter().any(Result::is_ok),
                "{results:?}"
            );
            open().unwrap();
        });
    }
}
