//! A small picture that a page can hold: a PNG as text.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use image::RgbImage;
use image::imageops::{FilterType, resize};
use serde::{Deserialize, Serialize};

use super::canvas::Canvas;
use crate::{Error, Result};

/// The longest side in pixels; a larger picture is made smaller.
const MAX_SIDE: u32 = 128;

/// A picture of at most 128 pixels a side.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Thumbnail {
    /// The PNG file in base64.
    png: String,
    /// Width in pixels.
    width: u32,
    /// Height in pixels.
    height: u32,
}

impl Thumbnail {
    /// Of RGB bytes, row by row.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] where there are not `width * height * 3` bytes, [`Error::Picture`] where they cannot be encoded.
    pub fn new(pixels: Vec<u8>, width: usize, height: usize) -> Result<Self> {
        let got = pixels.len();
        let size = |side: usize| u32::try_from(side).unwrap_or(u32::MAX);
        let picture = RgbImage::from_raw(size(width), size(height), pixels)
            .filter(|_| width * height * 3 == got)
            .ok_or_else(|| Error::InvalidConfig {
                field: "pixels",
                expected: "width * height * 3 bytes",
                got: format!("{got} bytes of {width}x{height} pixels"),
            })?;
        let longest = picture.width().max(picture.height());
        let picture = if longest > MAX_SIDE {
            let small = |side: u32| (side * MAX_SIDE / longest).max(1);
            let (width, height) = (small(picture.width()), small(picture.height()));
            resize(&picture, width, height, FilterType::Triangle)
        } else {
            picture
        };
        let (width, height) = picture.dimensions();
        let png = Canvas(picture).png().map_err(|source| Error::Picture {
            path: "a thumbnail".into(),
            source,
        })?;
        Ok(Self {
            png: STANDARD.encode(png),
            width,
            height,
        })
    }

    /// An `<img>` element, `side` wide on the page; small pictures keep their pixels.
    pub(super) fn img(&self, alt: &str, side: u32) -> String {
        let class = if self.width < side { " class=\"pixels\"" } else { "" };
        format!(
            "<img src=\"data:image/png;base64,{}\" width=\"{side}\" height=\"{side}\" alt=\"{}\"{class}>",
            // A file may have been tampered with; no letter of base64 ends an attribute.
            self.png.chars().filter(|c| is_base64(*c)).collect::<String>(),
            super::escape::escape(alt)
        )
    }

    /// RGB bytes, row by row, with width and height.
    ///
    /// # Errors
    /// [`Error::Picture`] where they cannot be decoded.
    pub(super) fn pixels(&self) -> Result<RgbImage> {
        let unreadable = |source| Error::Picture {
            path: "a thumbnail".into(),
            source,
        };
        let bytes = STANDARD
            .decode(&self.png)
            .map_err(|e| unreadable(image::ImageError::IoError(std::io::Error::other(e))))?;
        let mut reader = image::ImageReader::with_format(std::io::Cursor::new(bytes), image::ImageFormat::Png);
        let mut limits = image::Limits::default();
        limits.max_image_width = Some(MAX_SIDE);
        limits.max_image_height = Some(MAX_SIDE);
        reader.limits(limits);
        Ok(reader.decode().map_err(unreadable)?.to_rgb8())
    }
}

fn is_base64(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || matches!(letter, '+' | '/' | '=')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_pictures_keep_their_pixels_and_large_ones_their_shape() {
        let pixels: Vec<u8> = (0..2 * 3 * 3).collect();
        let small = Thumbnail::new(pixels.clone(), 3, 2).unwrap();
        assert_eq!(small.pixels().unwrap().into_raw(), pixels);
        let large = Thumbnail::new(vec![9; 300 * 150 * 3], 300, 150).unwrap();
        assert_eq!((large.width, large.height), (128, 64));
        assert_eq!(large.pixels().unwrap().get_pixel(0, 0).0, [9; 3]);
        assert!(Thumbnail::new(vec![0; 5], 1, 1).is_err());
    }

    #[test]
    fn what_is_no_base64_never_reaches_the_page() {
        let bad = Thumbnail {
            png: "ab\"><script>".into(),
            width: 1,
            height: 1,
        };
        assert!(!bad.img("", 8).contains("script>"));
        assert!(bad.pixels().is_err());
    }
}
