//! Bars of each class: F1 with precision and recall, or how many images there are.

use crate::report::canvas::written;
use crate::report::surface::{Anchor, Area, Figure, Ink, LETTER, Stroke, Surface, TextStyle};

const WIDTH: f64 = 440.0;
const TITLE: f64 = 14.0;
const TOP: f64 = 50.0;
const ROW: f64 = 22.0;
const RIGHT: f64 = 64.0;
/// Letters of a class's name.
const NAME: usize = 18;

/// A row of bars; its place among the rows is the class's number.
#[derive(Clone, Debug)]
pub(in crate::report) struct Row {
    pub(in crate::report) class: String,
    /// One bar a series, as a share of the longest possible.
    pub(in crate::report) bars: Vec<f64>,
    /// Marks on the row, likewise.
    pub(in crate::report) marks: Vec<f64>,
    /// What stands at the row's end.
    pub(in crate::report) value: String,
    pub(in crate::report) tip: String,
}

/// Bars of each class.
#[derive(Clone, Debug)]
pub(in crate::report) struct ClassBars {
    pub(in crate::report) name: &'static str,
    pub(in crate::report) title: String,
    /// The names of bars, then of marks.
    pub(in crate::report) legend: Vec<String>,
    pub(in crate::report) rows: Vec<Row>,
}

impl ClassBars {
    fn left(&self) -> f64 {
        let names = self.rows.iter().enumerate().map(|(i, row)| written(i, &row.class));
        let longest = names.map(|name| name.chars().count().min(NAME)).max();
        LETTER * longest.unwrap_or(0) as f64 + 12.0
    }
}

impl Figure for ClassBars {
    fn name(&self) -> &'static str {
        self.name
    }

    fn title(&self) -> String {
        self.title.clone()
    }

    fn size(&self) -> (f64, f64) {
        (WIDTH, TOP + ROW * self.rows.len() as f64 + 10.0)
    }

    fn draw(&self, surface: &mut dyn Surface) {
        let left = self.left();
        let width = WIDTH - RIGHT - left;
        let title = TextStyle::new(Ink::Text, Anchor::Start).bold();
        surface.text((4.0, TITLE), &self.title, title);
        let bars = self.rows.first().map_or(0, |row| row.bars.len());
        let mut at = 4.0;
        for (i, name) in self.legend.iter().enumerate() {
            if i < bars {
                surface.rect(Area::new(at, TITLE + 14.0, 12.0, 12.0), bar_ink(i), bar_opacity(bars));
            } else {
                surface.circle((at + 6.0, TITLE + 20.0), 3.5, Ink::Series(i - bars + 1));
            }
            surface.text(
                (at + 18.0, TITLE + 20.0),
                name,
                TextStyle::new(Ink::Muted, Anchor::Start),
            );
            at += 18.0 + LETTER * name.chars().count() as f64 + 16.0;
        }
        for share in [0.0, 0.25, 0.5, 0.75, 1.0] {
            let x = left + share * width;
            let bottom = TOP + ROW * self.rows.len() as f64;
            surface.line((x, TOP), (x, bottom), Stroke::new(Ink::Grid, 1.0));
        }
        for (i, row) in self.rows.iter().enumerate() {
            let top = TOP + ROW * i as f64;
            let middle = top + ROW / 2.0;
            let name = surface.cut(&surface.class_name(i, &row.class), NAME);
            surface.text((left - 8.0, middle), &name, TextStyle::new(Ink::Text, Anchor::End));
            let height = (ROW - 6.0) / bars.max(1) as f64;
            for (j, share) in row.bars.iter().enumerate() {
                let area = Area::new(left, top + 3.0 + height * j as f64, share * width, height);
                surface.rect(area, bar_ink(j), bar_opacity(bars));
            }
            for (j, share) in row.marks.iter().enumerate() {
                surface.circle((left + share * width, middle), 3.5, Ink::Series(j + 1));
            }
            surface.text(
                (WIDTH - 4.0, middle),
                &row.value,
                TextStyle::new(Ink::Text, Anchor::End),
            );
            surface.tip(Area::new(0.0, top, WIDTH, ROW), &row.tip);
        }
    }
}

fn bar_ink(series: usize) -> Ink {
    // With marks of the series after it, a bar keeps to the first.
    Ink::Series(series)
}

/// One bar a row lies under marks.
fn bar_opacity(bars: usize) -> f64 {
    if bars == 1 { 0.35 } else { 0.85 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::svg::svg;

    #[test]
    fn each_class_has_its_row_and_its_words() {
        let row = |class: &str, share| Row {
            class: class.into(),
            bars: vec![share],
            marks: vec![0.5, 1.0],
            value: format!("{share}"),
            tip: format!("{class}: {share}"),
        };
        let figure = ClassBars {
            name: "classes",
            title: "Classes".into(),
            legend: ["F1", "precision", "recall"].map(str::to_owned).to_vec(),
            rows: vec![row("a<b", 0.25), row("a class whose name is long", 1.0)],
        };
        let page = svg(&figure);
        assert_eq!(page.matches("class=\"tip\"").count(), 2);
        assert!(
            page.contains("a&lt;b: 0.25") && page.contains("a class whose nam…"),
            "{page}"
        );
        // Two marks a row, and two in the legend.
        assert_eq!(page.matches("<circle").count(), 6);
    }
}
