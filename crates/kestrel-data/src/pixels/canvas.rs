//! `Canvas`: what a transform that moves whole rows and columns needs of an image, so that it is written once for pixels that
//! are here and for pixels that are on a device.

use super::Image;
use super::axes::Axes;
use super::padding::Padding;
use crate::error::Result;

/// An image to be mirrored, padded and cropped.
pub(crate) trait Canvas {
    /// Height and width in pixels, as seen.
    fn size(&self) -> (usize, usize);

    /// Mirrors the image left to right.
    fn hflip(&mut self);

    /// Adds pixels on each side.
    fn pad(&mut self, padding: Padding) -> Result<()>;

    /// Keeps the `height` x `width` pixels whose upper left corner is at (`top`, `left`).
    ///
    /// # Errors
    /// [`Error::CropTooLarge`](crate::Error::CropTooLarge) if they are not all within the image.
    fn crop(&mut self, top: usize, left: usize, height: usize, width: usize) -> Result<()>;
}

impl Canvas for Image<'_> {
    fn size(&self) -> (usize, usize) {
        (self.height(), self.width())
    }

    fn hflip(&mut self) {
        Image::hflip(self);
    }

    fn pad(&mut self, padding: Padding) -> Result<()> {
        self.pad_by(padding)
    }

    fn crop(&mut self, top: usize, left: usize, height: usize, width: usize) -> Result<()> {
        Image::crop(self, top, left, height, width)
    }
}

impl Canvas for Axes {
    fn size(&self) -> (usize, usize) {
        Axes::size(self)
    }

    fn hflip(&mut self) {
        Axes::hflip(self);
    }

    fn pad(&mut self, padding: Padding) -> Result<()> {
        self.pad_by(padding)
    }

    fn crop(&mut self, top: usize, left: usize, height: usize, width: usize) -> Result<()> {
        Axes::crop(self, top, left, height, width)
    }
}
