//! Resampling of pixels with antialiasing, in Pillow's order: columns first, then rows, each rounded to 8 bits.

use std::cell::RefCell;

use fast_image_resize::images::{Image as Target, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};

use super::InterpolationMode;
use crate::error::{Error, Result};
use crate::pixels::{CHANNELS, Image};

thread_local! {
    static RESIZER: RefCell<Resizer> = RefCell::new(Resizer::new());
}

/// Makes the image `height` x `width` pixels large.
///
/// # Errors
/// [`Error::Resize`] if the image or the new size has no pixels.
pub(super) fn resize(image: &mut Image<'_>, height: usize, width: usize, mode: InterpolationMode) -> Result<()> {
    let (from_height, from_width) = (image.height(), image.width());
    if (height, width) == (from_height, from_width) {
        return Ok(());
    }
    let refused = |reason: String| Error::Resize {
        from: (from_height, from_width),
        to: (height, width),
        reason,
    };
    if from_height * from_width == 0 || height * width == 0 {
        return Err(refused("there are no pixels".to_owned()));
    }
    let filter = match mode {
        InterpolationMode::Bilinear => FilterType::Bilinear,
        InterpolationMode::Bicubic => FilterType::CatmullRom,
    };
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(filter));
    let pixels = RESIZER.with_borrow_mut(|resizer| {
        let mut step = |pixels: &[u8], from: (usize, usize), to: (usize, usize)| -> Result<Vec<u8>> {
            let source = ImageRef::new(from.1 as u32, from.0 as u32, pixels, PixelType::U8x3);
            let source = source.map_err(|e| refused(e.to_string()))?;
            let out = vec![0; to.0 * to.1 * CHANNELS];
            let out = Target::from_vec_u8(to.1 as u32, to.0 as u32, out, PixelType::U8x3);
            let mut out = out.map_err(|e| refused(e.to_string()))?;
            resizer
                .resize(&source, &mut out, &options)
                .map_err(|e| refused(e.to_string()))?;
            Ok(out.into_vec())
        };
        // The library would do the rows first.
        let source = image.pixels();
        if width == from_width {
            return step(&source, (from_height, width), (height, width));
        }
        let columns = step(&source, (from_height, from_width), (from_height, width))?;
        if height == from_height {
            return Ok(columns);
        }
        step(&columns, (from_height, width), (height, width))
    })?;
    image.replace(pixels, height, width)
}
