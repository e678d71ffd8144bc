//! A vector of floats that is filled piece by piece, side by side, without a pass that clears it all first.

use std::mem::MaybeUninit;

use rayon::prelude::*;

/// A vector of `count` chunks of `chunk_len` floats; `fill` gets each chunk with its number, as zeros, on any thread.
///
/// A chunk is cleared right before it is filled, where it is filled, so clearing costs a pass through the cache and not one
/// through memory on a single thread.
///
/// # Errors
/// What `fill` gives for the lowest chunk that fails, whatever the number of threads; chunks after it may be left out.
pub fn fill_chunks<E: Send>(
    count: usize,
    chunk_len: usize,
    fill: impl Fn(usize, &mut [f32]) -> Result<(), E> + Sync,
) -> Result<Vec<f32>, E> {
    let len = count.saturating_mul(chunk_len);
    let mut data: Vec<f32> = Vec::with_capacity(len);
    let chunks = data.spare_capacity_mut()[..len].par_chunks_exact_mut(chunk_len.max(1));
    let fault = chunks.enumerate().find_map_first(|(number, chunk)| {
        chunk.fill(MaybeUninit::new(0.0));
        // SAFETY: the line above has written every element.
        let chunk = unsafe { chunk.assume_init_mut() };
        fill(number, chunk).err()
    });
    if let Some(error) = fault {
        return Err(error);
    }
    // SAFETY: the capacity is at least `len`. No chunk failed, so none was left out, and each was cleared above; the chunks
    // make up all of `len`, which is a multiple of `chunk_len`, or 0.
    unsafe { data.set_len(len) };
    Ok(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_chunk_is_filled_and_starts_as_zeros() {
        for (count, chunk_len) in [(0, 5), (1, 1), (7, 3), (100, 17), (3, 0)] {
            let data = fill_chunks(count, chunk_len, |number, chunk| {
                assert!(chunk.iter().all(|&value| value.to_bits() == 0));
                // The last element is left alone.
                let kept = chunk.len() - 1;
                chunk[..kept].fill(number as f32 + 1.0);
                Ok::<(), ()>(())
            });
            let want: Vec<f32> = (0..count * chunk_len)
                .map(|i| {
                    let last = i % chunk_len == chunk_len - 1;
                    if last { 0.0 } else { (i / chunk_len) as f32 + 1.0 }
                })
                .collect();
            assert_eq!(data, Ok(want), "{count} chunks of {chunk_len}");
        }
    }

    #[test]
    fn the_first_error_is_returned() {
        for _ in 0..20 {
            let got = fill_chunks(64, 4, |number, _| if number % 7 == 3 { Err(number) } else { Ok(()) });
            assert_eq!(got, Err(3));
        }
    }
}
