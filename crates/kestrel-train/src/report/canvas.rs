//! An RGB picture that figures and text can be drawn on.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::Path;

use image::{ImageFormat, Rgb, RgbImage};
use noto_sans_mono_bitmap::{FontWeight, RasterHeight, get_raster, get_raster_width};

use super::surface::{Anchor, Area, Figure, Ink, Point, Stroke, Surface, TextStyle, cut};
use crate::checkpoint::write_atomic;
use crate::{Error, Result};

/// Width of a character of [`Canvas::text`] in pixels.
pub(super) const CHAR_WIDTH: u32 = get_raster_width(FontWeight::Bold, RasterHeight::Size16) as u32;
/// Height of a line of [`Canvas::text`] in pixels.
pub(super) const LINE_HEIGHT: u32 = 20;

/// Pixels of a figure's point: so many that a picture is sharp in a paper.
const SCALE: f64 = 2.0;

/// A class's name as letters of the canvas can write it: where the font lacks some of them, and `?` stands in their place, its
/// number comes first.
pub(super) fn written(number: usize, name: &str) -> String {
    let has = |letter| get_raster(letter, FontWeight::Bold, RasterHeight::Size16).is_some();
    if name.chars().all(has) {
        name.to_owned()
    } else {
        format!("#{number} {name}")
    }
}

/// A picture under construction.
pub(super) struct Canvas(pub(super) RgbImage);

impl Canvas {
    /// A white canvas.
    pub(super) fn new(width: u32, height: u32) -> Self {
        Self(RgbImage::from_pixel(width, height, Rgb([255; 3])))
    }

    /// A figure on white.
    pub(super) fn of(figure: &dyn Figure) -> Self {
        let (width, height) = figure.size();
        let pixels = |points: f64| (SCALE * points).ceil() as u32;
        let mut canvas = Self::new(pixels(width), pixels(height));
        figure.draw(&mut canvas);
        canvas
    }

    /// The picture as a PNG file's bytes.
    pub(super) fn png(&self) -> image::ImageResult<Vec<u8>> {
        let mut bytes = Cursor::new(Vec::new());
        self.0.write_to(&mut bytes, ImageFormat::Png)?;
        Ok(bytes.into_inner())
    }

    /// Writes the picture as a PNG, whole or not at all.
    pub(super) fn save(&self, path: &Path) -> Result<()> {
        let bytes = self.png().map_err(|source| Error::Picture {
            path: path.to_owned(),
            source,
        })?;
        write_atomic(path, &bytes)
    }

    /// Fills a rectangle, as far as it lies on the canvas.
    pub(super) fn fill(&mut self, x: u32, y: u32, width: u32, height: u32, colour: [u8; 3]) {
        for y in y..(y + height).min(self.0.height()) {
            for x in x..(x + width).min(self.0.width()) {
                self.0.put_pixel(x, y, Rgb(colour));
            }
        }
    }

    /// Writes a line whose top left corner is at `(x, y)`, cut to `width` pixels.
    pub(super) fn line_of_text(&mut self, x: u32, y: u32, width: u32, text: &str, colour: [u8; 3]) {
        let cut = self.cut(text, (width / CHAR_WIDTH) as usize);
        let top = f64::from(y + (LINE_HEIGHT - 16) / 2);
        self.letters(
            (f64::from(x), top),
            &cut,
            FontWeight::Bold,
            RasterHeight::Size16,
            colour,
            false,
        );
    }

    /// Writes letters to the right from the top left corner `at`, or upwards from the bottom left one.
    fn letters(
        &mut self,
        at: Point,
        text: &str,
        weight: FontWeight,
        height: RasterHeight,
        colour: [u8; 3],
        turned: bool,
    ) {
        let width = get_raster_width(weight, height);
        for (i, letter) in text.chars().enumerate() {
            let Some(raster) = get_raster(letter, weight, height).or_else(|| get_raster('?', weight, height)) else {
                continue;
            };
            for (row, values) in raster.rows().enumerate() {
                for (column, value) in values.iter().enumerate() {
                    let along = (i * width + column) as f64;
                    let (x, y) = if turned {
                        (at.0 + row as f64, at.1 - along)
                    } else {
                        (at.0 + along, at.1 + row as f64)
                    };
                    self.blend(x.round() as i64, y.round() as i64, colour, f64::from(*value) / 255.0);
                }
            }
        }
    }

    /// Lays a colour over a pixel, if it is on the canvas.
    fn blend(&mut self, x: i64, y: i64, colour: [u8; 3], opacity: f64) {
        let (Ok(x), Ok(y)) = (u32::try_from(x), u32::try_from(y)) else {
            return;
        };
        if opacity <= 0.0 || x >= self.0.width() || y >= self.0.height() {
            return;
        }
        let Rgb(below) = *self.0.get_pixel(x, y);
        let mix = |c: usize| {
            let (from, to) = (f64::from(below[c]), f64::from(colour[c]));
            (from + opacity.min(1.0) * (to - from)).round() as u8
        };
        self.0.put_pixel(x, y, Rgb([mix(0), mix(1), mix(2)]));
    }

    /// Lays a colour over pixels of `area`, as far as each is covered.
    fn cover(&mut self, area: Area, colour: [u8; 3], opacity: f64, covered: impl Fn(f64, f64) -> f64) {
        for (x, y) in self.pixels_of(area) {
            let share = covered(x as f64 + 0.5, y as f64 + 0.5).clamp(0.0, 1.0);
            self.blend(x, y, colour, opacity * share);
        }
    }

    /// The pixels of the canvas that `area` touches.
    fn pixels_of(&self, area: Area) -> impl Iterator<Item = (i64, i64)> + use<> {
        let within = |from: f64, to: f64, size: u32| {
            let last = i64::from(size);
            (from.floor() as i64).clamp(0, last)..(to.ceil() as i64).clamp(0, last)
        };
        let columns = within(area.x, area.right(), self.0.width());
        let rows = within(area.y, area.bottom(), self.0.height());
        rows.flat_map(move |y| columns.clone().map(move |x| (x, y)))
    }
}

impl Surface for Canvas {
    fn rect(&mut self, area: Area, fill: Ink, opacity: f64) {
        let area = Area::new(SCALE * area.x, SCALE * area.y, SCALE * area.width, SCALE * area.height);
        let overlap = |from: f64, to: f64, at: f64| (to.min(at + 0.5) - from.max(at - 0.5)).max(0.0);
        self.cover(area, fill.on_white(), opacity, |x, y| {
            overlap(area.x, area.right(), x) * overlap(area.y, area.bottom(), y)
        });
    }

    fn circle(&mut self, (x, y): Point, radius: f64, fill: Ink) {
        let (cx, cy, radius) = (SCALE * x, SCALE * y, SCALE * radius);
        let side = 2.0 * radius + 2.0;
        let area = Area::new(cx - side / 2.0, cy - side / 2.0, side, side);
        self.cover(area, fill.on_white(), 1.0, |x, y| radius + 0.5 - (x - cx).hypot(y - cy));
    }

    fn polyline(&mut self, points: &[Point], stroke: Stroke) {
        let scaled = |&(x, y): &Point| (SCALE * x, SCALE * y);
        let points: Vec<Point> = points.iter().map(scaled).collect();
        let half = (SCALE * stroke.width / 2.0).max(0.5);
        let colour = stroke.ink.on_white();
        // A line that is seen through is no darker where its parts meet.
        let mut covered = BTreeMap::new();
        let mut gone = 0.0;
        for pair in points.windows(2) {
            let [from, to] = [pair[0], pair[1]];
            let length = (to.0 - from.0).hypot(to.1 - from.1);
            let dashes = if stroke.dashed {
                dashes(gone, length)
            } else {
                vec![(0.0, length)]
            };
            gone += length;
            for (start, end) in dashes {
                let on = |at: f64| {
                    let share = if length > 0.0 { at / length } else { 0.0 };
                    (from.0 + share * (to.0 - from.0), from.1 + share * (to.1 - from.1))
                };
                let (a, b) = (on(start), on(end));
                let room = half + 1.0;
                let area = Area::new(
                    a.0.min(b.0) - room,
                    a.1.min(b.1) - room,
                    (a.0 - b.0).abs() + 2.0 * room,
                    (a.1 - b.1).abs() + 2.0 * room,
                );
                for (x, y) in self.pixels_of(area) {
                    let share = half + 0.5 - distance((x as f64 + 0.5, y as f64 + 0.5), a, b);
                    if share > 0.0 {
                        let most: &mut f64 = covered.entry((y, x)).or_default();
                        *most = most.max(share.min(1.0));
                    }
                }
            }
        }
        for ((y, x), share) in covered {
            self.blend(x, y, colour, stroke.opacity * share);
        }
    }

    fn text(&mut self, (x, y): Point, text: &str, style: TextStyle) {
        let height = if style.small {
            RasterHeight::Size24
        } else {
            RasterHeight::Size32
        };
        let weight = if style.bold {
            FontWeight::Bold
        } else {
            FontWeight::Regular
        };
        let length = (get_raster_width(weight, height) * text.chars().count()) as f64;
        let back = match style.anchor {
            Anchor::Start => 0.0,
            Anchor::Middle => length / 2.0,
            Anchor::End => length,
        };
        let across = height.val() as f64 / 2.0;
        let (x, y) = (SCALE * x, SCALE * y);
        let at = if style.turned {
            (x - across, y + back)
        } else {
            (x - back, y - across)
        };
        self.letters(at, text, weight, height, style.ink.on_white(), style.turned);
    }

    fn class_name(&self, number: usize, name: &str) -> String {
        written(number, name)
    }

    /// The font has no ellipsis, and `?` would stand in its place, which means a letter that the font lacks.
    fn cut(&self, text: &str, letters: usize) -> String {
        cut(text, letters, "..")
    }

    fn tip(&mut self, _: Area, _: &str) {}
}

/// The dashes of a part of a line, `length` long, that begins `gone` pixels from the line's start.
fn dashes(gone: f64, length: f64) -> Vec<(f64, f64)> {
    const DASH: f64 = 5.0 * SCALE;
    const GAP: f64 = 4.0 * SCALE;
    let mut at = -(gone % (DASH + GAP));
    let mut dashes = Vec::new();
    while at < length {
        let (start, end) = (at.max(0.0), (at + DASH).min(length));
        if end > start {
            dashes.push((start, end));
        }
        at += DASH + GAP;
    }
    dashes
}

/// How far a place is from the line between two.
fn distance(at: Point, a: Point, b: Point) -> f64 {
    let (dx, dy) = (b.0 - a.0, b.1 - a.1);
    let length = dx * dx + dy * dy;
    let share = if length > 0.0 {
        (((at.0 - a.0) * dx + (at.1 - a.1) * dy) / length).clamp(0.0, 1.0)
    } else {
        0.0
    };
    (at.0 - a.0 - share * dx).hypot(at.1 - a.1 - share * dy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::figures::class_bars::{ClassBars, Row};
    use crate::report::figures::confusion::Confusion;

    fn inked(canvas: &Canvas) -> usize {
        canvas.0.pixels().filter(|p| p.0 != [255; 3]).count()
    }

    #[test]
    fn shapes_cover_what_they_should() {
        let mut canvas = Canvas::new(100, 100);
        canvas.rect(Area::new(5.0, 5.0, 10.0, 20.0), Ink::Text, 1.0);
        assert_eq!(inked(&canvas), 20 * 40);
        assert_eq!(canvas.0.get_pixel(10, 10).0, Ink::Text.on_white());

        let mut canvas = Canvas::new(100, 100);
        canvas.circle((25.0, 25.0), 10.0, Ink::Right);
        let area = std::f64::consts::PI * 20.0 * 20.0;
        assert!((inked(&canvas) as f64 / area - 1.0).abs() < 0.15);

        let mut canvas = Canvas::new(100, 100);
        canvas.line((0.0, 25.0), (50.0, 25.0), Stroke::new(Ink::Text, 2.0));
        let whole = inked(&canvas);
        assert!(whole >= 400, "{whole}");
        let mut canvas = Canvas::new(100, 100);
        let corner = [(0.0, 25.0), (25.0, 25.0), (25.0, 0.0)];
        canvas.polyline(&corner, Stroke::new(Ink::Text, 4.0).faint(0.5));
        let darkest = canvas.0.pixels().map(|p| p.0[0]).min().unwrap();
        assert_eq!(darkest, canvas.0.get_pixel(20, 50).0[0], "the corner is no darker");

        let mut canvas = Canvas::new(100, 100);
        canvas.line((0.0, 25.0), (50.0, 25.0), Stroke::new(Ink::Text, 2.0).dashed());
        let dashes = inked(&canvas);
        assert!(dashes > whole / 2 && dashes < whole * 9 / 10, "{dashes} of {whole}");
    }

    #[test]
    fn classes_whose_letters_the_font_lacks_have_their_number() {
        for name in ["cat", "Äpfel-Baum", "žába"] {
            assert_eq!(written(3, name), name);
        }
        assert_eq!(written(3, "猫"), "#3 猫");
        // Two letters that are both drawn as `?`.
        let drawn = |number| {
            let mut canvas = Canvas::new(100, LINE_HEIGHT);
            canvas.line_of_text(0, 0, 100, &written(number, "猫"), [0; 3]);
            canvas.0
        };
        assert!(drawn(0) != drawn(1));
    }

    #[test]
    fn a_name_that_is_cut_ends_in_letters_that_the_font_has() {
        let line = |text: &str| {
            let mut canvas = Canvas::new(6 * CHAR_WIDTH, LINE_HEIGHT);
            canvas.line_of_text(0, 0, 6 * CHAR_WIDTH, text, [0; 3]);
            canvas.0
        };
        assert!(line("automobile") == line("auto.."));
        assert!(line("automobile") != line("autom?"));
        let bars = |class: &str| {
            let row = Row {
                class: class.to_owned(),
                bars: vec![0.5],
                marks: Vec::new(),
                value: String::new(),
                tip: String::new(),
            };
            let bars = ClassBars {
                name: "classes",
                title: "Classes".to_owned(),
                legend: vec!["F1".to_owned()],
                rows: vec![row],
            };
            Canvas::of(&bars).0
        };
        assert!(bars("a class whose name is long") == bars("a class whose na.."));
        let confusion = |class: &str| {
            let confusion = Confusion {
                classes: vec![class, "b"],
                counts: &[vec![1, 0], vec![0, 1]],
            };
            Canvas::of(&confusion).0
        };
        assert!(confusion("a class whose name is long") == confusion("a class whos.."));
    }

    #[test]
    fn what_is_half_off_the_canvas_is_cut() {
        let mut canvas = Canvas::new(10, 10);
        canvas.rect(Area::new(-5.0, -5.0, 100.0, 100.0), Ink::Wrong, 0.5);
        canvas.polyline(&[(-9.0, -9.0), (99.0, 99.0)], Stroke::new(Ink::Text, 1.0));
        canvas.text((0.0, 0.0), "off", TextStyle::new(Ink::Text, Anchor::End).turned());
        assert_eq!(inked(&canvas), 100);
    }

    #[test]
    fn texts_stand_where_their_anchor_says() {
        let columns = |anchor| {
            let mut canvas = Canvas::new(200, 40);
            canvas.text((50.0, 10.0), "HHH", TextStyle::new(Ink::Text, anchor));
            let dark = canvas.0.enumerate_pixels().filter(|(.., p)| p.0 != [255; 3]);
            let columns: Vec<u32> = dark.map(|(x, ..)| x).collect();
            (*columns.iter().min().unwrap(), *columns.iter().max().unwrap())
        };
        let (start, middle, end) = (columns(Anchor::Start), columns(Anchor::Middle), columns(Anchor::End));
        assert!(start.0 >= 100 && end.1 <= 100, "{start:?} {end:?}");
        assert!(middle.0 < 100 && middle.1 > 100, "{middle:?}");
    }
}
