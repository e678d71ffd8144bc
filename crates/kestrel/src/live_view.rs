//! What stands above the progress bar on a terminal: the last epochs as a table, and the loss of the whole run in a line.

use std::collections::VecDeque;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use kestrel_train::EpochReport;

/// Epochs that are shown.
const ROWS: usize = 6;
/// Letters of the sparkline.
const WIDTH: usize = 40;
const HEADER: &str = "  epoch      loss  accuracy  val loss   val acc        lr   img/s";

/// A small table that is drawn again after each epoch.
pub(crate) struct LiveView {
    bars: MultiProgress,
    area: ProgressBar,
    rows: VecDeque<String>,
    losses: Losses,
}

impl LiveView {
    /// Above all bars; `None` where nothing is drawn, because nobody looks at a terminal.
    pub(crate) fn new(bars: &MultiProgress) -> Option<Self> {
        if bars.is_hidden() {
            return None;
        }
        let area = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        let area = bars.insert(0, area);
        // A template that does not parse leaves the library's own style, which is no reason to stop a run.
        if let Ok(style) = ProgressStyle::with_template("{msg}") {
            area.set_style(style);
        }
        Some(Self {
            bars: bars.clone(),
            area,
            rows: VecDeque::new(),
            losses: Losses::default(),
        })
    }

    /// A step's loss.
    pub(crate) fn step(&mut self, loss: f64) {
        self.losses.add(loss);
    }

    /// An epoch is done.
    pub(crate) fn epoch(&mut self, report: &EpochReport, images_per_second: f64) {
        if self.rows.len() == ROWS {
            self.rows.pop_front();
        }
        self.rows.push_back(row(report, images_per_second));
        let mut text = String::from(HEADER);
        for row in &self.rows {
            text.push('\n');
            text.push_str(row);
        }
        text.push_str("\n  loss ");
        text.push_str(&self.losses.sparkline());
        self.area.set_message(text);
    }
}

impl Drop for LiveView {
    fn drop(&mut self) {
        // What was drawn is taken away, and the table stays as text above what comes.
        let table = self.area.message();
        self.area.finish_and_clear();
        self.bars.remove(&self.area);
        if !table.is_empty() {
            // A terminal that is gone reads nothing.
            let _ = self.bars.println(table);
        }
    }
}

fn row(report: &EpochReport, images_per_second: f64) -> String {
    let EpochReport {
        epoch,
        train_loss,
        train_accuracy,
        val_loss,
        val_accuracy,
        lr,
        improved,
        ..
    } = *report;
    let mark = if improved { '*' } else { ' ' };
    format!(
        "{mark} {epoch:>5}  {train_loss:>8.4}  {:>7.2}%  {val_loss:>8.4}  {:>7.2}%  {lr:>8.1e}  {images_per_second:>6.0}",
        100.0 * train_accuracy,
        100.0 * val_accuracy
    )
}

/// The losses of a run's steps, in at most twice [`WIDTH`] means of equally many.
#[derive(Debug)]
struct Losses {
    means: Vec<f64>,
    /// Steps in each mean.
    every: usize,
    sum: f64,
    steps: usize,
}

impl Default for Losses {
    fn default() -> Self {
        Self {
            means: Vec::new(),
            every: 1,
            sum: 0.0,
            steps: 0,
        }
    }
}

impl Losses {
    fn add(&mut self, loss: f64) {
        self.sum += loss;
        self.steps += 1;
        if self.steps < self.every {
            return;
        }
        self.means.push(self.sum / self.steps as f64);
        (self.sum, self.steps) = (0.0, 0);
        if self.means.len() == 2 * WIDTH {
            self.means = self
                .means
                .chunks(2)
                .map(|pair| pair.iter().sum::<f64>() / 2.0)
                .collect();
            self.every *= 2;
        }
    }

    /// The losses as a line of bars, from the first step to the last.
    fn sparkline(&self) -> String {
        const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
        let per_letter = self.means.len().div_ceil(WIDTH).max(1);
        let values: Vec<f64> = self
            .means
            .chunks(per_letter)
            .map(|part| part.iter().sum::<f64>() / part.len() as f64)
            .collect();
        let low = values.iter().copied().fold(f64::INFINITY, f64::min);
        let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let bar = |value: &f64| {
            let share = (value - low) / (high - low).max(f64::MIN_POSITIVE);
            BARS[((share * 8.0) as usize).min(7)]
        };
        values.iter().map(bar).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_falling_loss_is_a_falling_line() {
        let mut losses = Losses::default();
        assert_eq!(losses.sparkline(), "");
        for step in 0..8 {
            losses.add(8.0 - f64::from(step));
        }
        assert_eq!(losses.sparkline(), "█▇▆▅▄▃▂▁");
    }

    #[test]
    fn a_long_run_takes_no_more_room_than_a_short_one() {
        let mut losses = Losses::default();
        for step in 0..100_000 {
            losses.add(1.0 / f64::from(step + 1));
        }
        assert!(losses.means.len() < 2 * WIDTH);
        let letters = losses.sparkline().chars().count();
        assert!((WIDTH / 2..=WIDTH).contains(&letters), "{letters}");
        assert!(losses.sparkline().starts_with('█') && losses.sparkline().ends_with('▁'));
    }

    #[test]
    fn numbers_stand_below_their_names() {
        let report = EpochReport {
            epoch: 12,
            train_loss: 0.5,
            train_accuracy: 0.75,
            val_loss: 1.25,
            val_accuracy: 1.0,
            lr: 1e-3,
            improved: true,
            step: 0,
            val_top5: None,
            temperature: None,
        };
        let row = row(&report, 226.4);
        assert_eq!(row.chars().count(), HEADER.chars().count());
        assert_eq!(row, "*    12    0.5000    75.00%    1.2500   100.00%    1.0e-3     226");
    }
}
