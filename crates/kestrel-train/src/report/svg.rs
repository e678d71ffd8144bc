//! Figures as SVG for the page: its colours are variables of the style sheet, so that they follow light and dark.

use std::fmt::Write;

use super::escape::escape;
use super::surface::{Anchor, Area, FONT_SIZE, Figure, Ink, Point, SMALL_FONT_SIZE, Stroke, Surface, TextStyle};

/// A figure as an `<svg>` element that fits the width it is given.
pub(super) fn svg(figure: &dyn Figure) -> String {
    let (width, height) = figure.size();
    let mut surface = Svg::default();
    figure.draw(&mut surface);
    format!(
        "<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\" style=\"max-width:{}px\">{}</svg>\n",
        number(width),
        number(height),
        escape(&figure.title()),
        number(1.5 * width),
        surface.text
    )
}

#[derive(Default)]
struct Svg {
    text: String,
}

impl Svg {
    fn push(&mut self, part: std::fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = self.text.write_fmt(part);
    }
}

/// A number with at most two decimals, and none where they are 0.
fn number(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn var(ink: Ink) -> String {
    format!("var({})", ink.variable())
}

fn rectangle(area: Area) -> String {
    let Area { x, y, width, height } = area;
    let [x, y, width, height] = [x, y, width, height].map(number);
    format!("<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\"")
}

impl Surface for Svg {
    fn rect(&mut self, area: Area, fill: Ink, opacity: f64) {
        let opacity = if opacity < 1.0 {
            format!(" fill-opacity=\"{}\"", number(opacity))
        } else {
            String::new()
        };
        self.push(format_args!(
            "{} style=\"fill:{}\"{opacity}/>",
            rectangle(area),
            var(fill)
        ));
    }

    fn circle(&mut self, (x, y): Point, radius: f64, fill: Ink) {
        let [x, y, radius] = [x, y, radius].map(number);
        self.push(format_args!(
            "<circle cx=\"{x}\" cy=\"{y}\" r=\"{radius}\" style=\"fill:{}\"/>",
            var(fill)
        ));
    }

    fn polyline(&mut self, points: &[Point], stroke: Stroke) {
        let points: Vec<String> = points
            .iter()
            .map(|(x, y)| format!("{},{}", number(*x), number(*y)))
            .collect();
        let dashes = if stroke.dashed { " stroke-dasharray=\"5 4\"" } else { "" };
        let opacity = if stroke.opacity < 1.0 {
            format!(" stroke-opacity=\"{}\"", number(stroke.opacity))
        } else {
            String::new()
        };
        self.push(format_args!(
            "<polyline points=\"{}\" fill=\"none\" style=\"stroke:{}\" stroke-width=\"{}\" stroke-linejoin=\"round\"{dashes}{opacity}/>",
            points.join(" "),
            var(stroke.ink),
            number(stroke.width)
        ));
    }

    fn text(&mut self, (x, y): Point, text: &str, style: TextStyle) {
        let size = if style.small { SMALL_FONT_SIZE } else { FONT_SIZE };
        let anchor = match style.anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let weight = if style.bold { " font-weight=\"600\"" } else { "" };
        // The place is at the middle of the letters' height; baselines by name are not everywhere the same.
        let place = if style.turned {
            let (x, y) = (number(x + 0.35 * size), number(y));
            format!("transform=\"translate({x} {y}) rotate(-90)\"")
        } else {
            format!("x=\"{}\" y=\"{}\"", number(x), number(y + 0.35 * size))
        };
        self.push(format_args!(
            "<text {place} text-anchor=\"{anchor}\" font-size=\"{}\"{weight} style=\"fill:{}\">{}</text>",
            number(size),
            var(style.ink),
            escape(text)
        ));
    }

    fn tip(&mut self, area: Area, text: &str) {
        self.push(format_args!(
            "{} class=\"tip\"><title>{}</title></rect>",
            rectangle(area),
            escape(text)
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        assert_eq!(
            [1.0, 0.5, 10.0, -0.001, 12.345].map(number),
            ["1", "0.5", "10", "-0", "12.35"]
        );
    }

    #[test]
    fn texts_are_escaped() {
        let mut svg = Svg::default();
        svg.text((1.0, 2.0), "<b> & \"c\"", TextStyle::new(Ink::Text, Anchor::Start));
        svg.tip(Area::new(0.0, 0.0, 1.0, 1.0), "</title>");
        assert!(svg.text.contains("&lt;b&gt; &amp; &quot;c&quot;"), "{}", svg.text);
        assert!(!svg.text.contains("</title></title>"), "{}", svg.text);
    }
}
