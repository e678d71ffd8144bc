//! The page of one run.

use super::data_record::DataRecord;
use super::escape::escape;
use super::evaluation_record::EvaluationRecord;
use super::figures::confusion::most_frequent;
use super::figures::curves::{Unit, short_rate};
use super::gallery::GalleryImage;
use super::page::{Card, Page, Table};
use super::run_figures::{self, Boxed};
use super::run_log::RunLog;
use super::run_record::RunRecord;
use super::svg::svg;

/// Mistakes that are listed.
const MISTAKES: usize = 10;
/// Side of a gallery's image on the page.
const SIDE: u32 = 128;

/// The whole file.
pub(super) fn run_page(run: &RunRecord) -> String {
    let mut page = Page::default();
    learning(&mut page, &run.log);
    if let Some(found) = &run.evaluation {
        classes(&mut page, found);
        calibration(&mut page, found);
    }
    gallery(&mut page, run);
    data(&mut page, &run.data);
    speed(&mut page, &run.log);
    details(&mut page, run);
    let kind = if run.log.epochs.is_empty() {
        "Evaluation"
    } else {
        "Training run"
    };
    page.finish(kind, &run.name, &about(run), &cards(run))
}

fn about(run: &RunRecord) -> String {
    let mut parts = vec![run.model().to_owned()];
    let classes = run.log.run.classes.len().max(run.data.classes.len());
    let classes = classes.max(run.evaluation.as_ref().map_or(0, |e| e.per_class.len()));
    if classes > 0 {
        parts.push(format!("{classes} classes"));
    }
    if let Some(last) = run.log.epochs.last() {
        let plural = if last.epoch == 1 { "" } else { "s" };
        parts.push(format!("{} epoch{plural}", last.epoch));
    }
    if let Some(seed) = run.log.run.seed {
        parts.push(format!("seed {seed}"));
    }
    parts.retain(|part| !part.is_empty());
    parts.join(" · ")
}

fn cards(run: &RunRecord) -> Vec<Card> {
    let mut cards = Vec::new();
    if let Some(found) = &run.evaluation {
        cards.push(Card::new(
            Unit::Share.text(found.top1),
            format!("accuracy on {} {} images", found.images, found.split),
        ));
        if let Some(top5) = found.top5 {
            cards.push(Card::new(Unit::Share.text(top5), "top-5 accuracy"));
        }
        cards.push(Card::new(Unit::Plain.text(found.loss), format!("{} loss", found.split)));
        cards.push(Card::new(Unit::Share.text(found.ece), "expected calibration error"));
    }
    if let Some(best) = run.log.best() {
        cards.push(Card::new(
            Unit::Share.text(best.val_top1),
            format!("best validation accuracy, epoch {}", best.epoch),
        ));
    }
    if let Some(speed) = run.images_per_second() {
        cards.push(Card::new(format!("{speed:.0}"), "training images a second"));
    }
    cards
}

fn figures(page: &mut Page, figures: &[Boxed<'_>]) {
    for figure in figures {
        let class = if is_wide(figure) { "panel wide" } else { "panel" };
        page.push(&format!("<div class=\"{class}\">\n{}</div>\n", svg(figure.as_ref())));
    }
}

/// Whether a figure is wider than a column, and stands alone.
fn is_wide(figure: &Boxed<'_>) -> bool {
    figure.size().0 > 500.0
}

fn learning(page: &mut Page, log: &RunLog) {
    if log.epochs.is_empty() {
        return;
    }
    page.section("Learning");
    page.push("<div class=\"figures\">\n");
    figures(page, &run_figures::learning(log));
    let mut table = Table::new(&["epoch", "lr", "loss", "accuracy", "val loss", "val accuracy"]);
    let best = log.best().map(|epoch| epoch.epoch);
    for epoch in &log.epochs {
        let cells = [
            epoch.epoch.to_string(),
            epoch.lr.map(short_rate).unwrap_or_default(),
            Unit::Plain.text(epoch.train_loss),
            Unit::Share.text(epoch.train_top1),
            Unit::Plain.text(epoch.val_loss),
            Unit::Share.text(epoch.val_top1),
        ];
        let is_best = best == Some(epoch.epoch);
        table.emphasised("", &cells, if is_best { &[5] } else { &[] });
    }
    page.push(&format!(
        "<div class=\"panel scroll\">\n{}</div>\n</div>\n",
        table.html()
    ));
}

fn classes(page: &mut Page, found: &EvaluationRecord) {
    page.section("Classes");
    let shown = run_figures::classes(found);
    let (bars, matrix) = shown.split_at(1);
    page.push("<div class=\"figures\">\n<div class=\"stack\">\n");
    figures(page, bars);
    page.push(&format!(
        "<div class=\"panel\">\n{}</div>\n</div>\n",
        scores(found).html()
    ));
    let beside = matrix.iter().all(|matrix| !is_wide(matrix));
    if beside {
        page.push("<div class=\"stack\">\n");
        figures(page, matrix);
    }
    let names: Vec<&str> = found.classes().collect();
    let mistakes = most_frequent(&names, &found.confusion, MISTAKES);
    if !mistakes.is_empty() {
        let mut table = Table::new(&["most frequent mistakes", "taken for", "images"]);
        for (target, predicted, count) in mistakes {
            table.row("", &[target.to_owned(), predicted.to_owned(), count.to_string()]);
        }
        page.push(&format!("<div class=\"panel\">\n{}</div>\n", table.html()));
    }
    if beside {
        page.push("</div>\n");
    } else {
        figures(page, matrix);
    }
    page.push("</div>\n");
}

/// Each class's scores, and their mean.
fn scores(found: &EvaluationRecord) -> Table {
    let percent = |share: f64| format!("{:.1}%", 100.0 * share);
    let mut table = Table::new(&["class", "images", "precision", "recall", "F1"]);
    let cells = |name: &str, images: u64, values: [f64; 3]| {
        let [precision, recall, f1] = values.map(percent);
        [name.to_owned(), images.to_string(), precision, recall, f1]
    };
    let mut sums = [0.0; 3];
    for class in &found.per_class {
        let values = [class.scores.precision, class.scores.recall, class.scores.f1];
        for (sum, value) in sums.iter_mut().zip(values) {
            *sum += value;
        }
        table.row("", &cells(&class.class, class.scores.support, values));
    }
    let classes = found.per_class.len().max(1) as f64;
    table.total(&cells("mean", found.images, sums.map(|sum| sum / classes)));
    table
}

fn calibration(page: &mut Page, found: &EvaluationRecord) {
    page.section("Calibration");
    page.push("<div class=\"figures\">\n");
    figures(page, &[run_figures::calibration(found)]);
    let mut text = format!(
        "Of the images that a calibrated model is 80% sure of, 80% are right: its bars end on the dashed line. The expected \
         calibration error is the mean distance from it: {}.",
        Unit::Share.text(found.ece)
    );
    match (found.temperature, found.uncalibrated_ece) {
        (Some(temperature), Some(ece)) => text.push_str(&format!(
            " Logits are divided by the temperature {temperature:.3}, which was fitted on the validation images; without it \
             the error is {}.",
            Unit::Share.text(ece)
        )),
        _ => text.push_str(" The weights carry no temperature, so the probabilities are the network's own."),
    }
    page.push(&format!("<p class=\"note\">{}</p>\n</div>\n", escape(&text)));
}

fn gallery(page: &mut Page, run: &RunRecord) {
    let gallery = &run.gallery;
    let parts = [
        (
            "Surest mistakes",
            "wrong, by falling probability",
            &gallery.confident_wrong,
        ),
        ("Wrong", "drawn by chance", &gallery.wrong),
        ("Right", "drawn by chance", &gallery.right),
    ];
    if parts.iter().all(|(.., images)| images.is_empty()) {
        return;
    }
    page.section("Images");
    for (name, how, images) in parts {
        if images.is_empty() {
            continue;
        }
        page.push(&format!(
            "<h3>{name} <small>{how}</small></h3>\n<ul class=\"images\">\n"
        ));
        for image in images {
            page.push(&tile(image));
        }
        page.push("</ul>\n");
    }
}

fn tile(image: &GalleryImage) -> String {
    let class = if image.is_right() { "" } else { " class=\"wrong\"" };
    let alt = format!("an image of {}", image.target);
    let percent = |share: f64| format!("{:.1}%", 100.0 * share);
    let mut lines = line("Pred", &image.predicted, &percent(image.probability));
    lines.push_str(&line("True", &image.target, &percent(image.target_probability)));
    format!(
        "<li{class} title=\"{}\">{}{lines}</li>\n",
        escape(&image.source),
        image.picture.img(&alt, SIDE)
    )
}

fn line(what: &str, class: &str, probability: &str) -> String {
    format!(
        "<div><span><i>{what}:</i> {}</span> <b>{probability}</b></div>",
        escape(class)
    )
}

fn data(page: &mut Page, data: &DataRecord) {
    if data.splits.is_empty() {
        return;
    }
    page.section("Data");
    page.push("<div class=\"figures\">\n");
    if let Some(balance) = run_figures::class_balance(data) {
        figures(page, &[Box::new(balance) as Boxed<'_>]);
    }
    let mut table = Table::new(&["split", "images", "smallest class", "largest class"]);
    for split in &data.splits {
        let count = |value: Option<&u64>| value.copied().unwrap_or(0).to_string();
        let cells = [
            split.name.clone(),
            split.counts.iter().sum::<u64>().to_string(),
            count(split.counts.iter().min()),
            count(split.counts.iter().max()),
        ];
        table.row("", &cells);
    }
    page.push(&format!("<div class=\"panel\">\n{}</div>\n</div>\n", table.html()));
    if data.augmentations.is_empty() {
        return;
    }
    page.push("<h3>Augmentations <small>an image, and what training may make of it</small></h3>\n");
    page.push("<div class=\"panel\"><div class=\"views\">\n<p>original</p><p class=\"rest\">augmented</p>\n");
    for image in &data.augmentations {
        page.push(&image.original.img("a training image", SIDE));
        for view in &image.views {
            page.push(&view.img("the same, augmented", SIDE));
        }
        page.push("\n");
    }
    page.push("</div></div>\n");
}

fn speed(page: &mut Page, log: &RunLog) {
    let shown = run_figures::speed(log);
    if shown.is_empty() {
        return;
    }
    page.section("Speed");
    page.push("<div class=\"figures\">\n");
    figures(page, &shown);
    page.push("</div>\n");
}

fn details(page: &mut Page, run: &RunRecord) {
    let options: Vec<(String, String)> = run.options().map(|(name, value)| (name.to_owned(), value)).collect();
    for (name, pairs) in [("Configuration", &options), ("Environment", &run.environment)] {
        if pairs.is_empty() {
            continue;
        }
        page.section(name);
        page.push("<div class=\"panel\"><dl class=\"options\">\n");
        for (name, value) in pairs {
            page.push(&format!(
                "<div><dt>{}</dt><dd>{}</dd></div>\n",
                escape(name),
                escape(value)
            ));
        }
        page.push("</dl></div>\n");
    }
}
