//! The operations of `RandAugment` and `TrivialAugmentWide`, and their tables of magnitudes.

use serde::{Deserialize, Serialize};

use super::{affine, color};
use crate::error::Result;
use crate::pixels::{CHANNELS, Image};

/// An operation on an image, with torchvision's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AugmentOp {
    /// Leaves the image.
    Identity,
    /// Shears along x by the magnitude.
    ShearX,
    /// Shears along y by the magnitude.
    ShearY,
    /// Moves right by the magnitude's whole pixels.
    TranslateX,
    /// Moves down by the magnitude's whole pixels.
    TranslateY,
    /// Rotates counter-clockwise by the magnitude in degrees.
    Rotate,
    /// Brightness times 1 + magnitude.
    Brightness,
    /// Saturation times 1 + magnitude.
    Color,
    /// Contrast times 1 + magnitude.
    Contrast,
    /// Sharpness times 1 + magnitude.
    Sharpness,
    /// Keeps the magnitude's number of bits.
    Posterize,
    /// Inverts values from the magnitude on.
    Solarize,
    /// Stretches the values to the whole range.
    AutoContrast,
    /// Spreads the values evenly.
    Equalize,
}

/// Which table of magnitudes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AugmentSpace {
    /// `RandAugment`'s.
    Rand,
    /// `TrivialAugmentWide`'s.
    TrivialWide,
}

impl AugmentOp {
    /// All operations, in the order in which both transforms draw them.
    pub const ALL: [Self; 14] = [
        Self::Identity,
        Self::ShearX,
        Self::ShearY,
        Self::TranslateX,
        Self::TranslateY,
        Self::Rotate,
        Self::Brightness,
        Self::Color,
        Self::Contrast,
        Self::Sharpness,
        Self::Posterize,
        Self::Solarize,
        Self::AutoContrast,
        Self::Equalize,
    ];

    /// Whether the magnitude's sign is drawn too.
    pub fn is_signed(self) -> bool {
        !matches!(
            self,
            Self::Identity | Self::Posterize | Self::Solarize | Self::AutoContrast | Self::Equalize
        )
    }

    /// The magnitude in bin `bin` of `bins` for an image of this height and width; 0 where there is none.
    ///
    /// # Source
    /// `torchvision.transforms.{RandAugment, TrivialAugmentWide}._augmentation_space`, proved by
    /// `tests/golden/augment.safetensors`.
    pub fn magnitude(self, space: AugmentSpace, bin: usize, bins: usize, (height, width): (usize, usize)) -> f64 {
        let wide = space == AugmentSpace::TrivialWide;
        let up_to = |end: f32| f64::from(linspace(0.0, end, bin, bins));
        match self {
            Self::Identity | Self::AutoContrast | Self::Equalize => 0.0,
            Self::ShearX | Self::ShearY => up_to(if wide { 0.99 } else { 0.3 }),
            Self::TranslateX | Self::TranslateY if wide => up_to(32.0),
            Self::TranslateX => up_to((150.0 / 331.0 * width as f64) as f32),
            Self::TranslateY => up_to((150.0 / 331.0 * height as f64) as f32),
            Self::Rotate => up_to(if wide { 135.0 } else { 30.0 }),
            Self::Brightness | Self::Color | Self::Contrast | Self::Sharpness => up_to(if wide { 0.99 } else { 0.9 }),
            Self::Posterize => {
                let bits_lost = if wide { 6.0 } else { 4.0 };
                let a_bit = ((bins.max(2) - 1) as f64 / bits_lost) as f32;
                f64::from(8.0 - (bin as f32 / a_bit).round_ties_even())
            }
            Self::Solarize => f64::from(linspace(255.0, 0.0, bin, bins)),
        }
    }

    /// Applies the operation; pixels from outside of the image are `fill`.
    ///
    /// # Errors
    /// None in practice: the size stays.
    ///
    /// # Source
    /// `torchvision.transforms.autoaugment._apply_op` on a PIL image with nearest neighbours, bit for bit
    /// (`tests/golden/augment.safetensors`).
    pub fn apply(self, image: &mut Image<'_>, magnitude: f64, fill: [u8; CHANNELS]) -> Result<()> {
        match self {
            Self::Identity => {}
            Self::ShearX => affine::shear(image, [magnitude, 0.0], fill)?,
            Self::ShearY => affine::shear(image, [0.0, magnitude], fill)?,
            Self::TranslateX => affine::translate(image, [magnitude.trunc(), 0.0], fill)?,
            Self::TranslateY => affine::translate(image, [0.0, magnitude.trunc()], fill)?,
            Self::Rotate => affine::rotate(image, magnitude, fill)?,
            Self::Brightness => color::adjust_brightness(image, 1.0 + magnitude),
            Self::Color => color::adjust_saturation(image, 1.0 + magnitude),
            Self::Contrast => color::adjust_contrast(image, 1.0 + magnitude),
            Self::Sharpness => color::adjust_sharpness(image, 1.0 + magnitude),
            Self::Posterize => color::posterize(image, magnitude as u32),
            Self::Solarize => color::solarize(image, magnitude),
            Self::AutoContrast => color::autocontrast(image),
            Self::Equalize => color::equalize(image),
        }
        Ok(())
    }
}

/// Value `index` of `torch.linspace(start, end, steps)` in `f32`: counted from the nearer end.
fn linspace(start: f32, end: f32, index: usize, steps: usize) -> f32 {
    if steps < 2 {
        return start;
    }
    let step = (end - start) / (steps - 1) as f32;
    if index < steps / 2 {
        start + step * index as f32
    } else {
        end - step * (steps - 1).saturating_sub(index) as f32
    }
}
