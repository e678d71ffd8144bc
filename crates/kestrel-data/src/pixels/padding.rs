//! Padding: rows and columns that are added around an image.

use serde::{Deserialize, Serialize};

use super::{CHANNELS, Image};
use crate::error::Result;

/// What the pixels of a padding are: torchvision's `padding_mode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PaddingMode {
    /// One colour.
    #[default]
    Constant,
    /// The pixel at the edge, again and again.
    Edge,
    /// The image mirrored at its outermost pixels, which are not repeated.
    Reflect,
    /// The image mirrored at its edge, so that the outermost pixels come twice.
    Symmetric,
}

/// As many pixels on each of the four sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Padding {
    pub(crate) size: usize,
    pub(crate) mode: PaddingMode,
    /// The colour of [`PaddingMode::Constant`].
    pub(crate) fill: [u8; CHANNELS],
}

impl Padding {
    /// Which of `size` pixels stands at `position` of the padded line; none for the colour.
    pub(super) fn source(&self, position: usize, size: usize) -> Option<usize> {
        let last = size.checked_sub(1)? as isize;
        let at = position as isize - self.size as isize;
        if (0..=last).contains(&at) {
            return Some(at as usize);
        }
        match self.mode {
            PaddingMode::Constant => None,
            PaddingMode::Edge => Some(at.clamp(0, last) as usize),
            // There and back again, without and with the outermost pixel twice.
            PaddingMode::Reflect if last == 0 => Some(0),
            PaddingMode::Reflect => {
                let at = at.rem_euclid(2 * last);
                Some(at.min(2 * last - at) as usize)
            }
            PaddingMode::Symmetric => {
                let at = at.rem_euclid(2 * last + 2);
                Some(at.min(2 * last + 1 - at) as usize)
            }
        }
    }
}

impl Image<'_> {
    /// Adds pixels on each side.
    pub(super) fn pad_by(&mut self, padding: Padding) -> Result<()> {
        let black = padding.mode == PaddingMode::Constant && padding.fill == [0; CHANNELS];
        if padding.size == 0 || black {
            // Black padding is no pixels at all until the batch is written.
            self.pad(padding.size);
            return Ok(());
        }
        let (height, width) = (self.height(), self.width());
        let (padded_height, padded_width) = (height + 2 * padding.size, width + 2 * padding.size);
        let columns: Vec<Option<usize>> = (0..padded_width).map(|x| padding.source(x, width)).collect();
        let mut out = padding.fill.repeat(padded_height * padded_width);
        {
            let pixels = self.pixels();
            let (pixels, _) = pixels.as_chunks::<CHANNELS>();
            let (out, _) = out.as_chunks_mut::<CHANNELS>();
            for (y, row) in out.chunks_exact_mut(padded_width.max(1)).enumerate() {
                let Some(y) = padding.source(y, height) else { continue };
                for (pixel, x) in row.iter_mut().zip(&columns) {
                    if let Some(x) = x {
                        *pixel = pixels[y * width + x];
                    }
                }
            }
        }
        self.replace(out, padded_height, padded_width)
    }
}
