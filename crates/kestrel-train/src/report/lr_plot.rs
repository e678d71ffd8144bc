//! The figure of a learning-rate range test: the loss over the rate's logarithm.

use std::path::Path;

use super::axis::Axis;
use super::canvas::Canvas;
use super::surface::{Anchor, Area, Figure, Ink, Stroke, Surface, TextStyle};
use crate::Result;
use crate::lr_finder::LrCurve;

const SIZE: (f64, f64) = (440.0, 300.0);
/// Where the curve is, below the title and right of the loss's numbers.
const PLOT: Area = Area {
    x: 52.0,
    y: 34.0,
    width: 372.0,
    height: 212.0,
};

/// Writes a PNG of the curve, with the suggested rate marked.
///
/// # Errors
/// [`crate::Error::Picture`], [`crate::Error::Write`]; what stood at `path` is untouched.
pub fn save_lr_plot(curve: &LrCurve, path: &Path) -> Result<()> {
    Canvas::of(&LrPlot(curve)).save(path)
}

struct LrPlot<'a>(&'a LrCurve);

impl Figure for LrPlot<'_> {
    fn name(&self) -> &'static str {
        "lr"
    }

    fn title(&self) -> String {
        match self.0.suggestion {
            Some(lr) => format!("Loss over learning rate; suggested {lr:.2e}"),
            None => "Loss over learning rate; it never falls".to_owned(),
        }
    }

    fn size(&self) -> (f64, f64) {
        SIZE
    }

    fn draw(&self, surface: &mut dyn Surface) {
        let points = &self.0.points;
        let x = Axis::logarithmic(points.iter().map(|p| p.lr), PLOT.x, PLOT.right());
        let y = Axis::around(points.iter().map(|p| p.loss), PLOT.bottom(), PLOT.y);
        let title = TextStyle::new(Ink::Text, Anchor::Start).bold();
        surface.text((PLOT.x, 14.0), &self.title(), title);
        let grid = Stroke::new(Ink::Grid, 1.0);
        for (lr, text) in x.ticks(8) {
            surface.line((x.at(lr), PLOT.y), (x.at(lr), PLOT.bottom()), grid);
            let at = (x.at(lr), PLOT.bottom() + 12.0);
            surface.text(at, &text, TextStyle::new(Ink::Muted, Anchor::Middle));
        }
        for (loss, text) in y.ticks(5) {
            surface.line((PLOT.x, y.at(loss)), (PLOT.right(), y.at(loss)), grid);
            let at = (PLOT.x - 6.0, y.at(loss));
            surface.text(at, &text, TextStyle::new(Ink::Muted, Anchor::End));
        }
        let places: Vec<(f64, f64)> = points.iter().map(|p| (x.at(p.lr), y.at(p.loss))).collect();
        surface.polyline(&places, Stroke::new(Ink::Series(0), 2.0));
        if let Some(lr) = self.0.suggestion {
            let mark = Stroke::new(Ink::Series(1), 1.5);
            surface.line((x.at(lr), PLOT.y), (x.at(lr), PLOT.bottom()), mark);
        }
        let at = (PLOT.x + PLOT.width / 2.0, PLOT.bottom() + 34.0);
        let style = TextStyle::new(Ink::Muted, Anchor::Middle);
        surface.text(at, "learning rate (logarithmic)", style);
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
        let canvas = Canvas::of(&LrPlot(&curve));
        let count = |ink: Ink| canvas.0.pixels().filter(|p| p.0 == ink.on_white()).count();
        let (curve, mark) = (count(Ink::Series(0)), count(Ink::Series(1)));
        assert!(curve > 600 && mark > 600, "{curve} {mark}");
    }

    #[test]
    fn a_curve_of_no_or_one_point_is_drawn_too() {
        for n in 0..2 {
            let points = vec![LrPoint { lr: 1e-3, loss: 2.0 }; n];
            let curve = LrCurve {
                points,
                suggestion: None,
            };
            assert_eq!(Canvas::of(&LrPlot(&curve)).0.width(), 2 * SIZE.0 as u32);
        }
    }
}
