//! What a figure is drawn on: a picture of pixels or a part of a web page. Lengths are in points; `y` grows downwards.

/// A drawing of one size, drawn the same on every surface.
pub(super) trait Figure {
    /// Its name, as a file's: `loss`.
    fn name(&self) -> &'static str;

    /// What it shows, in a line.
    fn title(&self) -> String;

    /// Width and height in points.
    fn size(&self) -> (f64, f64);

    /// Draws it.
    fn draw(&self, surface: &mut dyn Surface);
}

/// Something to draw on.
pub(super) trait Surface {
    /// A filled rectangle.
    fn rect(&mut self, area: Area, fill: Ink, opacity: f64);

    /// A filled circle.
    fn circle(&mut self, centre: Point, radius: f64, fill: Ink);

    /// A line through points.
    fn polyline(&mut self, points: &[Point], stroke: Stroke);

    /// A line of text. A turned one runs upwards.
    fn text(&mut self, at: Point, text: &str, style: TextStyle);

    /// A class's name as this surface can write it; `number` is the class's, counted from 0.
    fn class_name(&self, _number: usize, name: &str) -> String {
        name.to_owned()
    }

    /// A text cut to at most `letters`, with a mark that this surface can write where something is missing.
    fn cut(&self, text: &str, letters: usize) -> String {
        cut(text, letters, "…")
    }

    /// What is said of a part when it is pointed at. Paper says nothing.
    fn tip(&mut self, area: Area, text: &str);

    /// A straight line.
    fn line(&mut self, from: Point, to: Point, stroke: Stroke) {
        self.polyline(&[from, to], stroke);
    }
}

/// A place.
pub(super) type Point = (f64, f64);

/// A rectangle.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Area {
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) width: f64,
    pub(super) height: f64,
}

impl Area {
    pub(super) fn new(x: f64, y: f64, width: f64, height: f64) -> Self {
        Self { x, y, width, height }
    }

    pub(super) fn right(&self) -> f64 {
        self.x + self.width
    }

    pub(super) fn bottom(&self) -> f64 {
        self.y + self.height
    }
}

/// A colour by its meaning. Series are told apart by those who see no red or no green too (after Okabe and Ito).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ink {
    /// What is read first.
    Text,
    /// What is read second: axes and their numbers.
    Muted,
    /// What is hardly seen: the lines of a grid.
    Grid,
    /// The paper.
    Paper,
    /// The n-th series.
    Series(usize),
    /// What is right.
    Right,
    /// What is wrong.
    Wrong,
}

/// How many different series there are; one more is drawn like the first.
pub(super) const SERIES: usize = 7;

impl Ink {
    /// The colour on white paper.
    pub(super) fn on_white(self) -> [u8; 3] {
        const SERIES_ON_WHITE: [[u8; 3]; SERIES] = [
            [0x00, 0x72, 0xb2],
            [0xd5, 0x5e, 0x00],
            [0x00, 0x8f, 0x68],
            [0xb8, 0x54, 0x8c],
            [0x3d, 0x9a, 0xcf],
            [0xb8, 0x7d, 0x00],
            [0x5f, 0x5f, 0x5f],
        ];
        match self {
            Self::Text => [0x1c, 0x22, 0x2b],
            Self::Muted => [0x5b, 0x66, 0x73],
            Self::Grid => [0xe3, 0xe7, 0xec],
            Self::Paper => [0xff; 3],
            Self::Series(n) => SERIES_ON_WHITE[n % SERIES],
            Self::Right => SERIES_ON_WHITE[0],
            Self::Wrong => SERIES_ON_WHITE[1],
        }
    }

    /// The name of its variable in the page's style sheet, whose light values are [`on_white`](Self::on_white)'s.
    pub(super) fn variable(self) -> &'static str {
        const VARIABLES: [&str; SERIES] = ["--s0", "--s1", "--s2", "--s3", "--s4", "--s5", "--s6"];
        match self {
            Self::Text => "--text",
            Self::Muted => "--muted",
            Self::Grid => "--grid",
            Self::Paper => "--paper",
            Self::Series(n) => VARIABLES[n % SERIES],
            Self::Right => "--s0",
            Self::Wrong => "--s1",
        }
    }
}

/// How a line is drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Stroke {
    pub(super) ink: Ink,
    pub(super) width: f64,
    pub(super) opacity: f64,
    pub(super) dashed: bool,
}

impl Stroke {
    pub(super) fn new(ink: Ink, width: f64) -> Self {
        Self {
            ink,
            width,
            opacity: 1.0,
            dashed: false,
        }
    }

    pub(super) fn dashed(self) -> Self {
        Self { dashed: true, ..self }
    }

    pub(super) fn faint(self, opacity: f64) -> Self {
        Self { opacity, ..self }
    }
}

/// Where a text stands by its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// How a text is written; its place is on its baseline's middle height.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct TextStyle {
    pub(super) ink: Ink,
    pub(super) anchor: Anchor,
    pub(super) bold: bool,
    pub(super) small: bool,
    pub(super) turned: bool,
}

/// The height of letters of a text's usual size, and of a small one's.
pub(super) const FONT_SIZE: f64 = 12.0;
/// The height of letters of a small text.
pub(super) const SMALL_FONT_SIZE: f64 = 10.0;
/// The width that is kept for a letter of the usual size.
pub(super) const LETTER: f64 = 7.0;

impl TextStyle {
    pub(super) fn new(ink: Ink, anchor: Anchor) -> Self {
        Self {
            ink,
            anchor,
            bold: false,
            small: false,
            turned: false,
        }
    }

    pub(super) fn bold(self) -> Self {
        Self { bold: true, ..self }
    }

    pub(super) fn small(self) -> Self {
        Self { small: true, ..self }
    }

    pub(super) fn turned(self) -> Self {
        Self { turned: true, ..self }
    }
}

/// A text cut to at most `letters`, with `mark` at its end where something is missing.
pub(super) fn cut(text: &str, letters: usize, mark: &str) -> String {
    if text.chars().count() <= letters {
        return text.to_owned();
    }
    let kept = letters.saturating_sub(mark.chars().count());
    text.chars().take(kept).chain(mark.chars().take(letters)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_and_short_ones_are_not() {
        assert_eq!(cut("automobile", 10, "…"), "automobile");
        assert_eq!(cut("automobile", 5, "…"), "auto…");
        assert_eq!(cut("automobile", 5, ".."), "aut..");
        assert_eq!(cut("automobile", 1, ".."), ".");
        assert_eq!(cut("élan", 4, "…"), "élan");
    }
}
