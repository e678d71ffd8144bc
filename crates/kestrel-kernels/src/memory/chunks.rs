//! A vector of floats that is filled piece by piece, side by side, without a pass that clears it all first.

use std::mem::MaybeUninit;

use rayon::prelude::*;

/// A vector of `count` chunks of `chunk_len` floats; `fill` gets each chunk with its number, on any thread, and gives it back
/// written, or `None` for a chunk of zeros.
///
/// # Errors
/// What `fill` gives for the lowest chunk that fails, whatever the number of threads; chunks after it may be left out.
///
/// # Panics
/// If `fill` gives other memory than it got.
pub fn fill_chunks<E: Send>(
    count: usize,
    chunk_len: usize,
    fill: impl for<'a> Fn(usize, &'a mut [MaybeUninit<f32>]) -> Result<Option<&'a mut [f32]>, E> + Sync,
) -> Result<Vec<f32>, E> {
    let len = count.saturating_mul(chunk_len);
    let mut data: Vec<f32> = Vec::with_capacity(len);
    let chunks = data.spare_capacity_mut()[..len].par_chunks_exact_mut(chunk_len.max(1));
    let fault = chunks.enumerate().find_map_first(|(number, chunk)| {
        let given = (chunk.as_ptr().addr(), chunk.len());
        match fill(number, &mut *chunk) {
            // Floats in the place of the chunk: they can only be the chunk, initialised.
            Ok(Some(filled)) => {
                assert_eq!((filled.as_ptr().addr(), filled.len()), given, "another chunk came back");
                None
            }
            Ok(None) => {
                chunk.fill(MaybeUninit::new(0.0));
                None
            }
            Err(error) => Some(error),
        }
    });
    if let Some(error) = fault {
        return Err(error);
    }
    // SAFETY: the capacity is at least `len`. No chunk failed, so none was left out, and each was written above; the chunks
    // make up all of `len`, which is a multiple of `chunk_len`, or 0.
    unsafe { data.set_len(len) };
    Ok(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes a number to all of a chunk.
    fn written(chunk: &mut [MaybeUninit<f32>], value: f32) -> Option<&mut [f32]> {
        chunk.fill(MaybeUninit::new(value));
        // SAFETY: the line above has written every element.
        Some(unsafe { chunk.assume_init_mut() })
    }

    #[test]
    fn every_chunk_is_filled_or_zeros() {
        for (count, chunk_len) in [(0, 5), (1, 1), (7, 3), (100, 17), (3, 0)] {
            let data = fill_chunks(count, chunk_len, |number, chunk| {
                Ok::<_, ()>(if number % 3 == 1 {
                    None
                } else {
                    written(chunk, number as f32 + 1.0)
                })
            });
            let value = |number: usize| if number % 3 == 1 { 0.0 } else { number as f32 + 1.0 };
            let want: Vec<f32> = (0..count * chunk_len).map(|i| value(i / chunk_len)).collect();
            assert_eq!(data, Ok(want), "{count} chunks of {chunk_len}");
        }
    }

    #[test]
    fn the_first_error_is_returned() {
        for _ in 0..20 {
            let got = fill_chunks(64, 4, |number, chunk| match number % 7 {
                3 => Err(number),
                _ => Ok(written(chunk, 0.0)),
            });
            assert_eq!(got, Err(3));
        }
    }

    #[test]
    #[should_panic(expected = "another chunk came back")]
    fn other_memory_is_refused() {
        let _ = fill_chunks(1, 4, |_, _| Ok::<_, ()>(Some(vec![0.0; 4].leak())));
    }
}
