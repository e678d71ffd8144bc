//! Fuzzes a target of `fuzz/src/targets.rs` in this process, on stable Rust: seeded mutations of the kept inputs, without
//! coverage.
//!
//!     cargo xtask fuzz TARGET --minutes M [--seed N]
//!
//! The same targets run under `cargo xtask fuzz --coverage`, which follows coverage but needs nightly. An input that panics,
//! or takes longer than five seconds, is written to `fuzz/artifacts/TARGET`, and ends the run with code 1.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../../../fuzz/src/targets.rs"]
mod targets;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use kestrel_kernels::random::{KeyedRng, Purpose};

/// Takes an input and must not panic.
type Target = fn(&[u8]);

const TARGETS: [(&str, Target); 4] = [
    ("decode_image", targets::decode_image),
    ("idx", targets::idx),
    ("cifar_binary", targets::cifar_binary),
    ("archive", targets::archive),
];

/// Values at which lengths and sizes turn over.
const EDGES: [u64; 12] = [
    0,
    1,
    2,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0xffff_ffff,
    0x1_0000,
    u64::MAX,
];
const MAX_INPUT: usize = 1 << 16;
const SLOW: Duration = Duration::from_secs(5);

fn below(rng: &mut KeyedRng, n: usize) -> usize {
    rng.below(n.max(1) as u64) as usize
}

/// Changes an input in one to eight places.
fn mutate(rng: &mut KeyedRng, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut input = corpus[below(rng, corpus.len())].clone();
    for _ in 0..=below(rng, 8) {
        let at = below(rng, input.len());
        match below(rng, 9) {
            _ if input.is_empty() => input.push(rng.next_u32() as u8),
            0 => input[at] ^= 1 << below(rng, 8),
            1 => input[at] = rng.next_u32() as u8,
            2 | 3 => {
                let width = 1 << below(rng, 4);
                let value = EDGES[below(rng, EDGES.len())];
                let bytes = if below(rng, 2) == 0 {
                    value.to_le_bytes()
                } else {
                    value.to_be_bytes()
                };
                let bytes = if below(rng, 2) == 0 {
                    &bytes[..width]
                } else {
                    &bytes[8 - width..]
                };
                for (to, from) in input[at..].iter_mut().zip(bytes) {
                    *to = *from;
                }
            }
            4 => input.truncate(at),
            5 => {
                let end = (at + 1 + below(rng, 64)).min(input.len());
                input.drain(at..end);
            }
            6 => {
                let end = (at + 1 + below(rng, 64)).min(input.len());
                let copy = input[at..end].to_vec();
                let to = below(rng, input.len());
                input.splice(to..to, copy);
            }
            7 => {
                // The head of one and the tail of another.
                let other = &corpus[below(rng, corpus.len())];
                let from = below(rng, other.len());
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            _ => input[at] = input[at].wrapping_add(1).wrapping_sub(2 * below(rng, 2) as u8),
        }
    }
    input.truncate(MAX_INPUT);
    input
}

fn argument(args: &[String], name: &str, default: u64) -> u64 {
    let at = args.iter().position(|arg| arg == name);
    at.map_or(default, |at| {
        args.get(at + 1).and_then(|value| value.parse().ok()).expect(name)
    })
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let named = args
        .first()
        .and_then(|name| TARGETS.iter().find(|(target, _)| target == name));
    let Some(&(name, target)) = named else {
        eprintln!(
            "usage: fuzz TARGET [--minutes M] [--seed N], with TARGET one of {:?}",
            TARGETS.map(|(name, _)| name)
        );
        return ExitCode::from(2);
    };
    let (minutes, seed) = (argument(&args, "--minutes", 10), argument(&args, "--seed", 0));
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fuzz");
    let corpus = read_corpus(&root.join("corpus").join(name));
    let artifacts = root.join("artifacts").join(name);
    std::panic::set_hook(Box::new(|_| {}));
    let (started, mut last) = (Instant::now(), 0);
    let mut count = 0u64;
    while started.elapsed() < Duration::from_secs(60 * minutes) {
        let mut rng = KeyedRng::new(seed, Purpose::Transform, 0, count);
        let input = mutate(&mut rng, &corpus);
        let began = cpu_time();
        let panicked = catch_unwind(AssertUnwindSafe(|| target(&input))).is_err();
        if panicked || cpu_time().saturating_sub(began) > SLOW {
            let path = keep(&artifacts, seed, count, &input);
            let what = if panicked { "panicked" } else { "was slow" };
            println!("{name}: input {count} of seed {seed} {what}: {}", path.display());
            return ExitCode::FAILURE;
        }
        count += 1;
        let minute = started.elapsed().as_secs() / 60;
        if minute > last {
            last = minute;
            println!("{name}: {count} inputs in {minute} min");
        }
    }
    println!("{name}: {count} inputs of seed {seed} in {minutes} min, nothing found");
    ExitCode::SUCCESS
}

/// This thread's time on a processor, where the system tells it; a busy machine must not look like a slow input.
fn cpu_time() -> Duration {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let nanoseconds = told.and_then(|text| text.split(' ').next()?.parse().ok());
    nanoseconds.map_or_else(|| started_at().elapsed(), Duration::from_nanos)
}

fn started_at() -> Instant {
    static STARTED: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    *STARTED.get_or_init(Instant::now)
}

fn read_corpus(folder: &Path) -> Vec<Vec<u8>> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

fn keep(folder: &Path, seed: u64, count: u64, input: &[u8]) -> PathBuf {
    std::fs::create_dir_all(folder).unwrap();
    let path = folder.join(format!("{seed}-{count}"));
    std::fs::write(&path, input).unwrap();
    path
}
