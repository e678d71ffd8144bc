//! `cargo xtask soak`: ends a small run at random instants, by random signals, and lets it go on, until the time is over.
//!
//! Each round's files must be those of the run that was never stopped, byte for byte, whatever number of threads its parts ran
//! with. Not part of the CI, whose tests do the same a few times.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs};

use anyhow::{Context, Result, bail, ensure};

use super::trainer;
use crate::process;

const USAGE: &str = "usage: cargo xtask soak [--minutes M] [--seed N] [--precision f32|bf16|f16]";

/// The precisions by what each adds to the run: in f16, a scale of the loss that is found by skipping steps, and grows again.
const PRECISIONS: [(&str, &str); 3] = [
    ("f32", ""),
    ("bf16", "--precision bf16"),
    ("f16", "--precision f16 --loss-scale 4194304 --loss-scale-interval 7"),
];

/// The run: 80 steps, with a state of everything that a step moves.
const RUN: &str = "train --resume auto --name toy --dataset fashion-mnist-sample --limit 640 --width 2 --batch-size 32 \
                   --epochs 4 --ema 0.9 --lookahead 3 --scheduler cosine --lr-interval step --label-smoothing 0.1 \
                   --checkpoint-every 3 --keep-last 2 --log-every 2 --num-images 4 --device cpu";

/// What of a run's folder its options, data and seed decide, beside its newest checkpoint.
const FILES: [&str; 4] = ["best.safetensors", "metrics.jsonl", "metrics.csv", "predictions.png"];

/// Each signal with the exit code of a run that it has stopped.
const SIGNALS: [(&str, i32); 3] = [("KILL", 137), ("TERM", 143), ("INT", 130)];

struct Plan {
    minutes: u64,
    seed: u64,
    /// What the precision adds to the run.
    precision: &'static str,
}

/// Runs until the time is over; ends at the first difference and leaves its folder.
pub(crate) fn run(features: Option<&OsStr>, args: &[OsString]) -> Result<ExitCode> {
    ensure!(cfg!(unix), "a soak sends signals, which this system has not");
    let plan = Plan::parse(args)?;
    let status = trainer::build(features)?;
    if !status.success() {
        return Ok(process::exit_code(status));
    }
    let folder = env::temp_dir().join(format!("kestrel-soak-{}", std::process::id()));
    let soak = Soak {
        kestrel: trainer::path()?,
        folder: folder.clone(),
        precision: plan.precision,
    };
    let started = Instant::now();
    let straight = soak.folder("straight")?;
    let status = soak
        .start(&straight, 2)?
        .wait()
        .context("cannot wait for the trainer")?;
    ensure!(
        status.success(),
        "the straight run failed; its log is {}",
        straight.join("log").display()
    );
    let length = started.elapsed();
    let want = outcome(&straight)?;
    eprintln!(
        "soak: the straight run took {:.1} s; {}",
        length.as_secs_f64(),
        folder.display()
    );

    let mut random = Random(plan.seed);
    let mut counts = [0u64; SIGNALS.len()];
    let mut rounds = 0u64;
    while started.elapsed() < Duration::from_secs(60 * plan.minutes) {
        let round = soak.folder(&format!("round-{rounds}"))?;
        let endings = soak.round(&round, length, &mut random, &mut counts)?;
        for ((name, got), (_, want)) in outcome(&round)?.iter().zip(&want) {
            ensure!(
                got == want,
                "{name} differs from the straight run's after {endings} ends: compare {} with {} (--seed {})",
                round.display(),
                straight.display(),
                plan.seed
            );
        }
        fs::remove_dir_all(&round).with_context(|| format!("cannot remove {}", round.display()))?;
        rounds += 1;
        eprintln!("soak: round {rounds} ended {endings} times and equals the straight run");
    }
    fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    let by_signal = SIGNALS
        .iter()
        .zip(counts)
        .map(|((name, _), count)| format!("SIG{name} {count}"));
    println!(
        "soak: {rounds} rounds in {} minutes, ended {} times ({}), each equal to the straight run",
        started.elapsed().as_secs() / 60,
        counts.iter().sum::<u64>(),
        by_signal.collect::<Vec<_>>().join(", ")
    );
    Ok(ExitCode::SUCCESS)
}

struct Soak {
    kestrel: PathBuf,
    folder: PathBuf,
    precision: &'static str,
}

impl Soak {
    fn folder(&self, name: &str) -> Result<PathBuf> {
        let folder = self.folder.join(name);
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(folder)
    }

    /// Starts the run in a folder, where it goes on if it was there before. Its log is added to the file `log`.
    fn start(&self, folder: &Path, threads: u64) -> Result<Child> {
        let log = fs::File::options().create(true).append(true).open(folder.join("log"));
        let log = log.with_context(|| format!("cannot write the log in {}", folder.display()))?;
        let mut command = Command::new(&self.kestrel);
        command
            .args(RUN.split_whitespace())
            .args(self.precision.split_whitespace())
            .current_dir(folder)
            // Not an option: those are in the checkpoint.
            .env("RAYON_NUM_THREADS", threads.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        command.spawn().context("cannot start the trainer")
    }

    /// Ends the run at random instants until it comes to its own end. How many times it was ended.
    fn round(&self, folder: &Path, length: Duration, random: &mut Random, counts: &mut [u64; 3]) -> Result<u64> {
        let mut endings = 0;
        loop {
            let mut child = self.start(folder, 1 << random.below(3))?;
            // Most come early, so that a run is ended many times; some before the first step, and some after the last.
            let part = random.below(1000) as f64 / 1000.0 / [1.0, 2.0, 4.0, 8.0][random.below(4) as usize];
            let delay = length.mul_f64(part);
            std::thread::sleep(delay);
            // Half of them leave it no time for anything.
            let which = [0, 0, 1, 2][random.below(4) as usize];
            let (signal, code) = SIGNALS[which];
            send(signal, &child)?;
            let status = child.wait().context("cannot wait for the trainer")?;
            let ended = process::code(status);
            match ended {
                Some(0) => return Ok(endings),
                Some(got) if got == code => {}
                _ => bail!(
                    "after SIG{signal} the run ended with {ended:?} instead of {code}; its log is {}",
                    folder.join("log").display()
                ),
            }
            endings += 1;
            counts[which] += 1;
        }
    }
}

fn send(signal: &str, child: &Child) -> Result<()> {
    let mut kill = Command::new("kill");
    kill.args(["-s", signal, &child.id().to_string()]);
    // A run that is done has no signal to get.
    let status = kill.stderr(Stdio::null()).status();
    status.context("cannot start kill").map(drop)
}

/// The files that are compared, by name.
fn outcome(folder: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let run = folder.join("runs/toy");
    let read = |path: PathBuf| fs::read(&path).with_context(|| format!("cannot read {}", path.display()));
    let mut files = Vec::new();
    for name in FILES {
        files.push((name.to_owned(), read(run.join(name))?));
    }
    let checkpoints = run.join("checkpoints");
    let list = fs::read_dir(&checkpoints).with_context(|| format!("cannot list {}", checkpoints.display()))?;
    let names = list.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let newest = names.filter(|name| name.starts_with("step-")).max();
    let newest = newest.with_context(|| format!("no checkpoint is in {}", checkpoints.display()))?;
    files.push((newest.clone(), read(checkpoints.join(newest))?));
    Ok(files)
}

/// SplitMix64.
struct Random(u64);

impl Random {
    /// A number below `bound`, which is small.
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

impl Plan {
    fn parse(args: &[OsString]) -> Result<Self> {
        let mut plan = Self {
            minutes: 30,
            seed: 0,
            precision: "",
        };
        let mut args = args.iter().map(|arg| arg.to_string_lossy());
        while let Some(arg) = args.next() {
            if arg == "--precision" {
                let name = args.next().unwrap_or_default();
                let found = PRECISIONS.iter().find(|(precision, _)| *precision == name);
                plan.precision = found.with_context(|| format!("{USAGE}; {name:?} is no precision"))?.1;
                continue;
            }
            let (slot, least) = match arg.as_ref() {
                "--minutes" => (&mut plan.minutes, 1),
                "--seed" => (&mut plan.seed, 0),
                other => bail!("{USAGE}; {other:?} is none of them"),
            };
            let value = args.next().unwrap_or_default();
            let number = value.parse().ok().filter(|number| *number >= least);
            *slot =
                number.with_context(|| format!("{arg} is {value:?}, expected a whole number of at least {least}"))?;
        }
        Ok(plan)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Plan> {
        let args: Vec<OsString> = args.iter().map(OsString::from).collect();
        Plan::parse(&args)
    }

    #[test]
    fn half_an_hour_unless_told() {
        let plan = parse(&[]).unwrap();
        assert_eq!((plan.minutes, plan.seed), (30, 0));
        let plan = parse(&["--seed", "7", "--minutes", "1"]).unwrap();
        assert_eq!((plan.minutes, plan.seed), (1, 7));
        assert!(
            parse(&["--precision", "f16"])
                .unwrap()
                .precision
                .starts_with("--precision f16")
        );
        for (args, word) in [
            (&["--hours", "1"][..], "usage"),
            (&["--minutes"], "--minutes"),
            (&["--minutes", "0"], "at least 1"),
            (&["--seed", "x"], "\"x\""),
            (&["--precision", "f64"], "\"f64\""),
        ] {
            let error = parse(args).err().map(|e| e.to_string()).unwrap_or_default();
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn draws_are_below_their_bound_and_all_come() {
        let mut random = Random(1);
        let mut seen = [0; 4];
        for _ in 0..400 {
            seen[random.below(4) as usize] += 1;
        }
        assert!(seen.iter().all(|count| *count > 60), "{seen:?}");
    }
}
