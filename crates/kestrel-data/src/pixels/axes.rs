//! `Axes`: an image whose pixels are elsewhere, as the rows and columns that it shows.

use kestrel_kernels::pixels::{FIRST_FILL, MAX_FILLS, Placement};

use super::CHANNELS;
use super::padding::Padding;
use crate::error::{Error, Result};

/// Which row of an image, and which column, each row and column of the transformed one shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Axes {
    rows: Vec<u16>,
    columns: Vec<u16>,
    /// The colours of the paddings, in order; see [`Placement::rows`].
    fills: Vec<[u8; CHANNELS]>,
}

impl Axes {
    /// All of an image of this size.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] for a side of 65,520 pixels or more.
    pub fn new(height: usize, width: usize) -> Result<Self> {
        let line = |side: usize| -> Result<Vec<u16>> {
            let end = u16::try_from(side).ok().filter(|&end| end < FIRST_FILL);
            let end = end.ok_or_else(|| Error::InvalidParameter {
                name: "the side of an image on a device",
                expected: "less than 65520 pixels",
                got: side.to_string(),
            })?;
            Ok((0..end).collect())
        };
        Ok(Self {
            rows: line(height)?,
            columns: line(width)?,
            fills: Vec::new(),
        })
    }

    /// Height and width in pixels, as seen.
    pub fn size(&self) -> (usize, usize) {
        (self.rows.len(), self.columns.len())
    }

    /// Mirrors the image left to right: [`Image::hflip`](super::Image::hflip).
    pub fn hflip(&mut self) {
        self.columns.reverse();
    }

    /// Keeps a part: [`Image::crop`](super::Image::crop).
    ///
    /// # Errors
    /// [`Error::CropTooLarge`] if it is not all within the image.
    pub fn crop(&mut self, top: usize, left: usize, height: usize, width: usize) -> Result<()> {
        let keep = |line: &mut Vec<u16>, start: usize, count: usize| {
            let end = start.checked_add(count).filter(|&end| end <= line.len())?;
            line.truncate(end);
            line.drain(..start);
            Some(())
        };
        let image = self.size();
        // Both are looked at before either is changed.
        let fits = |start: usize, count: usize, side| start.checked_add(count).is_some_and(|end| end <= side);
        if !fits(top, height, image.0) || !fits(left, width, image.1) {
            let crop = (top.saturating_add(height), left.saturating_add(width));
            return Err(Error::CropTooLarge { crop, image });
        }
        keep(&mut self.rows, top, height);
        keep(&mut self.columns, left, width);
        Ok(())
    }

    /// Adds pixels on each side.
    pub(super) fn pad_by(&mut self, padding: Padding) -> Result<()> {
        if padding.size == 0 {
            return Ok(());
        }
        if self.fills.len() == MAX_FILLS {
            return Err(Error::InvalidParameter {
                name: "paddings on a device",
                expected: "at most 16 of them",
                got: (MAX_FILLS + 1).to_string(),
            });
        }
        let fill = FIRST_FILL + self.fills.len() as u16;
        self.fills.push(padding.fill);
        for line in [&mut self.rows, &mut self.columns] {
            let padded = (0..line.len() + 2 * padding.size)
                .map(|position| padding.source(position, line.len()).map_or(fill, |source| line[source]));
            *line = padded.collect();
        }
        Ok(())
    }

    /// The colours of the paddings, in order.
    pub(crate) fn fills(&self) -> &[[u8; CHANNELS]] {
        &self.fills
    }

    /// What the kernels take, of image number `image`.
    pub(crate) fn into_placement(self, image: usize) -> Placement {
        Placement {
            image,
            rows: self.rows,
            columns: self.columns,
            erased: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use kestrel_kernels::pixels::RgbToPlanes;
    use proptest::prelude::*;

    use super::super::canvas::Canvas;
    use super::super::{Image, PaddingMode};
    use super::*;

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Flip,
        Pad(Padding),
        Crop([usize; 4]),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let mode = prop_oneof![
            Just(PaddingMode::Constant),
            Just(PaddingMode::Edge),
            Just(PaddingMode::Reflect),
            Just(PaddingMode::Symmetric),
        ];
        let padding = (0..5_usize, mode, any::<[u8; 3]>()).prop_map(|(size, mode, fill)| Padding { size, mode, fill });
        let step = prop_oneof![
            Just(Step::Flip),
            padding.prop_map(Step::Pad),
            any::<[u8; 4]>().prop_map(|part| Step::Crop(part.map(usize::from))),
        ];
        prop::collection::vec(step, 0..8)
    }

    fn run(canvas: &mut impl Canvas, steps: &[Step]) -> Result<()> {
        for step in steps {
            let (h, w) = canvas.size();
            match *step {
                Step::Flip => canvas.hflip(),
                Step::Pad(padding) => canvas.pad(padding)?,
                Step::Crop([top, left, height, width]) => {
                    let (height, width) = (1 + height % h, 1 + width % w);
                    canvas.crop(top % (h - height + 1), left % (w - width + 1), height, width)?;
                }
            }
        }
        Ok(())
    }

    proptest! {
        /// The same steps on pixels here and on pixels there.
        #[test]
        fn axes_say_what_pixels_show(height in 1..6_usize, width in 1..6_usize, steps in steps()) {
            let pixels: Vec<u8> = (0..height * width * CHANNELS).map(|i| (i * 37 % 251) as u8).collect();
            let mut image = Image::new(&pixels[..], height, width).unwrap();
            let mut axes = Axes::new(height, width).unwrap();
            run(&mut image, &steps).unwrap();
            run(&mut axes, &steps).unwrap();
            prop_assert_eq!(axes.size(), (image.height(), image.width()));
            let planes = RgbToPlanes::new([0.4, 0.5, 0.6], [0.2, 0.3, 0.25]);
            let mut want = vec![0.0; image.height() * image.width() * CHANNELS];
            planes.write(image.view(), &mut want).unwrap();
            let resident = kestrel_kernels::pixels::ResidentImages::new(
                pixels.clone(), (height, width), &planes, axes.fills(), &candle_core::Device::Cpu,
            ).unwrap();
            let size = axes.size();
            let got = resident.batch(size, &[axes.into_placement(0)]).unwrap();
            prop_assert_eq!(got.flatten_all().unwrap().to_vec1::<f32>().unwrap(), want);
        }
    }

    #[test]
    fn a_crop_that_does_not_fit_changes_nothing() {
        let mut axes = Axes::new(4, 3).unwrap();
        assert!(matches!(
            axes.crop(0, 2, 4, 2),
            Err(Error::CropTooLarge {
                crop: (4, 4),
                image: (4, 3)
            })
        ));
        assert_eq!(axes, Axes::new(4, 3).unwrap());
        assert!(axes.crop(usize::MAX, 0, 2, 1).is_err());
    }

    #[test]
    fn what_16_bits_cannot_number_is_refused() {
        assert!(Axes::new(65_519, 1).is_ok());
        assert!(Axes::new(65_520, 1).is_err());
        assert!(Axes::new(1, 70_000).is_err());
    }
}
