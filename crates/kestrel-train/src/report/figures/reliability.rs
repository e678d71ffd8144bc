//! The reliability diagram: confidence against accuracy, with how many images are in each bin.

use crate::metrics::ReliabilityBin;
use crate::report::surface::{Anchor, Area, Figure, Ink, Stroke, Surface, TextStyle};

const WIDTH: f64 = 440.0;
const PLOT: Area = Area {
    x: 52.0,
    y: 48.0,
    width: 372.0,
    height: 230.0,
};
/// The counts below the plot.
const COUNTS: Area = Area {
    x: 52.0,
    y: 288.0,
    width: 372.0,
    height: 46.0,
};

/// Confidence against accuracy.
#[derive(Clone, Debug)]
pub(in crate::report) struct ReliabilityDiagram<'a> {
    pub(in crate::report) bins: &'a [ReliabilityBin],
    pub(in crate::report) ece: f64,
}

impl Figure for ReliabilityDiagram<'_> {
    fn name(&self) -> &'static str {
        "reliability"
    }

    fn title(&self) -> String {
        format!("Reliability: expected calibration error {:.2}%", 100.0 * self.ece)
    }

    fn size(&self) -> (f64, f64) {
        (WIDTH, COUNTS.bottom() + 42.0)
    }

    fn draw(&self, surface: &mut dyn Surface) {
        let x = |share: f64| PLOT.x + share * PLOT.width;
        let y = |share: f64| PLOT.bottom() - share * PLOT.height;
        let muted = |anchor| TextStyle::new(Ink::Muted, anchor);
        surface.text(
            (PLOT.x, 14.0),
            &self.title(),
            TextStyle::new(Ink::Text, Anchor::Start).bold(),
        );
        let legend = [(Ink::Series(0), "accuracy"), (Ink::Series(1), "gap to confidence")];
        let mut at = PLOT.x;
        for (ink, name) in legend {
            surface.rect(Area::new(at, 28.0, 12.0, 12.0), ink, 0.7);
            surface.text((at + 18.0, 34.0), name, muted(Anchor::Start));
            at += 100.0;
        }
        for tick in 0..=5 {
            let share = f64::from(tick) / 5.0;
            let text = format!("{:.0}", 100.0 * share);
            surface.line(
                (PLOT.x, y(share)),
                (PLOT.right(), y(share)),
                Stroke::new(Ink::Grid, 1.0),
            );
            surface.text((PLOT.x - 6.0, y(share)), &text, muted(Anchor::End));
            surface.text((x(share), COUNTS.bottom() + 12.0), &text, muted(Anchor::Middle));
        }
        let most = self.bins.iter().map(|bin| bin.count).max().unwrap_or(0).max(1);
        for bin in self.bins {
            let (left, right) = (x(bin.lower) + 1.0, x(bin.upper) - 1.0);
            let width = right - left;
            if bin.count > 0 {
                let bar = y(bin.accuracy);
                surface.rect(Area::new(left, bar, width, PLOT.bottom() - bar), Ink::Series(0), 0.7);
                let (top, bottom) = (bar.min(y(bin.confidence)), bar.max(y(bin.confidence)));
                surface.rect(Area::new(left, top, width, bottom - top), Ink::Series(1), 0.55);
                let height = COUNTS.height * bin.count as f64 / most as f64;
                surface.rect(
                    Area::new(left, COUNTS.bottom() - height, width, height),
                    Ink::Muted,
                    0.6,
                );
            }
            let tip = format!(
                "Confidence {:.0}% to {:.0}%\n{} images\nmean confidence {:.1}%\naccuracy {:.1}%",
                100.0 * bin.lower,
                100.0 * bin.upper,
                bin.count,
                100.0 * bin.confidence,
                100.0 * bin.accuracy
            );
            let area = Area::new(
                x(bin.lower),
                PLOT.y,
                x(bin.upper) - x(bin.lower),
                COUNTS.bottom() - PLOT.y,
            );
            surface.tip(area, &tip);
        }
        surface.line(
            (x(0.0), y(0.0)),
            (x(1.0), y(1.0)),
            Stroke::new(Ink::Muted, 1.5).dashed(),
        );
        for bottom in [PLOT.bottom(), COUNTS.bottom()] {
            surface.line((PLOT.x, bottom), (PLOT.right(), bottom), Stroke::new(Ink::Muted, 1.0));
        }
        let turned = muted(Anchor::Middle).turned();
        surface.text((12.0, PLOT.y + PLOT.height / 2.0), "accuracy, %", turned);
        surface.text((12.0, COUNTS.y + COUNTS.height / 2.0), "images", turned);
        surface.text(
            (PLOT.x + PLOT.width / 2.0, COUNTS.bottom() + 30.0),
            "confidence, %",
            muted(Anchor::Middle),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::svg::svg;

    #[test]
    fn empty_bins_have_no_bars_and_all_have_words() {
        let bin = |lower, count| ReliabilityBin {
            lower,
            upper: lower + 0.5,
            count,
            confidence: 0.7,
            accuracy: 0.6,
        };
        let bins = [bin(0.0, 0), bin(0.5, 3)];
        let page = svg(&ReliabilityDiagram { bins: &bins, ece: 0.1 });
        assert_eq!(page.matches("class=\"tip\"").count(), 2);
        assert!(
            page.contains("3 images\nmean confidence 70.0%\naccuracy 60.0%"),
            "{page}"
        );
        assert!(page.contains("error 10.00%"), "{page}");
        // Two in the legend, three of the one bin, two to point at.
        assert_eq!(page.matches("<rect").count(), 7);
    }
}
