//! Times and distances as a person writes them: `90s`, `10m`, `1h30m`, or a number of steps.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use kestrel_train::checkpoint::Every;
use serde::{Deserialize, Serialize};

/// A time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct TimeSpan(pub(crate) Duration);

/// How often a run is saved within an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "NumberOrText", into = "String")]
pub(crate) struct CheckpointEvery(pub(crate) Option<Every>);

/// A file may say `500` as well as `"500"`.
#[derive(Deserialize)]
#[serde(untagged)]
enum NumberOrText {
    Number(u64),
    Text(String),
}

const UNITS: [(char, u64); 4] = [('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)];

impl FromStr for TimeSpan {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no time; write 90s, 10m, 2h or 1h30m");
        let mut seconds = 0u64;
        let mut rest = text;
        while !rest.is_empty() {
            let end = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
            let number: u64 = rest[..end].parse().map_err(|_| wrong())?;
            let unit = rest[end..].chars().next().ok_or_else(wrong)?;
            let (_, length) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
            seconds = number
                .checked_mul(*length)
                .and_then(|more| seconds.checked_add(more))
                .ok_or_else(wrong)?;
            rest = &rest[end + unit.len_utf8()..];
        }
        if seconds == 0 {
            return Err(wrong());
        }
        Ok(Self(Duration::from_secs(seconds)))
    }
}

impl fmt::Display for TimeSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.as_secs();
        for (unit, length) in UNITS {
            if rest >= length {
                write!(f, "{}{unit}", rest / length)?;
                rest %= length;
            }
        }
        Ok(())
    }
}

impl FromStr for CheckpointEvery {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let every = match text.parse::<u64>() {
            Ok(0) => None,
            Ok(steps) => Some(Every::Steps(steps)),
            Err(_) => {
                let time: TimeSpan = text.parse().map_err(|_| {
                    format!("{text:?} is neither a number of steps nor a time; write 500, or 10m, or 0 for never")
                })?;
                Some(Every::Time(time.0))
            }
        };
        Ok(Self(every))
    }
}

impl fmt::Display for CheckpointEvery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("0"),
            Some(Every::Steps(steps)) => write!(f, "{steps}"),
            Some(Every::Time(time)) => TimeSpan(time).fmt(f),
        }
    }
}

impl TryFrom<String> for TimeSpan {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl TryFrom<NumberOrText> for CheckpointEvery {
    type Error = String;

    fn try_from(given: NumberOrText) -> Result<Self, String> {
        match given {
            NumberOrText::Number(number) => number.to_string().parse(),
            NumberOrText::Text(text) => text.parse(),
        }
    }
}

impl From<TimeSpan> for String {
    fn from(time: TimeSpan) -> String {
        time.to_string()
    }
}

impl From<CheckpointEvery> for String {
    fn from(every: CheckpointEvery) -> String {
        every.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_round_trip() {
        for (text, seconds, again) in [
            ("90s", 90, "1m30s"),
            ("10m", 600, "10m"),
            ("1h30m", 5_400, "1h30m"),
            ("2d", 172_800, "2d"),
            ("36h", 129_600, "1d12h"),
        ] {
            let time: TimeSpan = text.parse().unwrap();
            assert_eq!(
                (time.0.as_secs(), time.to_string().as_str()),
                (seconds, again),
                "{text}"
            );
        }
        for text in [
            "",
            "0s",
            "10",
            "m",
            "1.5h",
            "5x",
            "99999999999999999999d",
            "999999999999999999d",
            "-1m",
        ] {
            assert!(text.parse::<TimeSpan>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_distance_is_of_steps_or_of_time() {
        let every = |text: &str| text.parse::<CheckpointEvery>().unwrap();
        assert_eq!(every("500").0, Some(Every::Steps(500)));
        assert_eq!(every("10m").0, Some(Every::Time(Duration::from_secs(600))));
        assert_eq!(every("0").0, None);
        for text in ["500", "10m", "0"] {
            assert_eq!(every(text).to_string(), text);
        }
        assert!("often".parse::<CheckpointEvery>().unwrap_err().contains("steps"));
    }
}
