//! From samples of other colours to RGB, as Pillow does it.

use crate::pixels::CHANNELS;

/// RGB pixels from `channels` samples a pixel: grey (1), grey with alpha (2), RGB (3), RGBA (4). Alpha is dropped.
pub(super) fn to_rgb(samples: Vec<u8>, channels: usize) -> Vec<u8> {
    if channels == CHANNELS {
        return samples;
    }
    let mut pixels = Vec::with_capacity(samples.len() / channels * CHANNELS);
    for pixel in samples.chunks_exact(channels) {
        match *pixel {
            [red, green, blue, _] => pixels.extend_from_slice(&[red, green, blue]),
            [grey, ..] => pixels.extend_from_slice(&[grey; CHANNELS]),
            [] => {}
        }
    }
    pixels
}

/// The high byte of each sample.
pub(super) fn high_bytes(samples: impl Iterator<Item = u16>) -> Vec<u8> {
    samples.map(|sample| (sample >> 8) as u8).collect()
}

/// Each sample clipped at 255, which is what Pillow makes of 16-bit grey.
pub(super) fn clipped(samples: impl Iterator<Item = u16>) -> Vec<u8> {
    samples.map(|sample| sample.min(255) as u8).collect()
}

/// RGB from inks, `cmyk` being how much of each there is.
pub(super) fn inks_to_rgb([cyan, magenta, yellow, black]: [u8; 4]) -> [u8; 3] {
    let paper = 255 - black;
    [cyan, magenta, yellow].map(|ink| paper - scaled(ink, paper))
}

/// `round(a b / 255)`.
fn scaled(a: u8, b: u8) -> u8 {
    let product = u32::from(a) * u32::from(b) + 128;
    (((product >> 8) + product) >> 8) as u8
}

/// The colours of a palette; an index past its end is black.
pub(super) fn palette(colors: impl Iterator<Item = [u8; 3]>) -> [[u8; 3]; 256] {
    let mut all = [[0; CHANNELS]; 256];
    for (entry, color) in all.iter_mut().zip(colors) {
        *entry = color;
    }
    all
}

/// RGB pixels from indices.
pub(super) fn look_up(indices: &[u8], palette: &[[u8; 3]; 256]) -> Vec<u8> {
    let mut pixels = Vec::with_capacity(indices.len() * CHANNELS);
    for &index in indices {
        pixels.extend_from_slice(&palette[usize::from(index)]);
    }
    pixels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scaling_is_rounded_division() {
        for a in 0..=255u8 {
            for b in 0..=255u8 {
                let exact = (f64::from(a) * f64::from(b) / 255.0).round();
                assert_eq!(f64::from(scaled(a, b)), exact, "{a} {b}");
            }
        }
    }

    #[test]
    fn no_ink_is_white_and_black_is_black() {
        assert_eq!(inks_to_rgb([0; 4]), [255; 3]);
        assert_eq!(inks_to_rgb([7, 0, 255, 255]), [0; 3]);
        assert_eq!(inks_to_rgb([255, 0, 0, 0]), [0, 255, 255]);
    }
}
