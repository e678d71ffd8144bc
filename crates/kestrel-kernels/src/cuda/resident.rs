//! Batches made of images that are on the device: the launch of `resident.cu`.

use candle_core::{DType, Result, Tensor};

use super::context::Source;
use super::{Arg, Context, Grid, allocate, pointer};
use crate::pixels::Placement;

/// Words of the kernel's `Header`.
const HEADER: usize = 8;

/// `[B, 3, H, W]` of `pixels`, `[N, h, w, 3]`, and the table of their values and colours; `size` is `(H, W)`.
///
/// # Safety
/// Each placement names an image, rows and columns that are there, and colours of the table, one number for each row and each
/// column of the batch.
pub(crate) unsafe fn resident_batch(
    pixels: &Tensor,
    table: &Tensor,
    size: (usize, usize),
    placements: &[Placement],
) -> Result<Tensor> {
    let device = pixels.device();
    let context = Context::of(device)?;
    let words = HEADER + (size.0 + size.1).div_ceil(2);
    let packed = Tensor::from_vec(pack(placements, words), (placements.len(), words), device)?;
    // SAFETY: the kernel writes every element: all `H * W` of each channel of each placement.
    let out = unsafe { allocate(&context, DType::F32, (placements.len(), 3, size.0, size.1)) }?;
    let (_, height, width, _) = pixels.dims4()?;
    let numbers = [placements.len(), words, size.0, size.1, height, width].map(|number| Arg::I32(number as i32));
    let pointers = [pixels, table, &packed, &out].map(pointer);
    let mut args = Vec::with_capacity(pointers.len() + numbers.len());
    for pointer in pointers {
        args.push(Arg::Pointer(pointer?));
    }
    args.extend(numbers);
    let grid = Grid::strided(&context, placements.len() * size.0 * size.1);
    // SAFETY: these are the kernel's arguments; what the placements name is there, as the caller promises.
    unsafe { context.launch(Source::Resident, "resident_batch", grid, &args) }?;
    Ok(out)
}

/// The placements as the kernel reads them: `[B, words]`.
fn pack(placements: &[Placement], words: usize) -> Vec<u32> {
    let mut packed = Vec::with_capacity(placements.len() * words);
    for placement in placements {
        packed.push(placement.image as u32);
        let part = placement.erased.map(|part| {
            let place = [part.top, part.left, part.height, part.width].map(|number| number as u32);
            (place, part.values.map(f32::to_bits))
        });
        let (place, values) = part.unwrap_or_default();
        packed.extend(place);
        packed.extend(values);
        // Two numbers a word, the first in the lower half: as they lie in memory.
        let mut numbers = placement.rows.iter().chain(&placement.columns);
        while let Some(&low) = numbers.next() {
            let high = numbers.next().copied().unwrap_or(0);
            packed.push(u32::from(low) | (u32::from(high) << 16));
        }
    }
    packed
}
