//! `kestrel serve`: the answers of `predict`, and every way in which a client may be at fault.

use std::fs;
use std::io::{BufReader, Cursor, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use image::{DynamicImage, ImageFormat, RgbImage};

use crate::pictures::{stdout, succeed, trained};
use crate::serving::{Response, Serving};

fn serve(folder: &Path, more: &[&str]) -> Serving {
    Serving::start(
        folder,
        &[&["serve", "--weights", "runs/a/best.safetensors"], more].concat(),
    )
}

/// A picture of two colours in a format.
fn picture(width: u32, height: u32, format: ImageFormat) -> Vec<u8> {
    let pixels = RgbImage::from_fn(width, height, |x, y| image::Rgb([(x % 200) as u8, (y % 90) as u8, 128]));
    let mut file = Cursor::new(Vec::new());
    DynamicImage::from(pixels).write_to(&mut file, format).unwrap();
    file.into_inner()
}

#[test]
fn a_picture_is_answered_as_predict_does() {
    let dir = trained();
    let serving = serve(dir.path(), &[]);
    let pictures = [
        fs::read(dir.path().join("pictures/test/class1/2.png")).unwrap(),
        picture(32, 32, ImageFormat::Bmp),
        picture(300, 200, ImageFormat::Jpeg),
        picture(90, 700, ImageFormat::WebP),
    ];
    for (i, bytes) in pictures.iter().enumerate() {
        let name = format!("{i}.image");
        fs::write(dir.path().join(&name), bytes).unwrap();
        let args = [
            "predict",
            "--weights",
            "runs/a/best.safetensors",
            "--format",
            "json",
            "--top-k",
            "2",
        ];
        let said = stdout(&succeed(dir.path(), &[&args[..], &[&name]].concat()));
        let said: serde_json::Value = serde_json::from_str(&said).unwrap();
        for query in ["", "?top=2", "?cam=top", "?cam=class0&top=2"] {
            let answer = serving.predict(query, bytes);
            assert_eq!(answer.status, 200, "{answer:?}");
            let answer = answer.json();
            assert_eq!(answer["predictions"], said[0]["predictions"], "{name} {query}");
            assert_eq!((&answer["model"], &answer["num_classes"]), (&"cnn".into(), &2.into()));
            assert_eq!(answer.get("cam").is_some(), query.contains("cam"));
        }
    }
    let one = serving.predict("?top=1", &pictures[0]).json();
    assert_eq!(one["predictions"].as_array().unwrap().len(), 1);
}

#[test]
fn a_heatmap_covers_what_the_network_sees() {
    let dir = trained();
    let serving = serve(dir.path(), &[]);
    let answer = serving
        .predict("?cam=class1", &picture(320, 200, ImageFormat::Png))
        .json();
    let cam = &answer["cam"];
    assert_eq!(cam["class"], "class1");
    let place = ["left", "top", "width", "height"].map(|name| cam[name].as_f64().unwrap());
    // The middle of 51 x 32 pixels: from column 10 on, for rounding to even, of columns of 320 / 51.
    let column = 320.0 / 51.0;
    for (got, want) in place.iter().zip([10.0 * column, 0.0, 32.0 * column, 200.0]) {
        assert!((got - want).abs() < 1e-9, "{place:?}");
    }
    let png = cam["png"]
        .as_str()
        .unwrap()
        .strip_prefix("data:image/png;base64,")
        .unwrap();
    let heat = image::load_from_memory(&STANDARD.decode(png).unwrap()).unwrap();
    assert!(matches!(heat, DynamicImage::ImageLuma8(_)));
    assert_eq!((heat.width(), heat.height()), (32, 32));
}

#[test]
fn the_page_and_the_model_are_there_to_be_read() {
    let dir = trained();
    let serving = serve(dir.path(), &[]);
    let page = serving.get("/");
    assert_eq!(page.status, 200);
    assert!(page.text().starts_with("<!DOCTYPE html>"));
    assert!(
        page.header("content-security-policy")
            .unwrap()
            .contains("default-src 'none'")
    );
    assert_eq!(page.header("access-control-allow-origin"), None);
    let model = serving.get("/model").json();
    assert_eq!(model["classes"], serde_json::json!(["class0", "class1"]));
    assert_eq!((&model["model"], &model["image_size"]), (&"cnn".into(), &32.into()));
    assert_eq!(model["weights"], "best.safetensors");
}

#[test]
fn every_bad_request_is_told_why() {
    let dir = trained();
    let serving = serve(dir.path(), &["--max-body", "1", "--max-pixels", "1"]);
    let good = picture(32, 32, ImageFormat::Png);
    let mega = vec![0xff; (1 << 20) + 1];
    let png = "Content-Type: image/png\r\n";
    let address = &serving.address;
    let elsewhere = "Origin: http://evil.example\r\n";
    for (line, headers, body, status, word) in [
        ("POST /predict", png, &b"GIF but not really"[..], 400, "upload"),
        ("POST /predict", png, b"", 400, "empty"),
        ("POST /predict", png, &good[..good.len() / 2], 400, "upload"),
        ("POST /predict", png, &mega, 413, "1 MiB"),
        (
            "POST /predict",
            png,
            &picture(1001, 1000, ImageFormat::Png),
            413,
            "1000000",
        ),
        ("POST /predict?top=0", png, &good, 400, "from 1 on"),
        ("POST /predict?cam=dog", png, &good, 400, "no class is called"),
        ("POST /predict?k=1", png, &good, 400, "top and cam"),
        ("POST /predict", "", &good, 415, "Content-Type"),
        (
            "POST /predict",
            "Content-Type: text/plain\r\n",
            &good,
            415,
            "Content-Type",
        ),
        (
            "POST /predict",
            &format!("{png}{elsewhere}"),
            &good,
            403,
            "another site",
        ),
        ("GET /predict", "", b"", 405, "POST"),
        ("DELETE /", "", b"", 405, "GET"),
        ("POST /", png, &good, 405, "GET"),
        ("OPTIONS /predict", elsewhere, b"", 403, "another site"),
        ("GET /../runs/a/config.toml", "", b"", 404, "POST /predict"),
    ] {
        let answer = serving.ask(line, headers, body);
        assert_eq!(answer.status, status, "{line} {headers}: {answer:?}");
        assert!(answer.error().contains(word), "{line}: {}", answer.error());
        assert_eq!(answer.header("access-control-allow-origin"), None);
        assert_eq!(answer.header("allow").is_some(), status == 405, "{answer:?}");
    }
    let other = format!("POST /predict HTTP/1.1\r\nHost: evil.example\r\n{png}Content-Length: 0\r\n\r\n");
    for (request, status) in [
        (other.as_str(), Some(403)),
        ("POST /predict HTTP/1.0\r\n\r\n", Some(403)),
        ("no HTTP at all\r\n\r\n", Some(400)),
        (
            &format!(
                "GET / HTTP/1.1\r\nHost: {address}\r\nX: {}\r\n\r\n",
                "x".repeat(100_000)
            ),
            Some(431),
        ),
    ] {
        let mut stream = serving.connect();
        let _ = stream.write_all(request.as_bytes());
        let answer = Response::read(&mut BufReader::new(stream));
        assert_eq!(
            answer.map(|answer| answer.status),
            status,
            "{}",
            &request[..30.min(request.len())]
        );
    }
    // And after all that:
    assert_eq!(serving.predict("", &good).status, 200);
}

#[test]
fn bodies_in_chunks_are_read_and_bounded_too() {
    let dir = trained();
    let serving = serve(dir.path(), &["--max-body", "1"]);
    let send = |body: &[u8]| {
        let mut stream = serving.connect();
        let head = format!(
            "POST /predict HTTP/1.1\r\nHost: {}\r\nContent-Type: image/png\r\nTransfer-Encoding: chunked\r\n\r\n",
            serving.address
        );
        stream.write_all(head.as_bytes()).unwrap();
        let _ = stream.write_all(body);
        Response::read(&mut BufReader::new(stream)).unwrap()
    };
    let chunks = |bytes: &[u8], size: usize| {
        let mut body = Vec::new();
        for chunk in bytes.chunks(size) {
            body.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
            body.extend([chunk, b"\r\n"].concat());
        }
        [&body[..], b"0\r\n\r\n"].concat()
    };
    let good = picture(32, 32, ImageFormat::Png);
    let answer = send(&chunks(&good, 100));
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.json(), serving.predict("", &good).json());
    let answer = send(&chunks(&vec![7; 3 << 20], 60_000));
    assert_eq!(
        (answer.status, answer.error().contains("1 MiB")),
        (413, true),
        "{answer:?}"
    );
    assert_eq!(send(b"zz\r\nno number\r\n").status, 400);
}

#[test]
fn a_slow_client_holds_nobody_up_and_is_left_in_time() {
    let dir = trained();
    let serving = serve(dir.path(), &["--timeout", "1"]);
    let good = picture(32, 32, ImageFormat::Png);
    let head = serving.head("POST /predict", "Content-Type: image/png\r\n", good.len());
    let parts: [&[u8]; 3] = [b"", &head[..head.len() - 10], &[&head[..], &good[..20]].concat()];
    let slow = parts.map(|part| {
        let mut stream = serving.connect();
        stream.write_all(part).unwrap();
        stream
    });
    assert_eq!(serving.predict("", &good).status, 200);
    let [silent, half_head, half_body] = slow.map(|stream| Response::read(&mut BufReader::new(stream)));
    assert!(silent.is_none() && half_head.is_none(), "{silent:?} {half_head:?}");
    let late = half_body.unwrap();
    assert_eq!((late.status, late.error().contains("1 s")), (408, true), "{late:?}");
    // One that goes away in the middle leaves its place.
    let mut gone = serving.connect();
    gone.write_all(parts[2]).unwrap();
    drop(gone);
    assert_eq!(serving.predict("", &good).status, 200);
}

#[test]
fn requests_on_one_connection_are_answered_in_their_order() {
    let dir = trained();
    let serving = serve(dir.path(), &[]);
    let good = picture(32, 32, ImageFormat::Png);
    let one = |top| {
        let line = format!("POST /predict?top={top}");
        [
            &serving.head(&line, "Content-Type: image/png\r\n", good.len())[..],
            &good,
        ]
        .concat()
    };
    let mut stream = serving.connect();
    // A refusal in the middle does not end the connection: its body is read and dropped.
    let refused = serving.head("POST /predict", "Content-Type: text/plain\r\n", 5);
    let all = [&one(1)[..], &one(2), &refused, b"hello", &one(1)].concat();
    stream.write_all(&all).unwrap();
    let mut stream = BufReader::new(stream);
    for want in [Some(1), Some(2), None, Some(1)] {
        let answer = Response::read(&mut stream).unwrap();
        match want {
            Some(count) => assert_eq!(answer.json()["predictions"].as_array().unwrap().len(), count),
            None => assert_eq!(answer.status, 415),
        }
    }
}

#[test]
fn who_comes_when_all_places_are_taken_is_told_to_come_again() {
    let dir = trained();
    let serving = serve(dir.path(), &["--concurrency", "1"]);
    let good = picture(32, 32, ImageFormat::Png);
    // Each takes a while.
    let large = picture(6000, 6000, ImageFormat::Png);
    let answers: Vec<_> = std::thread::scope(|scope| {
        let asked: Vec<_> = (0..8).map(|_| scope.spawn(|| serving.predict("", &large))).collect();
        asked.into_iter().map(|answer| answer.join().unwrap()).collect()
    });
    assert!(answers.iter().any(|answer| answer.status == 200));
    let busy = answers
        .iter()
        .find(|answer| answer.status == 503)
        .expect("all were answered");
    assert_eq!(busy.header("retry-after"), Some("1"), "{busy:?}");
    assert!(busy.error().contains("try again"));
    assert_eq!(serving.predict("", &good).status, 200);
}

#[test]
fn bodies_on_the_way_take_no_place_and_bounded_memory() {
    let dir = trained();
    let serving = serve(dir.path(), &["--concurrency", "1", "--max-body", "1"]);
    let good = picture(32, 32, ImageFormat::Png);
    let mut first = serving.connect();
    first
        .write_all(&serving.head(
            "POST /predict",
            "Content-Type: image/png\r\nExpect: 100-continue\r\n",
            good.len(),
        ))
        .unwrap();
    let mut first = BufReader::new(first);
    assert_eq!(Response::read(&mut first).unwrap().status, 100);
    assert_eq!(serving.predict("", &good).status, 200);
    first.get_mut().write_all(&good).unwrap();
    assert_eq!(Response::read(&mut first).unwrap().status, 200);

    // Five of the largest size are more than there is memory for. None can end, so one of them is told.
    let almost = vec![7; (1 << 20) - 1];
    let head = serving.head("POST /predict", "Content-Type: image/png\r\n", 1 << 20);
    let slow: Vec<_> = (0..5)
        .map(|_| {
            let mut stream = serving.connect();
            stream.write_all(&head).unwrap();
            // It may be refused before all of it is sent.
            let _ = stream.write_all(&almost);
            stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
            stream
        })
        .collect();
    let told = |stream: &&TcpStream| stream.peek(&mut [0]).is_ok_and(|bytes| bytes > 0);
    let busy = (0..60).find_map(|_| slow.iter().find(told)).expect("nobody was told");
    let busy = Response::read(&mut BufReader::new(busy)).unwrap();
    assert_eq!((busy.status, busy.header("retry-after")), (503, Some("1")), "{busy:?}");
    assert!(busy.error().contains("bytes"), "{busy:?}");
    drop(slow);
    let answers = std::iter::repeat_with(|| serving.predict("", &good));
    let freed = answers.take(1000).find(|answer| answer.status == 200);
    assert!(freed.is_some(), "the memory was not given back");
}

#[test]
fn of_two_hundred_at_once_none_is_lost() {
    let dir = trained();
    let serving = serve(dir.path(), &[]);
    let good = picture(32, 32, ImageFormat::Png);
    let want = serving.predict("", &good).json();
    let busy = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..200 {
            scope.spawn(|| {
                loop {
                    let answer = serving.predict("", &good);
                    if answer.status == 503 {
                        busy.fetch_add(1, Ordering::Relaxed);
                        std::thread::sleep(std::time::Duration::from_millis(20));
                        continue;
                    }
                    assert_eq!(answer.status, 200, "{answer:?}");
                    assert_eq!(answer.json(), want);
                    break;
                }
            });
        }
    });
    println!("{} answers were 503", busy.into_inner());
}

#[cfg(unix)]
#[test]
fn a_signal_ends_it_after_what_was_asked() {
    for signal in ["-INT", "-TERM"] {
        let dir = trained();
        let serving = serve(dir.path(), &[]);
        let good = picture(32, 32, ImageFormat::Png);
        // One that is idle between two requests, and one that is under way.
        let mut idle = serving.connect();
        idle.write_all(&serving.head("GET /model", "", 0)).unwrap();
        let mut idle = BufReader::new(idle);
        assert_eq!(Response::read(&mut idle).unwrap().status, 200);
        let mut asked = serving.connect();
        let head = serving.head(
            "POST /predict",
            "Content-Type: image/png\r\nExpect: 100-continue\r\n",
            good.len(),
        );
        asked.write_all(&head).unwrap();
        let mut asked = BufReader::new(asked);
        assert_eq!(Response::read(&mut asked).unwrap().status, 100);
        serving.signal(signal);
        // The idle one is closed when the signal has been seen.
        assert!(Response::read(&mut idle).is_none());
        asked.get_mut().write_all(&good).unwrap();
        let answer = Response::read(&mut asked).unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(serving.end().code(), Some(0), "{signal}");
    }
}
