//! Where and with what a run was made: `environment.json`, in its folder. `doctor` tells the same of this process.

mod cuda;
mod machine;

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use candle_core::Device;
use kestrel_train::checkpoint::write_atomic;
use serde_json::{Value, json};

use crate::device;

pub(crate) use cuda::{Cuda, Gpu};
pub(crate) use machine::Machine;

/// The file, in a run's folder.
const ENVIRONMENT_FILE: &str = "environment.json";
/// The commit of the source, which `cargo xtask` tells the trainer.
const COMMIT: &str = "KESTREL_COMMIT";

/// Writes the environment of this process. A run that goes on elsewhere has that of its last process.
pub(crate) fn save(folder: &Path, device: &Device, seed: u64) -> Result<()> {
    let of_run = json!({
        "device": device::describe(device),
        // Asked only where it is used: the answer takes a GPU's time and memory.
        "gpu": Gpu::of(device)?,
        "host": host(),
        "pid": std::process::id(),
        "started": utc(SystemTime::now()),
        "command": std::env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect::<Vec<_>>(),
        "seed": seed,
    });
    let mut environment = serde_json::to_value(Machine::here())?;
    if let (Value::Object(environment), Value::Object(of_run)) = (&mut environment, of_run) {
        environment.extend(of_run);
    }
    let path = folder.join(ENVIRONMENT_FILE);
    write_atomic(&path, format!("{environment:#}\n").as_bytes()).context("the environment")
}

/// The commit that the program was built from, where `cargo xtask` has started it.
pub(crate) fn commit() -> Option<String> {
    std::env::var(COMMIT).ok().filter(|commit| !commit.is_empty())
}

/// The machine's name.
pub(crate) fn host() -> String {
    let file = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let named = file.or_else(|| {
        std::env::var("HOSTNAME")
            .or_else(|_| std::env::var("COMPUTERNAME"))
            .ok()
    });
    let named = named.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty());
    named.unwrap_or_else(|| "this machine".to_owned())
}

/// A time as `2026-11-27 13:05:09 UTC`.
pub(crate) fn utc(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Years of the Gregorian calendar that begin in March, so that the leap day is the last one.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Against `date -u -d @N`.
    #[test]
    fn times_are_those_of_the_calendar() {
        for (seconds, want) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_399, "2000-02-28 23:59:59 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (1_709_251_199, "2024-02-29 23:59:59 UTC"),
            (1_795_785_909, "2026-11-27 13:25:09 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
        ] {
            assert_eq!(utc(UNIX_EPOCH + Duration::from_secs(seconds)), want);
        }
    }
}
