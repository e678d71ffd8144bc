//! Images that stay on a device as 8-bit pixels, and batches of floats made of them there.
//!
//! Crops, flips and paddings of every kind move whole rows and columns, so what an image becomes is said by one number a row
//! and one a column: `y[c, i, j] = planes(x[rows[i], columns[j], c])`. A batch takes those from the host, some hundred bytes an
//! image, and no pixels. Its numbers are those of [`RgbToPlanes`], bit for bit: both look them up in its table.
//!
//! Shapes: `N` images of `h` x `w` pixels, a batch of `B` of them, `H` x `W` pixels each.

use std::mem::MaybeUninit;

use candle_core::{CpuStorage, Device, Storage, Tensor};

use super::{CHANNELS, RgbToPlanes};
use crate::memory::fill_chunks;
use crate::{Error, Result};

const OP: &str = "resident_images";

/// Numbers of rows and columns from this one on are no pixels but colours: the colours of the paddings, in order.
pub const FIRST_FILL: u16 = u16::MAX - MAX_FILLS as u16 + 1;

/// The most colours.
pub const MAX_FILLS: usize = 16;

/// Values of a channel.
const VALUES: usize = 256;

/// How one image of a batch is made.
#[derive(Clone, Debug, PartialEq)]
pub struct Placement {
    /// Which of the images.
    pub image: usize,
    /// `[H]`: for each row the image's row that it shows, or [`FIRST_FILL`] + the number of a colour.
    pub rows: Vec<u16>,
    /// `[W]`: the same for the columns. Where a row and a column name colours, the higher number is shown.
    pub columns: Vec<u16>,
    /// A rectangle that is overwritten.
    pub erased: Option<Erasure>,
}

/// A rectangle of a normalised image, and what it is overwritten with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Erasure {
    /// First row.
    pub top: usize,
    /// First column.
    pub left: usize,
    /// Number of rows.
    pub height: usize,
    /// Number of columns.
    pub width: usize,
    /// A value for each channel.
    pub values: [f32; CHANNELS],
}

/// 8-bit RGB images of one size, on a device.
#[derive(Clone, Debug)]
pub struct ResidentImages {
    /// `[N, h, w, 3]`, `u8`.
    pixels: Tensor,
    /// `[3 * 256 + 3 * fills]`, `f32`: what each value of each channel becomes, then the colours, a value a channel. On the host.
    table: Vec<f32>,
    /// The same on the device.
    #[cfg_attr(
        not(feature = "cuda"),
        expect(dead_code, reason = "the CPU reads the table of the host")
    )]
    device_table: Tensor,
}

impl ResidentImages {
    /// Moves images to `device`, to be normalised by `planes`; `fills` are the colours of paddings.
    ///
    /// # Shapes
    /// `pixels` is `[N, h, w, 3]`, `size` is `(h, w)`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the pixels are not those of whole images, if a side is 0 or [`FIRST_FILL`] or more, or if
    /// there are more than [`MAX_FILLS`] colours; candle's where the device has no room.
    pub fn new(
        pixels: Vec<u8>,
        size: (usize, usize),
        planes: &RgbToPlanes,
        fills: &[[u8; CHANNELS]],
        device: &Device,
    ) -> Result<Self> {
        let (height, width) = size;
        for side in [height, width] {
            if side == 0 || side >= usize::from(FIRST_FILL) {
                return Err(fault("a side of an image", "from 1 to 65519", side));
            }
        }
        if fills.len() > MAX_FILLS {
            return Err(fault("the number of colours", "at most 16", fills.len()));
        }
        let image = height * width * CHANNELS;
        if !pixels.len().is_multiple_of(image) {
            return Err(fault("the length of pixels", "N * h * w * 3", pixels.len()));
        }
        let mut table: Vec<f32> = (0..CHANNELS).flat_map(|channel| *planes.table(channel)).collect();
        for fill in fills {
            table.extend(
                fill.iter()
                    .enumerate()
                    .map(|(channel, &value)| planes.table(channel)[usize::from(value)]),
            );
        }
        let shape = (pixels.len() / image, height, width, CHANNELS);
        Ok(Self {
            pixels: Tensor::from_vec(pixels, shape, device)?,
            device_table: Tensor::new(table.as_slice(), device)?,
            table,
        })
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.pixels.dims()[0]
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Height and width of an image.
    pub fn size(&self) -> (usize, usize) {
        (self.pixels.dims()[1], self.pixels.dims()[2])
    }

    /// Makes a batch, on the images' device.
    ///
    /// # Shapes
    /// `size` is `(H, W)`; gives `[B, 3, H, W]`, `f32`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a placement with an image, a row, a column or a colour that is not there, with another
    /// number of rows and columns than `size` says, or with a rectangle that is not within it; [`Error::EmptyBatch`].
    pub fn batch(&self, size: (usize, usize), placements: &[Placement]) -> Result<Tensor> {
        if placements.is_empty() || size.0 == 0 || size.1 == 0 {
            return Err(Error::EmptyBatch { op: OP });
        }
        for placement in placements {
            self.check(size, placement)?;
        }
        #[cfg(feature = "cuda")]
        if self.pixels.device().is_cuda() {
            // SAFETY: each placement was checked above, against these images, this table and this size.
            return Ok(unsafe { crate::cuda::resident_batch(&self.pixels, &self.device_table, size, placements) }?);
        }
        self.make(size, placements)
    }

    /// [`Self::batch`] on the CPU, once the placements are checked.
    fn make(&self, size: (usize, usize), placements: &[Placement]) -> Result<Tensor> {
        let (storage, layout) = self.pixels.storage_and_layout();
        let (Storage::Cpu(CpuStorage::U8(pixels)), Some((start, end))) = (&*storage, layout.contiguous_offsets())
        else {
            let error = candle_core::Error::UnsupportedDTypeForOp(self.pixels.dtype(), OP);
            return Err(error.into());
        };
        let images = &pixels[start..end];
        let image = images.len() / self.len();
        let data = fill_chunks(placements.len(), CHANNELS * size.0 * size.1, |place, out| {
            let placement = &placements[place];
            let pixels = &images[placement.image * image..][..image];
            Result::Ok(Some(self.write(pixels, size, placement, out)))
        })?;
        let shape = (placements.len(), CHANNELS, size.0, size.1);
        Ok(Tensor::from_vec(data, shape, self.pixels.device())?)
    }

    /// Writes one image, `[3, H, W]`; `pixels` is the one that it is made of, `[h, w, 3]`.
    fn write<'a>(
        &self,
        pixels: &[u8],
        (height, width): (usize, usize),
        placement: &Placement,
        out: &'a mut [MaybeUninit<f32>],
    ) -> &'a mut [f32] {
        let image_width = self.size().1;
        let (values, fills) = self.table.split_at(CHANNELS * VALUES);
        for (channel, plane) in out.chunks_exact_mut(height * width).enumerate() {
            for (row, &from_row) in plane.chunks_exact_mut(width).zip(&placement.rows) {
                for (value, &from_column) in row.iter_mut().zip(&placement.columns) {
                    value.write(match from_row.max(from_column).checked_sub(FIRST_FILL) {
                        Some(fill) => fills[usize::from(fill) * CHANNELS + channel],
                        None => {
                            let pixel = usize::from(from_row) * image_width + usize::from(from_column);
                            values[channel * VALUES + usize::from(pixels[pixel * CHANNELS + channel])]
                        }
                    });
                }
            }
            if let Some(part) = placement.erased {
                let rows = plane.chunks_exact_mut(width).skip(part.top).take(part.height);
                for value in rows.flat_map(|row| row.iter_mut().skip(part.left).take(part.width)) {
                    value.write(part.values[channel]);
                }
            }
        }
        // SAFETY: `out` is three planes of `height` rows of `width` elements, there is a number for each row and each column
        // (`check`), and the loops above write an element for each.
        unsafe { out.assume_init_mut() }
    }

    /// Refuses what a kernel could not read.
    fn check(&self, (height, width): (usize, usize), placement: &Placement) -> Result<()> {
        let (images, image_height, image_width, _) = self.pixels.dims4()?;
        if placement.image >= images {
            return Err(fault("image", "below the number of images", placement.image));
        }
        let fills = self.table.len() / CHANNELS - VALUES;
        let sides = [
            (&placement.rows, height, image_height, "the number of rows"),
            (&placement.columns, width, image_width, "the number of columns"),
        ];
        for (numbers, expected, limit, argument) in sides {
            if numbers.len() != expected {
                return Err(fault(argument, "the batch's", numbers.len()));
            }
            let known = |&&number: &&u16| {
                let (number, fill) = (usize::from(number), number.checked_sub(FIRST_FILL).map(usize::from));
                fill.map_or(number < limit, |fill| fill < fills)
            };
            if let Some(unknown) = numbers.iter().find(|number| !known(number)) {
                return Err(fault(
                    "a row or a column",
                    "one of the image, or a colour",
                    usize::from(*unknown),
                ));
            }
        }
        if let Some(part) = placement.erased {
            let within = |start: usize, count: usize, side| start.checked_add(count).is_some_and(|end| end <= side);
            if !within(part.top, part.height, height) || !within(part.left, part.width, width) {
                return Err(fault("the erased rectangle's rows", "within the image", part.height));
            }
        }
        Ok(())
    }
}

fn fault(argument: &'static str, expected: &'static str, got: usize) -> Error {
    Error::InvalidArgument {
        op: OP,
        argument,
        expected,
        got: got as f64,
    }
}

#[cfg(test)]
mod tests;
