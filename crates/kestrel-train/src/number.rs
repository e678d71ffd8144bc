//! Numbers that may be none in JSON, which has no NaN and no infinity: these are the strings `"NaN"`, `"inf"` and `"-inf"`.
//!
//! For `#[serde(with = "crate::number")]`.

use std::fmt;

use serde::de::{Error, Visitor};
use serde::{Deserializer, Serializer};
use serde_json::Value;

/// A number as JSON.
pub(crate) fn to_json(value: f64) -> Value {
    if value.is_finite() {
        value.into()
    } else {
        value.to_string().into()
    }
}

pub(crate) fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    if value.is_finite() {
        serializer.serialize_f64(*value)
    } else {
        serializer.collect_str(value)
    }
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    deserializer.deserialize_any(Number)
}

struct Number;

impl Visitor<'_> for Number {
    type Value = f64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number, \"NaN\", \"inf\" or \"-inf\"")
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<f64, E> {
        Ok(value)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<f64, E> {
        Ok(value as f64)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<f64, E> {
        Ok(value as f64)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<f64, E> {
        match text {
            "NaN" => Ok(f64::NAN),
            "inf" => Ok(f64::INFINITY),
            "-inf" => Ok(f64::NEG_INFINITY),
            _ => Err(E::invalid_value(serde::de::Unexpected::Str(text), &self)),
        }
    }

    /// What earlier versions wrote of all three.
    fn visit_unit<E: Error>(self) -> Result<f64, E> {
        Ok(f64::NAN)
    }
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    use super::*;

    #[derive(Serialize, Deserialize)]
    struct Loss(#[serde(with = "super")] f64);

    #[test]
    fn numbers_that_are_none_come_back() {
        for (value, text) in [
            (f64::NAN, "\"NaN\""),
            (f64::INFINITY, "\"inf\""),
            (f64::NEG_INFINITY, "\"-inf\""),
            (0.1 + 0.2, "0.30000000000000004"),
            (2.0, "2.0"),
        ] {
            assert_eq!(serde_json::to_string(&Loss(value)).unwrap(), text);
            assert_eq!(to_json(value).to_string(), text);
            let back: Loss = serde_json::from_str(text).unwrap();
            // NaN is NaN, and no other number is.
            assert!(back.0 == value || back.0.is_nan() && value.is_nan(), "{text}");
        }
    }

    #[test]
    fn what_earlier_versions_wrote_is_read_and_nothing_else() {
        let read = |text| serde_json::from_str::<Loss>(text).map(|loss| loss.0);
        assert!(read("null").unwrap().is_nan());
        assert_eq!(read("-3").unwrap(), -3.0);
        for text in ["\"nan\"", "\"1.5\"", "true", "[]"] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
