//! What an evaluation found, as a table for people.

use std::io::{self, Write};

use kestrel_train::report::EvaluationRecord;

/// Prints loss and accuracy, and a line each class; `images` is how many there are in the split, damaged ones with them.
pub(super) fn print(found: &EvaluationRecord, images: usize, out: &mut impl Write) -> io::Result<()> {
    let percent = |share: f64| format!("{:.2}%", 100.0 * share);
    write!(
        out,
        "Accuracy on the {} {} images: {}  (loss {:.4}",
        found.images,
        found.split,
        percent(found.top1),
        found.loss
    )?;
    if let Some(top5) = found.top5 {
        write!(out, ", top-5 {}", percent(top5))?;
    }
    match (images as u64).saturating_sub(found.images) {
        0 => writeln!(out, ")")?,
        skipped => writeln!(out, "); {skipped} damaged images left out")?,
    }
    write!(out, "Expected calibration error: {}", percent(found.ece))?;
    match (found.temperature, found.uncalibrated_ece) {
        (Some(temperature), Some(ece)) => {
            writeln!(out, " at temperature {temperature:.3}, {} without", percent(ece))?;
        }
        _ => writeln!(out)?,
    }
    let names = found.classes().map(|name| name.chars().count());
    let width = names.chain(["class".len()]).max().unwrap_or_default();
    writeln!(
        out,
        "\n{:width$}  {:>8}  {:>9}  {:>9}  {:>9}",
        "class", "images", "precision", "recall", "F1"
    )?;
    for class in &found.per_class {
        let scores = class.scores;
        let [precision, recall, f1] = [scores.precision, scores.recall, scores.f1].map(percent);
        writeln!(
            out,
            "{:width$}  {:>8}  {precision:>9}  {recall:>9}  {f1:>9}",
            class.class, scores.support
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use kestrel_train::metrics::ClassScores;
    use kestrel_train::report::ClassRecord;

    use super::*;

    #[test]
    fn numbers_stand_below_their_names() {
        let class = |name: &str, support| ClassRecord {
            class: name.into(),
            scores: ClassScores {
                support,
                precision: 1.0,
                recall: 0.5,
                f1: 2.0 / 3.0,
            },
        };
        let found = EvaluationRecord {
            split: "test".into(),
            images: 6,
            loss: 0.25,
            top1: 0.75,
            top5: Some(1.0),
            ece: 0.1,
            uncalibrated_ece: Some(0.2),
            temperature: Some(1.5),
            per_class: vec![class("cat", 4), class("Äpfel-Baum", 2)],
            confusion: vec![vec![2, 2], vec![1, 1]],
            reliability: Vec::new(),
        };
        let mut out = Vec::new();
        print(&found, 8, &mut out).unwrap();
        let want = "Accuracy on the 6 test images: 75.00%  (loss 0.2500, top-5 100.00%); 2 damaged images left out
Expected calibration error: 10.00% at temperature 1.500, 20.00% without

class         images  precision     recall         F1
cat                4    100.00%     50.00%     66.67%
Äpfel-Baum         2    100.00%     50.00%     66.67%
";
        assert_eq!(String::from_utf8(out).unwrap(), want);
    }
}
