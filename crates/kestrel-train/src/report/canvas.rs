//! An RGB picture that text can be drawn on.

use std::convert::Infallible;
use std::io::Cursor;
use std::path::Path;

use embedded_graphics::draw_target::DrawTarget;
use embedded_graphics::geometry::{OriginDimensions, Point, Size};
use embedded_graphics::mono_font::MonoTextStyle;
use embedded_graphics::mono_font::iso_8859_1::FONT_9X18_BOLD;
use embedded_graphics::pixelcolor::{Rgb888, RgbColor};
use embedded_graphics::text::{Baseline, Text};
use embedded_graphics::{Drawable, Pixel};
use image::{ImageFormat, Rgb, RgbImage};

use crate::checkpoint::write_atomic;
use crate::{Error, Result};

/// Width of a character in pixels.
pub(super) const CHAR_WIDTH: u32 = 9;
/// Height of a line in pixels.
pub(super) const LINE_HEIGHT: u32 = 20;

/// A picture under construction.
pub(super) struct Canvas(pub(super) RgbImage);

impl Canvas {
    /// A white canvas.
    pub(super) fn new(width: u32, height: u32) -> Self {
        Self(RgbImage::from_pixel(width, height, Rgb([255; 3])))
    }

    /// Writes the picture as a PNG, whole or not at all.
    pub(super) fn save(&self, path: &Path) -> Result<()> {
        let mut bytes = Cursor::new(Vec::new());
        self.0
            .write_to(&mut bytes, ImageFormat::Png)
            .map_err(|source| Error::Picture {
                path: path.to_owned(),
                source,
            })?;
        write_atomic(path, &bytes.into_inner())
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
    pub(super) fn text(&mut self, x: u32, y: u32, width: u32, text: &str, colour: [u8; 3]) {
        let fitting = (width / CHAR_WIDTH) as usize;
        let cut: String = if text.chars().count() > fitting {
            text.chars().take(fitting.saturating_sub(1)).chain(['.']).collect()
        } else {
            text.to_owned()
        };
        let style = MonoTextStyle::new(&FONT_9X18_BOLD, Rgb888::new(colour[0], colour[1], colour[2]));
        let at = Point::new(x as i32, y as i32);
        let Ok(_) = Text::with_baseline(&cut, at, style, Baseline::Top).draw(self);
    }
}

impl OriginDimensions for Canvas {
    fn size(&self) -> Size {
        Size::new(self.0.width(), self.0.height())
    }
}

impl DrawTarget for Canvas {
    type Color = Rgb888;
    type Error = Infallible;

    fn draw_iter<I: IntoIterator<Item = Pixel<Rgb888>>>(&mut self, pixels: I) -> std::result::Result<(), Infallible> {
        for Pixel(point, colour) in pixels {
            if let (Ok(x), Ok(y)) = (u32::try_from(point.x), u32::try_from(point.y))
                && x < self.0.width()
                && y < self.0.height()
            {
                self.0.put_pixel(x, y, Rgb([colour.r(), colour.g(), colour.b()]));
            }
        }
        Ok(())
    }
}
