//! The page of several runs: their curves over each other, what they came to, and in which options they differ.

use std::collections::BTreeMap;

use super::escape::escape;
use super::figures::curves::{Curve, Curves, Unit};
use super::page::{Page, Table};
use super::run_log::EpochLine;
use super::run_record::RunRecord;
use super::surface::{Ink, SERIES, Stroke};
use super::svg::svg;

/// The whole file.
pub(super) fn comparison_page(runs: &[RunRecord]) -> String {
    let mut page = Page::default();
    page.section("Results");
    page.push(&format!("<div class=\"panel\">\n{}</div>\n", results(runs).html()));
    let figures = curves(runs);
    if !figures.is_empty() {
        page.section("Curves");
        page.push("<div class=\"figures\">\n");
        for figure in &figures {
            page.push(&format!("<div class=\"panel\">\n{}</div>\n", svg(figure)));
        }
        page.push("</div>\n");
    }
    page.section("Options");
    options(&mut page, runs);
    let names: Vec<&str> = runs.iter().map(|run| run.name.as_str()).collect();
    page.finish("Comparison", &format!("{} runs", runs.len()), &names.join(" · "), &[])
}

/// The colour of a run, on all figures; dashed where all colours are taken.
fn stroke(run: usize) -> Stroke {
    let stroke = Stroke::new(Ink::Series(run), 2.0);
    if (run / SERIES) % 2 == 1 {
        stroke.dashed()
    } else {
        stroke
    }
}

/// A run's key in a table: a line as in the figures.
fn key(run: usize) -> String {
    let stroke = stroke(run);
    let style = if stroke.dashed { ";border-top-style:dashed" } else { "" };
    format!(
        "<span class=\"key\" style=\"border-top-color:var({}){style}\"></span>",
        stroke.ink.variable()
    )
}

/// A measure of a run: its name, its value, its form, and whether more of it is better.
struct Measure {
    name: &'static str,
    of: fn(&RunRecord) -> Option<f64>,
    unit: Unit,
    more_is_better: bool,
}

const MEASURES: [Measure; 8] = [
    Measure {
        name: "best validation accuracy",
        of: |run| Some(run.log.best()?.val_top1),
        unit: Unit::Share,
        more_is_better: true,
    },
    Measure {
        name: "last validation loss",
        of: |run| Some(run.log.epochs.last()?.val_loss),
        unit: Unit::Plain,
        more_is_better: false,
    },
    Measure {
        name: "last training loss",
        of: |run| Some(run.log.epochs.last()?.train_loss),
        unit: Unit::Plain,
        more_is_better: false,
    },
    Measure {
        name: "accuracy",
        of: |run| Some(run.evaluation.as_ref()?.top1),
        unit: Unit::Share,
        more_is_better: true,
    },
    Measure {
        name: "top-5",
        of: |run| run.evaluation.as_ref()?.top5,
        unit: Unit::Share,
        more_is_better: true,
    },
    Measure {
        name: "loss",
        of: |run| Some(run.evaluation.as_ref()?.loss),
        unit: Unit::Plain,
        more_is_better: false,
    },
    Measure {
        name: "ECE",
        of: |run| Some(run.evaluation.as_ref()?.ece),
        unit: Unit::Share,
        more_is_better: false,
    },
    Measure {
        name: "speed",
        of: RunRecord::images_per_second,
        unit: Unit::Speed,
        more_is_better: true,
    },
];

fn results(runs: &[RunRecord]) -> Table {
    let there = |measure: &&Measure| runs.iter().any(|run| (measure.of)(run).is_some());
    let measures: Vec<&Measure> = MEASURES.iter().filter(there).collect();
    let mut columns = vec!["run", "model", "evaluated on", "epochs"];
    columns.extend(measures.iter().map(|measure| measure.name));
    let mut table = Table::new(&columns);
    let best: Vec<Option<f64>> = measures
        .iter()
        .map(|measure| {
            let values = runs.iter().filter_map(measure.of).filter(|v| v.is_finite());
            let first = values.clone().next();
            if values.clone().all(|value| Some(value) == first) {
                return None;
            }
            if measure.more_is_better {
                values.max_by(f64::total_cmp)
            } else {
                values.min_by(f64::total_cmp)
            }
        })
        .collect();
    for (i, run) in runs.iter().enumerate() {
        let mut cells = vec![
            run.name.clone(),
            run.model().to_owned(),
            run.evaluation
                .as_ref()
                .map_or(String::new(), |found| found.split.clone()),
            run.log
                .epochs
                .last()
                .map_or(String::new(), |last| last.epoch.to_string()),
        ];
        let mut emphasised = Vec::new();
        for (measure, best) in measures.iter().zip(&best) {
            let value = (measure.of)(run);
            if value.is_some() && value == *best {
                emphasised.push(cells.len());
            }
            cells.push(value.map_or("–".to_owned(), |value| measure.unit.text(value)));
        }
        table.emphasised(&key(i), &cells, &emphasised);
    }
    table
}

fn curves(runs: &[RunRecord]) -> Vec<Curves> {
    type Of = fn(&EpochLine) -> Option<f64>;
    let figures: [(&str, &str, Unit, Of); 5] = [
        ("val_accuracy", "Validation accuracy, %", Unit::Share, |e| {
            Some(e.val_top1)
        }),
        ("val_loss", "Validation loss", Unit::Plain, |e| Some(e.val_loss)),
        ("train_accuracy", "Training accuracy, %", Unit::Share, |e| {
            Some(e.train_top1)
        }),
        ("train_loss", "Training loss", Unit::Plain, |e| Some(e.train_loss)),
        ("learning_rate", "Learning rate", Unit::Rate, |e| e.lr),
    ];
    let curve = |(i, run): (usize, &RunRecord), of: Of| {
        let epochs = run.log.epochs.iter();
        Curve {
            name: run.name.clone(),
            points: epochs.filter_map(|e| Some((e.epoch as f64, of(e)?))).collect(),
            stroke: stroke(i),
            named: true,
        }
    };
    let with = |(name, title, unit, of): (&'static str, &str, Unit, Of)| {
        let curves: Vec<Curve> = runs.iter().enumerate().map(|run| curve(run, of)).collect();
        curves.iter().any(|curve| !curve.points.is_empty()).then(|| Curves {
            name,
            title: title.to_owned(),
            unit,
            curves,
            changes: Vec::new(),
            best: None,
        })
    };
    figures.into_iter().filter_map(with).collect()
}

/// The options in which runs differ, a column each run.
fn options(page: &mut Page, runs: &[RunRecord]) {
    let mut options: BTreeMap<String, Vec<Option<String>>> = BTreeMap::new();
    for (i, run) in runs.iter().enumerate() {
        for (name, value) in run.options() {
            let values = options.entry(name.to_owned()).or_default();
            values.resize(runs.len(), None);
            values[i] = Some(value);
        }
    }
    options.retain(|name, values| name != "name" && values.iter().any(|value| *value != values[0]));
    if options.is_empty() {
        page.note("The runs have the same options.");
        return;
    }
    let mut columns = vec!["option"];
    columns.extend(runs.iter().map(|run| run.name.as_str()));
    let mut table = Table::new(&columns);
    for (name, values) in options {
        let mut cells = vec![name];
        cells.extend(values.into_iter().map(|value| value.unwrap_or_else(|| "–".to_owned())));
        table.row("", &cells);
    }
    page.push(&format!("<div class=\"panel\">\n{}</div>\n", table.html()));
    let same = escape("Options that are not listed are the same in every run.");
    page.push(&format!("<p class=\"note\">{same}</p>\n"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(name: &str, config: &str, accuracy: f64) -> RunRecord {
        let mut run = RunRecord {
            name: name.into(),
            config: config.parse().unwrap(),
            ..RunRecord::default()
        };
        run.log.epochs = vec![EpochLine {
            epoch: 1,
            lr: None,
            train_loss: 1.0,
            train_top1: 0.5,
            val_loss: 1.0,
            val_top1: accuracy,
            val_top5: None,
        }];
        run
    }

    #[test]
    fn only_differing_options_are_listed() {
        let page = comparison_page(&[
            run("a", "lr = 0.1\nseed = 0", 0.5),
            run("b", "lr = 0.2\nseed = 0\nema = 0.9", 0.7),
        ]);
        for there in [
            "<th scope=\"row\">lr</th>",
            "<td class=\"n\">0.2</td>",
            "ema",
            "<td class=\"n best\">70.00%</td>",
        ] {
            assert!(page.contains(there), "{there}");
        }
        assert!(!page.contains(">seed<") && !page.contains("Learning rate"));
        assert!(comparison_page(&[run("a", "lr = 1", 0.5), run("b", "lr = 1", 0.5)]).contains("the same options"));
    }

    #[test]
    fn an_eighth_run_has_another_line_than_the_first() {
        assert_ne!(key(0), key(SERIES));
        assert_eq!(stroke(SERIES).ink.variable(), stroke(0).ink.variable());
    }
}
