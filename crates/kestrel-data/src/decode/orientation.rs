//! EXIF's orientations: how a picture as it is stored becomes upright.

use crate::pixels::CHANNELS;

/// The pixels, height and width of a picture that is turned as its orientation says; as it is for 1 and for numbers that are none.
///
/// | orientation | the picture is |
/// |---|---|
/// | 2 | mirrored, left for right |
/// | 3 | turned by 180 degrees |
/// | 4 | mirrored, top for bottom |
/// | 5 | transposed |
/// | 6 | turned by 90 degrees clockwise |
/// | 7 | transposed along the other diagonal |
/// | 8 | turned by 90 degrees counter-clockwise |
///
/// # Shapes
/// `pixels [height, width, 3]`, or else nothing is turned.
pub(super) fn upright(pixels: Vec<u8>, height: usize, width: usize, orientation: u16) -> (Vec<u8>, usize, usize) {
    let (stored, []) = pixels.as_chunks::<CHANNELS>() else {
        return (pixels, height, width);
    };
    if !(2..=8).contains(&orientation) || stored.len() != height * width {
        return (pixels, height, width);
    }
    let (new_height, new_width) = if orientation >= 5 {
        (width, height)
    } else {
        (height, width)
    };
    let mut turned = Vec::with_capacity(pixels.len());
    for y in 0..new_height {
        for x in 0..new_width {
            // Seen from the far end of an axis.
            let (far_y, far_x) = (new_height - 1 - y, new_width - 1 - x);
            let (row, column) = match orientation {
                2 => (y, far_x),
                3 => (far_y, far_x),
                4 => (far_y, x),
                5 => (x, y),
                6 => (far_x, y),
                7 => (far_x, far_y),
                _ => (x, far_y),
            };
            turned.extend_from_slice(&stored[row * width + column]);
        }
    }
    (turned, new_height, new_width)
}
