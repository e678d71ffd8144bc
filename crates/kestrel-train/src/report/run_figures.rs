//! Which figures a run has: drawn alike for its page and as pictures.

use super::data_record::DataRecord;
use super::evaluation_record::EvaluationRecord;
use super::figures::class_bars::{ClassBars, Row};
use super::figures::confusion::{self, Confusion};
use super::figures::curves::{Curve, Curves, Unit, short_rate};
use super::figures::reliability::ReliabilityDiagram;
use super::figures::time_split::TimeSplit;
use super::run_log::{EpochLine, RunLog};
use super::run_record::RunRecord;
use super::surface::{Figure, Ink, Stroke};

/// Steps of a learning rate that are worth a line.
const MAX_CHANGES: usize = 12;

/// A figure of a run.
pub(super) type Boxed<'a> = Box<dyn Figure + 'a>;

/// Loss, accuracy, learning rate.
pub(super) fn learning(log: &RunLog) -> Vec<Boxed<'_>> {
    if log.epochs.is_empty() {
        return Vec::new();
    }
    let epochs =
        |of: fn(&EpochLine) -> f64| -> Vec<(f64, f64)> { log.epochs.iter().map(|e| (e.epoch as f64, of(e))).collect() };
    let line = |name: &str, points, stroke| Curve {
        name: name.to_owned(),
        points,
        stroke,
        named: true,
    };
    let (train, val) = (Stroke::new(Ink::Series(0), 2.0), Stroke::new(Ink::Series(1), 2.0));
    let changes = rate_changes(log);
    let mut loss = vec![
        line("training", epochs(|e| e.train_loss), train),
        line("validation", epochs(|e| e.val_loss), val),
    ];
    let steps = step_losses(log);
    if !steps.is_empty() {
        loss.insert(
            0,
            Curve {
                name: "steps".to_owned(),
                points: steps,
                stroke: Stroke::new(Ink::Series(0), 1.0).faint(0.35),
                named: false,
            },
        );
    }
    let mut accuracy = vec![
        line("training", epochs(|e| e.train_top1), train),
        line("validation", epochs(|e| e.val_top1), val),
    ];
    let top5: Vec<(f64, f64)> = log
        .epochs
        .iter()
        .filter_map(|e| Some((e.epoch as f64, e.val_top5?)))
        .collect();
    if !top5.is_empty() {
        accuracy.push(line("validation, top 5", top5, val.dashed()));
    }
    let best = log.best().map(|epoch| {
        let text = format!("best {}", Unit::Share.text(epoch.val_top1));
        ((epoch.epoch as f64, epoch.val_top1), text)
    });
    let mut figures: Vec<Boxed<'_>> = vec![
        Box::new(Curves {
            name: "loss",
            title: "Loss".to_owned(),
            unit: Unit::Plain,
            curves: loss,
            changes: changes.clone(),
            best: None,
        }),
        Box::new(Curves {
            name: "accuracy",
            title: "Accuracy, %".to_owned(),
            unit: Unit::Share,
            curves: accuracy,
            changes,
            best,
        }),
    ];
    let rates: Vec<(f64, f64)> = log
        .epochs
        .iter()
        .filter_map(|e| Some((e.epoch as f64, e.lr?)))
        .collect();
    if rates.len() > 1 {
        figures.push(Box::new(Curves {
            name: "learning_rate",
            title: "Learning rate".to_owned(),
            unit: Unit::Rate,
            curves: vec![line("learning rate", rates, Stroke::new(Ink::Series(2), 2.0))],
            changes: Vec::new(),
            best: None,
        }));
    }
    figures
}

/// The epochs at whose start the learning rate stepped; none where it moves all the time.
fn rate_changes(log: &RunLog) -> Vec<(f64, String)> {
    let pairs = log.epochs.windows(2);
    let changes: Vec<(f64, String)> = pairs
        .filter_map(|pair| {
            let (before, after) = (pair[0].lr?, pair[1].lr?);
            (before != after).then(|| (pair[1].epoch as f64, format!("lr {}", short_rate(after))))
        })
        .collect();
    if changes.len() <= MAX_CHANGES && 2 * changes.len() < log.epochs.len() {
        changes
    } else {
        Vec::new()
    }
}

/// Losses of steps over parts of epochs: an epoch's end is at its number.
fn step_losses(log: &RunLog) -> Vec<(f64, f64)> {
    let mut points = Vec::new();
    let mut before = 0;
    for steps in log.steps.chunk_by(|a, b| a.epoch == b.epoch) {
        let end = steps.last().map_or(before, |step| step.step);
        let length = end.saturating_sub(before).max(1) as f64;
        for step in steps {
            let share = step.step.saturating_sub(before) as f64 / length;
            points.push((step.epoch.saturating_sub(1) as f64 + share, step.loss));
        }
        before = end;
    }
    points
}

/// Scores of the classes, and which are taken for which.
pub(super) fn classes(evaluation: &EvaluationRecord) -> Vec<Boxed<'_>> {
    let mut figures: Vec<Boxed<'_>> = vec![Box::new(class_scores(evaluation))];
    if evaluation.per_class.len() <= confusion::MAX_CLASSES {
        figures.push(Box::new(Confusion {
            classes: evaluation.classes().collect(),
            counts: &evaluation.confusion,
        }));
    }
    figures
}

/// Confidence against accuracy.
pub(super) fn calibration(evaluation: &EvaluationRecord) -> Boxed<'_> {
    Box::new(ReliabilityDiagram {
        bins: &evaluation.reliability,
        ece: evaluation.ece,
    })
}

/// Every figure of a run.
pub(super) fn all(run: &RunRecord) -> Vec<Boxed<'_>> {
    let mut figures = learning(&run.log);
    if let Some(found) = &run.evaluation {
        figures.extend(classes(found));
        figures.push(calibration(found));
    }
    if let Some(balance) = class_balance(&run.data) {
        figures.push(Box::new(balance));
    }
    figures.extend(speed(&run.log));
    figures
}

fn class_scores(evaluation: &EvaluationRecord) -> ClassBars {
    let row = |class: &super::evaluation_record::ClassRecord| {
        let scores = class.scores;
        let percent = |share: f64| format!("{:.1}%", 100.0 * share);
        Row {
            class: class.class.clone(),
            bars: vec![scores.f1],
            marks: vec![scores.precision, scores.recall],
            value: percent(scores.f1),
            tip: format!(
                "{}\nF1 {}\nprecision {}\nrecall {}\n{} images",
                class.class,
                percent(scores.f1),
                percent(scores.precision),
                percent(scores.recall),
                scores.support
            ),
        }
    };
    ClassBars {
        name: "classes",
        title: "F1, precision and recall by class".to_owned(),
        legend: ["F1", "precision", "recall"].map(str::to_owned).to_vec(),
        rows: evaluation.per_class.iter().map(row).collect(),
    }
}

/// Images of each class.
pub(super) fn class_balance(data: &DataRecord) -> Option<ClassBars> {
    let most = data.splits.iter().flat_map(|split| &split.counts).max().copied()?;
    if most == 0 || data.splits.len() > super::surface::SERIES {
        return None;
    }
    let row = |(label, class): (usize, &String)| {
        let counts = data
            .splits
            .iter()
            .map(|split| split.counts.get(label).copied().unwrap_or(0));
        let words = data.splits.iter().zip(counts.clone());
        let words: Vec<String> = words
            .map(|(split, count)| format!("\n{} {count}", split.name))
            .collect();
        Row {
            class: class.clone(),
            bars: counts.clone().map(|count| count as f64 / most as f64).collect(),
            marks: Vec::new(),
            value: counts.clone().sum::<u64>().to_string(),
            tip: format!("{class}{}", words.concat()),
        }
    };
    Some(ClassBars {
        name: "class_balance",
        title: "Images by class".to_owned(),
        legend: data.splits.iter().map(|split| split.name.clone()).collect(),
        rows: data.classes.iter().enumerate().map(row).collect(),
    })
}

/// Where the time goes, and how fast the epochs were.
pub(super) fn speed(log: &RunLog) -> Vec<Boxed<'_>> {
    let mut figures: Vec<Boxed<'_>> = Vec::new();
    if let Some(split) = TimeSplit::new(&log.throughput) {
        figures.push(Box::new(split));
    }
    let rates: Vec<(f64, f64)> = log
        .throughput
        .iter()
        .map(|e| (e.epoch as f64, e.images_per_second))
        .collect();
    if rates.len() > 1 {
        figures.push(Box::new(Curves {
            name: "speed",
            title: "Training speed, images a second".to_owned(),
            unit: Unit::Speed,
            curves: vec![Curve {
                name: "training".to_owned(),
                points: rates,
                stroke: Stroke::new(Ink::Series(0), 2.0),
                named: true,
            }],
            changes: Vec::new(),
            best: None,
        }));
    }
    figures
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::run_log::StepLine;

    fn epoch(epoch: u64, lr: f64) -> EpochLine {
        EpochLine {
            epoch,
            lr: Some(lr),
            train_loss: 1.0,
            train_top1: 0.5,
            val_loss: 1.0,
            val_top1: 0.5,
            val_top5: None,
        }
    }

    #[test]
    fn steps_of_the_rate_are_marked_and_a_rate_that_always_moves_is_not() {
        let mut log = RunLog {
            epochs: vec![epoch(1, 0.1), epoch(2, 0.1), epoch(3, 0.01), epoch(4, 0.01)],
            ..RunLog::default()
        };
        assert_eq!(rate_changes(&log), [(3.0, "lr 1e-2".to_owned())]);
        log.epochs = (1..9).map(|n| epoch(n, 1.0 / n as f64)).collect();
        assert!(rate_changes(&log).is_empty());
    }

    #[test]
    fn steps_lie_between_the_ends_of_epochs() {
        let step = |step, epoch| StepLine { step, epoch, loss: 1.0 };
        let log = RunLog {
            epochs: vec![epoch(1, 0.1), epoch(2, 0.1)],
            steps: vec![step(5, 1), step(10, 1), step(15, 2), step(20, 2)],
            ..RunLog::default()
        };
        let places: Vec<f64> = step_losses(&log).into_iter().map(|p| p.0).collect();
        assert_eq!(places, [0.5, 1.0, 1.5, 2.0]);
    }
}
