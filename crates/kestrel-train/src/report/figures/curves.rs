//! Curves over epochs: loss, accuracy, learning rate, speed; of one run or of several.

use crate::report::axis::Axis;
use crate::report::surface::{Anchor, Area, Figure, Ink, LETTER, Point, SMALL_FONT_SIZE, Stroke, Surface, TextStyle};

const WIDTH: f64 = 440.0;
const PLOT_HEIGHT: f64 = 220.0;
const LEFT: f64 = 52.0;
const RIGHT: f64 = 16.0;
const TITLE: f64 = 14.0;
const LEGEND_LINE: f64 = 18.0;
/// Below the plot: the numbers of the axis and its name.
const BOTTOM: f64 = 42.0;
/// Curves of more points than this are thinned out: there are no more pixels.
const MAX_POINTS: usize = 1000;
/// Letters of a name in the legend.
const NAME: usize = 30;

/// What the numbers of a curve are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::report) enum Unit {
    /// Any number.
    Plain,
    /// A share, drawn in percent.
    Share,
    /// A learning rate, on a logarithmic axis.
    Rate,
    /// Images a second.
    Speed,
}

impl Unit {
    /// A number as text.
    pub(in crate::report) fn text(self, value: f64) -> String {
        match self {
            _ if !value.is_finite() => "–".to_owned(),
            Self::Plain => format!("{value:.4}"),
            Self::Share => format!("{:.2}%", 100.0 * value),
            Self::Rate => short_rate(value),
            Self::Speed => format!("{value:.0} img/s"),
        }
    }

    fn scaled(self, value: f64) -> f64 {
        if self == Self::Share { 100.0 * value } else { value }
    }
}

/// A learning rate with as many digits as it needs: `1e-3`, `2.5e-4`.
pub(in crate::report) fn short_rate(lr: f64) -> String {
    let text = format!("{lr:.2e}");
    match text.split_once('e') {
        Some((digits, power)) if digits.contains('.') => {
            format!("{}e{power}", digits.trim_end_matches('0').trim_end_matches('.'))
        }
        _ => text,
    }
}

/// One curve.
#[derive(Clone, Debug)]
pub(in crate::report) struct Curve {
    pub(in crate::report) name: String,
    pub(in crate::report) points: Vec<Point>,
    pub(in crate::report) stroke: Stroke,
    /// Whether it says something when it is pointed at, and stands in the legend.
    pub(in crate::report) named: bool,
}

/// Curves over epochs.
#[derive(Clone, Debug)]
pub(in crate::report) struct Curves {
    pub(in crate::report) name: &'static str,
    pub(in crate::report) title: String,
    pub(in crate::report) unit: Unit,
    pub(in crate::report) curves: Vec<Curve>,
    /// Epochs at whose start something changes, with what.
    pub(in crate::report) changes: Vec<(f64, String)>,
    /// A point worth a mark, with what it is.
    pub(in crate::report) best: Option<(Point, String)>,
}

impl Curves {
    fn legend(&self) -> Vec<(Point, &Curve)> {
        let mut at = (LEFT, TITLE + 20.0);
        let mut places = Vec::new();
        let named: Vec<&Curve> = self.curves.iter().filter(|curve| curve.named).collect();
        if named.len() == 1 {
            // The title says what it is.
            return places;
        }
        for curve in named {
            let length = 26.0 + LETTER * curve.name.chars().count().min(NAME) as f64 + 14.0;
            if at.0 > LEFT && at.0 + length > WIDTH {
                at = (LEFT, at.1 + LEGEND_LINE);
            }
            places.push((at, curve));
            at.0 += length;
        }
        places
    }

    fn plot(&self) -> Area {
        let legend = self.legend();
        let below = legend.last().map_or(TITLE + 8.0, |((_, y), _)| y + 10.0);
        // Room for what is written over the changes.
        let top = below + if self.changes.is_empty() { 8.0 } else { 16.0 };
        Area::new(LEFT, top, WIDTH - LEFT - RIGHT, PLOT_HEIGHT)
    }

    fn axes(&self, plot: Area) -> (Axis, Axis) {
        let points = || self.curves.iter().flat_map(|curve| curve.points.iter());
        let ends = points().map(|p| p.0);
        let first = ends.clone().fold(f64::INFINITY, f64::min);
        let last = ends.fold(f64::NEG_INFINITY, f64::max);
        let (first, last) = if last > first {
            (first, last)
        } else {
            (first - 1.0, first + 1.0)
        };
        let x = Axis::between(first, last, plot.x, plot.right());
        let values = points().map(|p| self.unit.scaled(p.1));
        let y = if self.unit == Unit::Rate {
            Axis::logarithmic(values, plot.bottom(), plot.y)
        } else {
            Axis::around(values, plot.bottom(), plot.y)
        };
        (x, y)
    }

    fn draw_axes(&self, surface: &mut dyn Surface, plot: Area, x: &Axis, y: &Axis) {
        let grid = Stroke::new(Ink::Grid, 1.0);
        let muted = |anchor| TextStyle::new(Ink::Muted, anchor);
        for (value, text) in y.ticks(5) {
            surface.line((plot.x, y.at(value)), (plot.right(), y.at(value)), grid);
            surface.text((plot.x - 6.0, y.at(value)), &text, muted(Anchor::End));
        }
        for (value, text) in x.ticks(8) {
            // An epoch is whole.
            if value.fract() == 0.0 {
                let text = text.split('.').next().unwrap_or_default();
                surface.text((x.at(value), plot.bottom() + 12.0), text, muted(Anchor::Middle));
            }
        }
        surface.line(
            (plot.x, plot.bottom()),
            (plot.right(), plot.bottom()),
            Stroke::new(Ink::Muted, 1.0),
        );
        let middle = plot.x + plot.width / 2.0;
        surface.text((middle, plot.bottom() + 30.0), "epoch", muted(Anchor::Middle));
    }

    fn draw_tips(&self, surface: &mut dyn Surface, plot: Area, x: &Axis) {
        let named = || self.curves.iter().filter(|curve| curve.named);
        let mut epochs: Vec<f64> = named().flat_map(|curve| curve.points.iter().map(|p| p.0)).collect();
        epochs.sort_by(f64::total_cmp);
        epochs.dedup();
        let places: Vec<f64> = epochs.iter().map(|epoch| x.at(*epoch)).collect();
        for (i, epoch) in epochs.iter().enumerate() {
            let before = if i == 0 {
                plot.x
            } else {
                (places[i - 1] + places[i]) / 2.0
            };
            let after = places.get(i + 1).map_or(plot.right(), |next| (places[i] + next) / 2.0);
            let mut text = format!("Epoch {epoch}");
            for curve in named() {
                if let Some((_, value)) = curve.points.iter().find(|p| p.0 == *epoch) {
                    text.push_str(&format!("\n{} {}", curve.name, self.unit.text(*value)));
                }
            }
            surface.tip(Area::new(before, plot.y, after - before, plot.height), &text);
        }
    }
}

impl Figure for Curves {
    fn name(&self) -> &'static str {
        self.name
    }

    fn title(&self) -> String {
        self.title.clone()
    }

    fn size(&self) -> (f64, f64) {
        (WIDTH, self.plot().bottom() + BOTTOM)
    }

    fn draw(&self, surface: &mut dyn Surface) {
        let plot = self.plot();
        let (x, y) = self.axes(plot);
        surface.text(
            (LEFT, TITLE),
            &self.title,
            TextStyle::new(Ink::Text, Anchor::Start).bold(),
        );
        for ((left, middle), curve) in self.legend() {
            let stroke = Stroke {
                width: curve.stroke.width.max(2.0),
                ..curve.stroke
            };
            surface.line((left, middle), (left + 20.0, middle), stroke);
            surface.text(
                (left + 26.0, middle),
                &surface.cut(&curve.name, NAME),
                TextStyle::new(Ink::Muted, Anchor::Start),
            );
        }
        self.draw_axes(surface, plot, &x, &y);
        // What is written must not run into what was written before.
        let mut free_from = plot.x;
        for (epoch, text) in &self.changes {
            let at = x.at(*epoch);
            surface.line((at, plot.y), (at, plot.bottom()), Stroke::new(Ink::Muted, 1.0).dashed());
            let half = 0.3 * SMALL_FONT_SIZE * text.chars().count() as f64;
            if at - half >= free_from && at + half <= WIDTH {
                let style = TextStyle::new(Ink::Muted, Anchor::Middle).small();
                surface.text((at, plot.y - 8.0), text, style);
                free_from = at + half + 6.0;
            }
        }
        let longest = self
            .curves
            .iter()
            .filter(|curve| curve.named)
            .map(|curve| curve.points.len())
            .max();
        for curve in &self.curves {
            let every = curve.points.len().div_ceil(MAX_POINTS).max(1);
            let places = curve.points.iter().step_by(every).filter(|p| p.1.is_finite());
            let places: Vec<Point> = places.map(|p| (x.at(p.0), y.at(self.unit.scaled(p.1)))).collect();
            if self.unit == Unit::Rate {
                surface.polyline(&stairs(&places), curve.stroke);
            } else {
                surface.polyline(&places, curve.stroke);
            }
            // A point makes no line, and a few are seen better.
            if curve.named && longest <= Some(30) {
                for place in places {
                    surface.circle(place, 2.2, curve.stroke.ink);
                }
            }
        }
        if let Some(((epoch, value), text)) = &self.best {
            let at = (x.at(*epoch), y.at(self.unit.scaled(*value)));
            surface.circle(at, 5.0, Ink::Text);
            surface.circle(at, 3.0, Ink::Paper);
            let (anchor, aside) = if at.0 > plot.x + plot.width / 2.0 {
                (Anchor::End, -9.0)
            } else {
                (Anchor::Start, 9.0)
            };
            let length = LETTER * text.chars().count() as f64;
            let left = if anchor == Anchor::End {
                at.0 + aside - length
            } else {
                at.0 + aside
            };
            let points = self.curves.iter().flat_map(|curve| &curve.points);
            let points = points.map(|p| (x.at(p.0), y.at(self.unit.scaled(p.1))));
            let near: Vec<f64> = points
                .filter(|p| (left..=left + length).contains(&p.0))
                .map(|p| p.1)
                .collect();
            let middle = at.1 + above_or_below(at.1, plot, &near);
            // So that no dashed line goes through the letters.
            surface.rect(Area::new(left - 2.0, middle - 8.0, length + 4.0, 16.0), Ink::Paper, 0.8);
            surface.text((at.0 + aside, middle), text, TextStyle::new(Ink::Text, anchor));
        }
        self.draw_tips(surface, plot, &x);
    }
}

/// How far from a mark's height its text is written: above or below, within the plot, where the curves that pass at the heights
/// `near` are farther.
fn above_or_below(mark: f64, plot: Area, near: &[f64]) -> f64 {
    let (above, below) = (-14.0, 16.0);
    if mark + above < plot.y + 10.0 {
        return below;
    }
    if mark + below > plot.bottom() - 10.0 {
        return above;
    }
    let room = |aside: f64| {
        near.iter()
            .map(|y| (y - mark - aside).abs())
            .fold(f64::INFINITY, f64::min)
    };
    if room(below) > room(above) { below } else { above }
}

/// Places with a corner between each two: what holds until it is changed.
fn stairs(places: &[Point]) -> Vec<Point> {
    let corners = places.windows(2).flat_map(|pair| [pair[0], (pair[1].0, pair[0].1)]);
    corners.chain(places.last().copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::canvas::Canvas;
    use crate::report::svg::svg;

    fn curves(points: &[Point]) -> Curves {
        Curves {
            name: "loss",
            title: "Loss".into(),
            unit: Unit::Plain,
            curves: vec![Curve {
                name: "train".into(),
                points: points.to_vec(),
                stroke: Stroke::new(Ink::Series(0), 2.0),
                named: true,
            }],
            changes: vec![(2.0, "lr 1e-4".into())],
            best: points.first().map(|p| (*p, "best".into())),
        }
    }

    #[test]
    fn rates_are_short() {
        let rates = [0.001, 2.5e-4, 0.1, 1.0, 1.234_567e-5].map(short_rate);
        assert_eq!(rates, ["1e-3", "2.5e-4", "1e-1", "1e0", "1.23e-5"]);
    }

    #[test]
    fn stairs_go_across_and_then_down() {
        assert_eq!(stairs(&[(0.0, 3.0), (1.0, 2.0)]), [(0.0, 3.0), (1.0, 3.0), (1.0, 2.0)]);
        assert!(stairs(&[]).is_empty());
    }

    #[test]
    fn a_marks_text_keeps_clear_of_the_curves_and_within_the_plot() {
        let plot = Area::new(0.0, 100.0, 400.0, 200.0);
        assert!(above_or_below(200.0, plot, &[185.0, 200.0]) > 0.0);
        assert!(above_or_below(200.0, plot, &[215.0, 200.0]) < 0.0);
        assert!(above_or_below(200.0, plot, &[]) < 0.0);
        assert!(above_or_below(110.0, plot, &[130.0]) > 0.0);
        assert!(above_or_below(290.0, plot, &[275.0]) < 0.0);
    }

    #[test]
    fn each_epoch_can_be_pointed_at() {
        let page = svg(&curves(&[(1.0, 2.0), (2.0, 1.5), (3.0, 1.25)]));
        assert_eq!(page.matches("class=\"tip\"").count(), 3);
        assert!(page.contains("Epoch 2\ntrain 1.5000"), "{page}");
    }

    #[test]
    fn no_points_one_point_and_no_numbers_are_drawn_too() {
        for points in [&[][..], &[(1.0, 2.0)], &[(1.0, f64::NAN), (2.0, f64::INFINITY)]] {
            let figure = curves(points);
            assert!(!svg(&figure).contains("NaN"));
            assert!(Canvas::of(&figure).0.width() > 0);
        }
    }

    #[test]
    fn many_names_take_several_lines() {
        let mut figure = curves(&[(1.0, 2.0)]);
        let curve = figure.curves[0].clone();
        assert!(!svg(&figure).contains(">train<"), "one needs no legend");
        figure.curves.push(curve.clone());
        assert!(svg(&figure).contains(">train<"));
        let low = figure.size().1;
        figure.curves.extend((0..9).map(|i| Curve {
            name: format!("a run with a name {i}"),
            ..curve.clone()
        }));
        assert!(figure.size().1 > low + 2.0 * LEGEND_LINE);
    }
}
