//! Where an epoch's time goes: loading, forward, backward, the optimiser, validation, and what is left.

use crate::report::run_log::ThroughputLine;
use crate::report::surface::{Anchor, Area, Figure, Ink, Surface, TextStyle};

const WIDTH: f64 = 440.0;
const TITLE: f64 = 14.0;
const BAR: Area = Area {
    x: 4.0,
    y: 32.0,
    width: 432.0,
    height: 26.0,
};
const ROW: f64 = 22.0;

/// The mean epoch's time.
#[derive(Clone, Debug)]
pub(in crate::report) struct TimeSplit {
    parts: Vec<(&'static str, f64)>,
    epochs: usize,
}

impl TimeSplit {
    /// Of a run's epochs; `None` where nothing was measured.
    pub(in crate::report) fn new(epochs: &[ThroughputLine]) -> Option<Self> {
        let mean = |of: fn(&ThroughputLine) -> f64| epochs.iter().map(of).sum::<f64>() / epochs.len().max(1) as f64;
        let (forward, backward) = (mean(|e| e.forward_seconds), mean(|e| e.backward_seconds));
        let mut known = vec![("waiting for images", mean(|e| e.load_seconds))];
        if backward > 0.0 {
            known.extend([("forward", forward), ("backward", backward)]);
        } else {
            // On a GPU, whose own time is waited for elsewhere; see `EpochTiming`.
            known.push(("launching both passes", forward));
        }
        known.push(("optimiser", mean(|e| e.optimizer_seconds)));
        let rest = mean(|e| e.seconds) - known.iter().map(|(_, seconds)| seconds).sum::<f64>();
        let mut parts = known;
        parts.push(("rest of the step", rest.max(0.0)));
        parts.push(("validation", mean(|e| e.validation_seconds)));
        let all: f64 = parts.iter().map(|(_, seconds)| seconds).sum();
        (all > 0.0 && all.is_finite()).then_some(Self {
            parts,
            epochs: epochs.len(),
        })
    }

    fn seconds(&self) -> f64 {
        self.parts.iter().map(|(_, seconds)| seconds).sum()
    }
}

/// Seconds as text: to a tenth where they are few.
fn seconds_text(seconds: f64) -> String {
    if seconds < 10.0 {
        format!("{seconds:.2} s")
    } else {
        format!("{seconds:.1} s")
    }
}

impl Figure for TimeSplit {
    fn name(&self) -> &'static str {
        "time"
    }

    fn title(&self) -> String {
        let of = if self.epochs == 1 {
            "The epoch".to_owned()
        } else {
            format!("An epoch, on average of {}", self.epochs)
        };
        format!("{of}: {}", seconds_text(self.seconds()))
    }

    fn size(&self) -> (f64, f64) {
        (WIDTH, BAR.bottom() + 14.0 + ROW * self.parts.len() as f64 + 6.0)
    }

    fn draw(&self, surface: &mut dyn Surface) {
        surface.text(
            (BAR.x, TITLE),
            &self.title(),
            TextStyle::new(Ink::Text, Anchor::Start).bold(),
        );
        let mut at = BAR.x;
        for (i, (name, seconds)) in self.parts.iter().enumerate() {
            let share = seconds / self.seconds();
            let area = Area::new(at, BAR.y, share * BAR.width, BAR.height);
            surface.rect(area, Ink::Series(i), 0.85);
            let middle = BAR.bottom() + 14.0 + ROW * (i as f64 + 0.5);
            surface.rect(Area::new(BAR.x, middle - 6.0, 12.0, 12.0), Ink::Series(i), 0.85);
            let text = |anchor| TextStyle::new(Ink::Text, anchor);
            surface.text((BAR.x + 20.0, middle), name, text(Anchor::Start));
            surface.text((240.0, middle), &seconds_text(*seconds), text(Anchor::End));
            let percent = format!("{:.1}%", 100.0 * share);
            surface.text((310.0, middle), &percent, text(Anchor::End));
            surface.tip(area, &format!("{name}\n{} ({percent})", seconds_text(*seconds)));
            at += share * BAR.width;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_are_means_and_the_rest_is_what_is_left() {
        let epoch = |seconds| ThroughputLine {
            seconds,
            load_seconds: 1.0,
            forward_seconds: 2.0,
            backward_seconds: 3.0,
            optimizer_seconds: 1.0,
            validation_seconds: 4.0,
            ..ThroughputLine::default()
        };
        let split = TimeSplit::new(&[epoch(8.0), epoch(10.0)]).unwrap();
        let seconds: Vec<f64> = split.parts.iter().map(|(_, s)| *s).collect();
        assert_eq!(seconds, [1.0, 2.0, 3.0, 1.0, 2.0, 4.0]);
        let launched = ThroughputLine {
            backward_seconds: 0.0,
            ..epoch(8.0)
        };
        let names = |epochs: &[ThroughputLine]| {
            let parts = TimeSplit::new(epochs).unwrap().parts;
            parts.iter().map(|(name, _)| *name).collect::<Vec<_>>()
        };
        assert_eq!(names(&[epoch(8.0)])[1..3], ["forward", "backward"]);
        assert_eq!(names(&[launched])[1..3], ["launching both passes", "optimiser"]);
        assert_eq!(split.title(), "An epoch, on average of 2: 13.0 s");
        assert!(TimeSplit::new(&[]).is_none() && TimeSplit::new(&[ThroughputLine::default()]).is_none());
    }
}
