//! An image as it passes through the transforms: 8-bit RGB pixels seen through a window.
//!
//! Flips, crops and padding only move the window over the source's pixels, which may be borrowed from the data set. A last
//! pass, [`crate::transforms::Compose`]'s, reads the pixels through the window once. A transform that changes pixels asks
//! for [`Image::pixels_mut`], which copies the window's contents first.
//!
//! Shapes: `H, W` are the window's height and width; pixels are `[H, W, 3]`, row by row, red, green, blue.

mod axes;
mod canvas;
mod padding;

use std::borrow::Cow;
use std::path::Path;

use kestrel_kernels::pixels::Window;

use crate::error::{Error, Result};

pub use axes::Axes;
pub(crate) use canvas::Canvas;
pub(crate) use padding::Padding;
pub use padding::PaddingMode;

/// Channels of every image: red, green, blue.
pub const CHANNELS: usize = 3;

/// A rectangle of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// First row.
    pub top: usize,
    /// First column.
    pub left: usize,
    /// Number of rows.
    pub height: usize,
    /// Number of columns.
    pub width: usize,
}

impl Region {
    /// All of an image of this size.
    pub fn all(height: usize, width: usize) -> Self {
        Self {
            top: 0,
            left: 0,
            height,
            width,
        }
    }

    /// The part that lies in an image of this size; all of the image if none does.
    pub fn within(self, height: usize, width: usize) -> Self {
        let clip = |start: usize, count: usize, size: usize| count.min(size.saturating_sub(start));
        let rows = clip(self.top, self.height, height);
        let columns = clip(self.left, self.width, width);
        if rows == 0 || columns == 0 {
            return Self::all(height, width);
        }
        Self {
            height: rows,
            width: columns,
            ..self
        }
    }
}

/// A rectangle of the source; may reach outside of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rect {
    pub(crate) top: isize,
    pub(crate) left: isize,
    pub(crate) height: usize,
    pub(crate) width: usize,
}

impl Rect {
    fn bottom(&self) -> isize {
        self.top + self.height as isize
    }

    fn right(&self) -> isize {
        self.left + self.width as isize
    }

    /// The common part; empty rectangles have a height or a width of 0.
    fn intersect(&self, other: &Self) -> Self {
        let (top, left) = (self.top.max(other.top), self.left.max(other.left));
        let height = (self.bottom().min(other.bottom()) - top).max(0) as usize;
        let width = (self.right().min(other.right()) - left).max(0) as usize;
        Self {
            top,
            left,
            height,
            width,
        }
    }
}

/// 8-bit RGB pixels seen through a window.
#[derive(Clone, Debug)]
pub struct Image<'a> {
    /// `[source height, source width, 3]`.
    source: Cow<'a, [u8]>,
    source_height: usize,
    source_width: usize,
    /// What of the source the image shows; outside of `visible` it shows black.
    window: Rect,
    /// The part of the source that is still in the image.
    visible: Rect,
    /// Whether the window is read from right to left.
    flipped: bool,
}

impl<'a> Image<'a> {
    /// An image over `pixels`, `[height, width, 3]`.
    ///
    /// # Errors
    /// [`Error::PixelCount`] if `pixels.len() != height * width * 3`.
    pub fn new(pixels: impl Into<Cow<'a, [u8]>>, height: usize, width: usize) -> Result<Self> {
        let source = pixels.into();
        let expected = height.saturating_mul(width).saturating_mul(CHANNELS);
        if source.len() != expected {
            return Err(Error::PixelCount {
                path: Path::new("image").into(),
                expected,
                got: source.len(),
            });
        }
        let window = Rect {
            top: 0,
            left: 0,
            height,
            width,
        };
        Ok(Self {
            source,
            source_height: height,
            source_width: width,
            window,
            visible: window,
            flipped: false,
        })
    }

    /// An image of `height` x `width` pixels of which only the `region` is there: `pixels`, `[region.height, region.width, 3]`.
    /// The rest is black.
    ///
    /// # Errors
    /// [`Error::PixelCount`] if the pixels are not as many as the region asks for, [`Error::CropTooLarge`] if the region is not
    /// within the image.
    pub fn of_part(pixels: impl Into<Cow<'a, [u8]>>, region: Region, height: usize, width: usize) -> Result<Self> {
        if region.within(height, width) != region {
            let crop = (
                region.top.saturating_add(region.height),
                region.left.saturating_add(region.width),
            );
            return Err(Error::CropTooLarge {
                crop,
                image: (height, width),
            });
        }
        let mut this = Self::new(pixels, region.height, region.width)?;
        this.window = Rect {
            top: -(region.top as isize),
            left: -(region.left as isize),
            height,
            width,
        };
        Ok(this)
    }

    /// Height in pixels, as seen.
    pub fn height(&self) -> usize {
        self.window.height
    }

    /// Width in pixels, as seen.
    pub fn width(&self) -> usize {
        self.window.width
    }

    /// Mirrors the image left to right.
    ///
    /// # Source
    /// `torchvision.transforms.functional.hflip`, proved by `tests/golden/geometry.safetensors`.
    pub fn hflip(&mut self) {
        self.flipped = !self.flipped;
    }

    /// Adds `padding` black pixels on each side.
    ///
    /// # Source
    /// `torchvision.transforms.functional.pad` with fill 0, proved by `tests/golden/geometry.safetensors`.
    pub fn pad(&mut self, padding: usize) {
        self.pad_sides(padding, padding, padding, padding);
    }

    /// Adds black pixels above, below, left and right.
    pub fn pad_sides(&mut self, above: usize, below: usize, left: usize, right: usize) {
        // What an earlier crop cut away must not come back.
        self.visible = self.visible.intersect(&self.window);
        let left_of_source = if self.flipped { right } else { left };
        self.window.top -= above as isize;
        self.window.left -= left_of_source as isize;
        self.window.height += above + below;
        self.window.width += left + right;
    }

    /// Takes other pixels, `[height, width, 3]`, in place of all those there are.
    ///
    /// # Errors
    /// [`Error::PixelCount`] if they are not `height * width * 3`.
    pub fn replace(&mut self, pixels: Vec<u8>, height: usize, width: usize) -> Result<()> {
        *self = Self::new(pixels, height, width)?;
        Ok(())
    }

    /// Keeps the `height` x `width` pixels whose upper left corner is at (`top`, `left`).
    ///
    /// # Errors
    /// [`Error::CropTooLarge`] if they are not all within the image.
    ///
    /// # Source
    /// `torchvision.transforms.functional.crop`, proved by `tests/golden/geometry.safetensors`.
    pub fn crop(&mut self, top: usize, left: usize, height: usize, width: usize) -> Result<()> {
        let fits = |start: usize, size: usize, whole: usize| start.checked_add(size).is_some_and(|end| end <= whole);
        if !fits(top, height, self.height()) || !fits(left, width, self.width()) {
            let crop = (top.saturating_add(height), left.saturating_add(width));
            return Err(Error::CropTooLarge {
                crop,
                image: (self.height(), self.width()),
            });
        }
        self.window.top += top as isize;
        self.window.left += if self.flipped {
            self.window.width - left - width
        } else {
            left
        } as isize;
        self.window.height = height;
        self.window.width = width;
        Ok(())
    }

    /// The pixels as seen, `[H, W, 3]`: borrowed where the window shows the whole source as it is, else copied.
    pub fn pixels(&self) -> Cow<'_, [u8]> {
        if self.shows_all() {
            return Cow::Borrowed(&self.source);
        }
        let mut out = vec![0; self.height() * self.width() * CHANNELS];
        let view = self.view();
        let ((first_row, first_column), (rows, columns)) = (view.start, view.visible);
        for y in 0..rows {
            let source = &view.pixels[y * view.stride..][..columns * CHANNELS];
            let at = ((first_row + y) * view.size.1 + first_column) * CHANNELS;
            let target = &mut out[at..at + source.len()];
            if view.flipped {
                for (to, from) in target.chunks_exact_mut(CHANNELS).zip(source.rchunks_exact(CHANNELS)) {
                    to.copy_from_slice(from);
                }
            } else {
                target.copy_from_slice(source);
            }
        }
        Cow::Owned(out)
    }

    /// The pixels as seen, `[H, W, 3]`, to be changed; copies them unless the image owns exactly these.
    pub fn pixels_mut(&mut self) -> &mut [u8] {
        if !self.shows_all() {
            let (height, width) = (self.height(), self.width());
            self.source = Cow::Owned(self.pixels().into_owned());
            (self.source_height, self.source_width) = (height, width);
            self.window = Rect {
                top: 0,
                left: 0,
                height,
                width,
            };
            self.visible = self.window;
            self.flipped = false;
        }
        self.source.to_mut()
    }

    /// The image as the kernel that writes it into a batch sees it.
    pub(crate) fn view(&self) -> Window<'_> {
        let part = self.visible.intersect(&self.window);
        let start_column = if self.flipped {
            self.window.right() - part.right()
        } else {
            part.left - self.window.left
        };
        let empty = part.height == 0 || part.width == 0;
        let offset = (part.top as usize * self.source_width + part.left as usize) * CHANNELS;
        Window {
            pixels: if empty {
                &[]
            } else {
                self.source.get(offset..).unwrap_or_default()
            },
            stride: self.source_width * CHANNELS,
            size: (self.window.height, self.window.width),
            start: if empty {
                (0, 0)
            } else {
                ((part.top - self.window.top) as usize, start_column as usize)
            },
            visible: if empty { (0, 0) } else { (part.height, part.width) },
            flipped: self.flipped,
        }
    }

    /// The same image with its own pixels.
    pub fn into_owned(self) -> Image<'static> {
        Image {
            source: Cow::Owned(self.source.into_owned()),
            source_height: self.source_height,
            source_width: self.source_width,
            window: self.window,
            visible: self.visible,
            flipped: self.flipped,
        }
    }

    fn shows_all(&self) -> bool {
        let all = Rect {
            top: 0,
            left: 0,
            height: self.source_height,
            width: self.source_width,
        };
        !self.flipped && self.window == all && self.visible == all
    }
}

#[cfg(test)]
mod tests;
