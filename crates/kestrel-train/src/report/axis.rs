//! Axes: from numbers to places, with round numbers written along them.

/// A straight or logarithmic map from numbers to places.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Axis {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
    logarithmic: bool,
}

impl Axis {
    /// From `low` at the place `from` to `high` at the place `to`.
    pub(super) fn between(low: f64, high: f64, from: f64, to: f64) -> Self {
        Self {
            low,
            high,
            from,
            to,
            logarithmic: false,
        }
    }

    /// An axis that holds all finite values, and begins and ends at a round number.
    pub(super) fn around(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let (low, high) = span(values);
        let step = round_step((high - low) / 5.0);
        Self::between((low / step).floor() * step, (high / step).ceil() * step, from, to)
    }

    /// A logarithmic axis that holds all values above 0.
    pub(super) fn logarithmic(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let (low, high) = span(values.filter(|v| *v > 0.0).map(f64::log10));
        Self {
            logarithmic: true,
            ..Self::between(low, high, from, to)
        }
    }

    /// The place of a value; of one outside of the axis its nearer end.
    pub(super) fn at(&self, value: f64) -> f64 {
        let value = if self.logarithmic { value.log10() } else { value };
        let share = ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0);
        self.from + if share.is_nan() { 0.0 } else { share } * (self.to - self.from)
    }

    /// About `count` round numbers along the axis, as text; powers of ten along a logarithmic one, or once, twice and five times
    /// these where there are few.
    pub(super) fn ticks(&self, count: usize) -> Vec<(f64, String)> {
        if self.logarithmic {
            return self.powers(count.max(1));
        }
        let step = round_step((self.high - self.low) / count.max(1) as f64);
        let decimals = (-step.log10().floor()).max(0.0) as usize;
        let first = (self.low / step - 1e-9).ceil() as i64;
        let last = (self.high / step + 1e-9).floor() as i64;
        let tick = |n: i64| (n as f64 * step, format!("{:.decimals$}", n as f64 * step));
        (first..=last).map(tick).collect()
    }

    fn powers(&self, count: usize) -> Vec<(f64, String)> {
        let powers = self.low.ceil() as i32..=self.high.floor() as i32;
        let all = powers.clone().count();
        if all > 2 {
            let tick = |power: i32| (10f64.powi(power), format!("1e{power}"));
            return powers.step_by(all.div_ceil(count)).map(tick).collect();
        }
        let within = |value: &f64| (self.low - 1e-9..=self.high + 1e-9).contains(&value.log10());
        let around = self.low.floor() as i32..=self.high.floor() as i32;
        around
            .flat_map(|power| [1, 2, 5].map(|factor| (factor, power)))
            .map(|(factor, power)| (f64::from(factor) * 10f64.powi(power), format!("{factor}e{power}")))
            .filter(|(value, _)| within(value))
            .collect()
    }
}

/// The least and the greatest of the finite values, apart from each other even where they are one or none.
fn span(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let start = (f64::INFINITY, f64::NEG_INFINITY);
    let (low, high) = values
        .filter(|v| v.is_finite())
        .fold(start, |(low, high), v| (low.min(v), high.max(v)));
    if high > low {
        (low, high)
    } else if low.is_finite() {
        let room = if low == 0.0 { 1.0 } else { low.abs() * 0.1 };
        (low - room, low + room)
    } else {
        (0.0, 1.0)
    }
}

/// The least of 1, 2 and 5 times a power of ten that is not below `step`.
fn round_step(step: f64) -> f64 {
    let power = 10f64.powf(step.log10().floor());
    let factor = [1.0, 2.0, 5.0].into_iter().find(|f| f * power >= step * (1.0 - 1e-9));
    factor.unwrap_or(10.0) * power
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(axis: &Axis, count: usize) -> Vec<String> {
        axis.ticks(count).into_iter().map(|(_, text)| text).collect()
    }

    #[test]
    fn ticks_are_round_and_lie_within() {
        let axis = Axis::around([0.31, 2.2].into_iter(), 0.0, 100.0);
        assert_eq!(texts(&axis, 5), ["0.0", "0.5", "1.0", "1.5", "2.0", "2.5"]);
        assert_eq!((axis.at(0.0), axis.at(2.5), axis.at(9.0)), (0.0, 100.0, 100.0));
        assert_eq!(
            texts(&Axis::between(1.0, 50.0, 0.0, 1.0), 5),
            ["10", "20", "30", "40", "50"]
        );
        assert_eq!(
            texts(&Axis::between(0.0, 0.01, 0.0, 1.0), 2),
            ["0.000", "0.005", "0.010"]
        );
    }

    #[test]
    fn logarithmic_axes_are_marked_by_powers_of_ten() {
        let axis = Axis::logarithmic([1e-5, 0.0, 1e-2].into_iter(), 0.0, 3.0);
        assert_eq!(texts(&axis, 9), ["1e-5", "1e-4", "1e-3", "1e-2"]);
        assert!((axis.at(1e-4) - 1.0).abs() < 1e-9);
        assert_eq!(texts(&axis, 2), ["1e-5", "1e-3"]);
        let decade = Axis::logarithmic([1e-3, 1e-2].into_iter(), 0.0, 3.0);
        assert_eq!(texts(&decade, 9), ["1e-3", "2e-3", "5e-3", "1e-2"]);
        // A rate that never changes still says what it is.
        let constant = Axis::logarithmic([2e-3].into_iter(), 0.0, 3.0);
        assert!(texts(&constant, 9).contains(&"2e-3".to_owned()));
    }

    #[test]
    fn one_value_and_no_value_have_an_axis_too() {
        for values in [&[][..], &[3.0], &[0.0], &[f64::NAN, f64::INFINITY]] {
            let axis = Axis::around(values.iter().copied(), 0.0, 10.0);
            assert!(axis.ticks(4).len() > 1, "{values:?}");
            assert!((0.0..=10.0).contains(&axis.at(3.0)), "{values:?}");
            assert!((0.0..=10.0).contains(&axis.at(f64::NAN)), "{values:?}");
        }
    }
}
