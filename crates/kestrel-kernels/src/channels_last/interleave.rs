//! Images of few channels, as a net's input has, from planes to pixels, by all threads.

use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;

use crate::element;

/// Channels, at most: more are copied by candle.
const CHANNELS: usize = 4;

/// `[N, C, H, W]` → `[N, H, W, C]` for contiguous `f32` on the CPU that no gradient flows through; else `None`.
pub(super) fn interleave(x: &Tensor) -> candle_core::Result<Option<Tensor>> {
    let [n, c, h, w] = *x.dims() else {
        return Ok(None);
    };
    let taken = x.dtype() == DType::F32 && matches!(x.device(), Device::Cpu) && x.is_contiguous() && !x.track_op();
    if !taken || !(2..=CHANNELS).contains(&c) || n * h * w == 0 {
        return Ok(None);
    }
    let pixels = element::with_slice("to_channels_last", x, |x: &[f32]| {
        // SAFETY: every row of every image is written whole.
        unsafe {
            element::written(x.len(), |y| {
                y.par_chunks_exact_mut(w * c).enumerate().for_each(|(row, y)| {
                    let (image, row) = (row / h, row % h);
                    for channel in 0..c {
                        let plane = &x[((image * c + channel) * h + row) * w..][..w];
                        for (pixel, &value) in y.chunks_exact_mut(c).zip(plane) {
                            pixel[channel].write(value);
                        }
                    }
                });
            })
        }
    })?;
    Ok(Some(Tensor::from_vec(pixels, (n, h, w, c), &Device::Cpu)?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn equals_candles_copy() {
        for dims in [(2, 3, 5, 7), (1, 2, 1, 1), (3, 4, 8, 16), (1, 3, 1, 9)] {
            let x = Tensor::randn(0_f32, 1.0, dims, &Device::Cpu).unwrap();
            let want = x.permute((0, 2, 3, 1)).unwrap().contiguous().unwrap();
            let got = interleave(&x).unwrap().unwrap();
            assert_eq!(got.dims(), want.dims());
            let flat = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert_eq!(flat(&got), flat(&want));
        }
    }

    #[test]
    fn leaves_what_it_does_not_take() {
        let x = Tensor::zeros((2, 3, 4, 5), DType::F32, &Device::Cpu).unwrap();
        assert!(interleave(&x.to_dtype(DType::F64).unwrap()).unwrap().is_none());
        assert!(interleave(&x.transpose(2, 3).unwrap()).unwrap().is_none());
        let tracked = candle_core::Var::from_tensor(&x).unwrap();
        assert!(interleave(&tracked).unwrap().is_none());
        assert!(
            interleave(&Tensor::zeros((1, 64, 4, 4), DType::F32, &Device::Cpu).unwrap())
                .unwrap()
                .is_none()
        );
    }
}
