//! The picture of a learning-rate range test: the loss over the rate's logarithm.

use std::path::Path;

use super::canvas::{CHAR_WIDTH, Canvas, LINE_HEIGHT};
use crate::Result;
use crate::lr_finder::LrCurve;

const WIDTH: u32 = 720;
const HEIGHT: u32 = 440;
/// Left of the plot, for the loss's numbers.
const LEFT: u32 = 72;
const RIGHT: u32 = 24;
const TOP: u32 = 2 * LINE_HEIGHT;
const BOTTOM: u32 = 2 * LINE_HEIGHT + 8;
const INK: [u8; 3] = [30, 30, 30];
const GRID: [u8; 3] = [225, 225, 225];
const CURVE: [u8; 3] = [31, 119, 180];
const MARK: [u8; 3] = [214, 39, 40];

/// Writes a PNG of the curve, with the suggested rate marked.
///
/// # Errors
/// [`crate::Error::Picture`], [`crate::Error::Write`]; what stood at `path` is untouched.
pub fn save_lr_plot(curve: &LrCurve, path: &Path) -> Result<()> {
    draw(curve).save(path)
}

/// A straight map from numbers to pixels.
struct Axis {
    low: f64,
    high: f64,
    from: u32,
    to: u32,
}

impl Axis {
    fn new(values: impl Iterator<Item = f64> + Clone, from: u32, to: u32) -> Self {
        let low = values.clone().fold(f64::INFINITY, f64::min);
        let high = values.fold(f64::NEG_INFINITY, f64::max);
        // One value, or none, still has a place.
        let (low, high) = match (high > low, low.is_finite()) {
            (true, _) => (low, high),
            (false, true) => (low - 0.5, low + 0.5),
            (false, false) => (0.0, 1.0),
        };
        Self { low, high, from, to }
    }

    fn at(&self, value: f64) -> u32 {
        let share = ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0);
        let (from, to) = (f64::from(self.from), f64::from(self.to));
        (from + share * (to - from)).round() as u32
    }
}

fn draw(curve: &LrCurve) -> Canvas {
    let mut canvas = Canvas::new(WIDTH, HEIGHT);
    let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
    let x = Axis::new(curve.points.iter().map(|p| p.lr.log10()), LEFT, right);
    let y = Axis::new(curve.points.iter().map(|p| p.loss), bottom, TOP);
    for power in x.low.ceil() as i32..=x.high.floor() as i32 {
        let at = x.at(f64::from(power));
        canvas.fill(at, TOP, 1, bottom - TOP, GRID);
        canvas.text(
            at.saturating_sub(2 * CHAR_WIDTH),
            bottom + 4,
            5 * CHAR_WIDTH,
            &format!("1e{power}"),
            INK,
        );
    }
    for tick in 0..=4 {
        let loss = y.low + (y.high - y.low) * f64::from(tick) / 4.0;
        canvas.fill(LEFT, y.at(loss), right - LEFT, 1, GRID);
        canvas.text(
            4,
            y.at(loss).saturating_sub(LINE_HEIGHT / 2),
            LEFT - 8,
            &format!("{loss:.3}"),
            INK,
        );
    }
    let places: Vec<(u32, u32)> = curve
        .points
        .iter()
        .map(|p| (x.at(p.lr.log10()), y.at(p.loss)))
        .collect();
    for pair in places.windows(2) {
        line(&mut canvas, pair[0], pair[1]);
    }
    if let Some(lr) = curve.suggestion {
        canvas.fill(x.at(lr.log10()).saturating_sub(1), TOP, 2, bottom - TOP, MARK);
        canvas.text(
            LEFT,
            8,
            right - LEFT,
            &format!("loss over learning rate; suggested {lr:.2e}"),
            MARK,
        );
    } else {
        canvas.text(LEFT, 8, right - LEFT, "loss over learning rate; it never falls", INK);
    }
    canvas.text(
        LEFT,
        HEIGHT - LINE_HEIGHT,
        right - LEFT,
        "learning rate (logarithmic)",
        INK,
    );
    canvas
}

/// A line two pixels thick.
fn line(canvas: &mut Canvas, from: (u32, u32), to: (u32, u32)) {
    let steps = from.0.abs_diff(to.0).max(from.1.abs_diff(to.1)).max(1);
    for step in 0..=steps {
        let share = f64::from(step) / f64::from(steps);
        let between = |a: u32, b: u32| (f64::from(a) + share * (f64::from(b) - f64::from(a))).round() as u32;
        canvas.fill(between(from.0, to.0), between(from.1, to.1), 2, 2, CURVE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lr_finder::LrPoint;

    #[test]
    fn curve_and_mark_are_drawn() {
        let points = (0..40).map(|i| f64::from(i) / 8.0).map(|e| LrPoint {
            lr: 10f64.powf(e - 5.0),
            loss: 3.0 - e / 2.0,
        });
        let curve = LrCurve {
            points: points.collect(),
            suggestion: Some(1e-3),
        };
        let canvas = draw(&curve);
        let count = |colour: [u8; 3]| canvas.0.pixels().filter(|p| p.0 == colour).count();
        assert!(
            count(CURVE) > 600 && count(MARK) > 600,
            "{} {}",
            count(CURVE),
            count(MARK)
        );
    }

    #[test]
    fn a_curve_of_no_or_one_point_is_drawn_too() {
        for n in 0..2 {
            let points = vec![LrPoint { lr: 1e-3, loss: 2.0 }; n];
            let curve = LrCurve {
                points,
                suggestion: None,
            };
            assert_eq!(draw(&curve).0.width(), WIDTH);
        }
    }
}
