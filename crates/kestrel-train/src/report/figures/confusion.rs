//! The confusion matrix: a row for each class, a column for what it was taken for.

use crate::report::canvas::written;
use crate::report::surface::{Anchor, Area, Figure, Ink, LETTER, Surface, TextStyle};

const TITLE: f64 = 14.0;
/// Letters of a class's name.
const NAME: usize = 14;
/// The least width of the figure.
const WIDTH: f64 = 440.0;
/// Side of a cell where there are many, and the greatest.
const CELL: (f64, f64) = (12.0, 44.0);
/// A cell that a number fits in.
const NUMBERED: f64 = 26.0;

/// The most classes that a matrix is drawn of; of more one would see nothing.
pub(in crate::report) const MAX_CLASSES: usize = 100;

/// How often a class was predicted for a target.
#[derive(Clone, Debug)]
pub(in crate::report) struct Confusion<'a> {
    pub(in crate::report) classes: Vec<&'a str>,
    /// A row for each target.
    pub(in crate::report) counts: &'a [Vec<u64>],
}

impl Confusion<'_> {
    fn letters(&self) -> f64 {
        let names = self.classes.iter().enumerate().map(|(i, name)| written(i, name));
        let longest = names.map(|name| name.chars().count().min(NAME)).max();
        LETTER * longest.unwrap_or(0) as f64 + 10.0
    }

    fn left(&self) -> f64 {
        18.0 + self.letters()
    }

    fn top(&self) -> f64 {
        TITLE + 14.0 + self.letters()
    }

    fn cell(&self) -> f64 {
        let room = (WIDTH - self.left() - 4.0) / self.classes.len().max(1) as f64;
        if self.classes.len() <= 20 {
            room.clamp(NUMBERED, CELL.1)
        } else {
            room.clamp(CELL.0, CELL.1)
        }
    }
}

impl Figure for Confusion<'_> {
    fn name(&self) -> &'static str {
        "confusion"
    }

    fn title(&self) -> String {
        "Confusion: rows are what images are, columns what they were taken for".to_owned()
    }

    fn size(&self) -> (f64, f64) {
        let side = self.cell() * self.classes.len() as f64;
        ((self.left() + side + 4.0).max(WIDTH), self.top() + side + 22.0)
    }

    fn draw(&self, surface: &mut dyn Surface) {
        let (left, top, cell) = (self.left(), self.top(), self.cell());
        surface.text(
            (4.0, TITLE),
            "Confusion matrix",
            TextStyle::new(Ink::Text, Anchor::Start).bold(),
        );
        let side = cell * self.classes.len() as f64;
        let muted = TextStyle::new(Ink::Muted, Anchor::Middle);
        surface.text((9.0, top + side / 2.0), "true class", muted.turned());
        surface.text((left + side / 2.0, top + side + 12.0), "predicted class", muted);
        // Where cells are lower than letters, not every name has room.
        let every = (13.0 / cell).ceil() as usize;
        for (i, name) in self.classes.iter().enumerate().step_by(every.max(1)) {
            let name = surface.cut(&surface.class_name(i, name), NAME);
            let middle = cell * (i as f64 + 0.5);
            surface.text(
                (left - 6.0, top + middle),
                &name,
                TextStyle::new(Ink::Text, Anchor::End),
            );
            let style = TextStyle::new(Ink::Text, Anchor::Start).turned();
            surface.text((left + middle, top - 6.0), &name, style);
        }
        let gap = if cell > 16.0 { 1.0 } else { 0.5 };
        for (row, (target, counts)) in self.classes.iter().zip(self.counts).enumerate() {
            let images: u64 = counts.iter().sum();
            for (column, (predicted, &count)) in self.classes.iter().zip(counts).enumerate() {
                let area = Area::new(
                    left + cell * column as f64,
                    top + cell * row as f64,
                    cell - gap,
                    cell - gap,
                );
                let share = count as f64 / images.max(1) as f64;
                surface.rect(area, Ink::Grid, 0.45);
                if count > 0 {
                    let ink = if row == column { Ink::Right } else { Ink::Wrong };
                    // Mistakes are few: a root lets them be seen.
                    let opacity = if row == column { share } else { share.sqrt() };
                    surface.rect(area, ink, 0.08 + 0.82 * opacity);
                    if cell >= NUMBERED && self.classes.len() <= 20 {
                        let style = TextStyle::new(if opacity > 0.55 { Ink::Paper } else { Ink::Text }, Anchor::Middle);
                        let text = count.to_string();
                        let style = if LETTER * text.len() as f64 > cell - 4.0 {
                            style.small()
                        } else {
                            style
                        };
                        surface.text((area.x + cell / 2.0, area.y + cell / 2.0), &text, style);
                    }
                }
                let verb = if row == column {
                    "rightly taken for"
                } else {
                    "taken for"
                };
                let tip = format!(
                    "{target} {verb} {predicted}\n{count} of {images} ({:.1}%)",
                    100.0 * share
                );
                surface.tip(area, &tip);
            }
        }
    }
}

/// A target, what it was taken for, and how often.
pub(in crate::report) type Mistake<'a> = (&'a str, &'a str, u64);

/// The most frequent mistakes, the most frequent first.
pub(in crate::report) fn most_frequent<'a>(
    classes: &[&'a str],
    counts: &[Vec<u64>],
    at_most: usize,
) -> Vec<Mistake<'a>> {
    let mut mistakes = Vec::new();
    for (target, row) in classes.iter().zip(counts) {
        for (predicted, &count) in classes.iter().zip(row) {
            if target != predicted && count > 0 {
                mistakes.push((*target, *predicted, count));
            }
        }
    }
    // Stable: equals stay in the order of the classes.
    mistakes.sort_by_key(|mistake| std::cmp::Reverse(mistake.2));
    mistakes.truncate(at_most);
    mistakes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::svg::svg;

    #[test]
    fn each_cell_says_what_it_is() {
        let figure = Confusion {
            classes: vec!["cat", "dog"],
            counts: &[vec![9, 1], vec![0, 4]],
        };
        let page = svg(&figure);
        assert_eq!(page.matches("class=\"tip\"").count(), 4);
        assert!(page.contains("cat taken for dog\n1 of 10 (10.0%)"), "{page}");
        assert!(page.contains("dog rightly taken for dog\n4 of 4 (100.0%)"), "{page}");
    }

    #[test]
    fn a_hundred_classes_still_fit() {
        let names: Vec<String> = (0..100).map(|i| format!("class {i}")).collect();
        let figure = Confusion {
            classes: names.iter().map(String::as_str).collect(),
            counts: &vec![vec![0; 100]; 100],
        };
        assert!(figure.size().0 < 1500.0);
        assert!(svg(&figure).contains("class 98"));
    }

    #[test]
    fn mistakes_are_sorted_and_right_answers_none() {
        let counts = [vec![50, 2, 0], vec![7, 50, 2], vec![0, 0, 1]];
        let got = most_frequent(&["a", "b", "c"], &counts, 2);
        assert_eq!(got, [("b", "a", 7), ("a", "b", 2)]);
    }
}
