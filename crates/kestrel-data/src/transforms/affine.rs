//! Shears, shifts and rotations with nearest neighbours, pixel by pixel as Pillow's `Image.transform` finds them.
//!
//! Proved by `tests/golden/augment.safetensors`, bit for bit.

use crate::error::Result;
use crate::pixels::{CHANNELS, Image};

/// Where a pixel of the result is taken from: `x' = m[0] x + m[1] y + m[2]`, `y' = m[3] x + m[4] y + m[5]`.
type Matrix = [f64; 6];

/// The inverse of a rotation by `angle` degrees, a shift and shears in degrees, about a centre: torchvision's
/// `_get_inverse_affine_matrix` with a scale of 1.
fn inverse_matrix(angle: f64, translate: [f64; 2], shear: [f64; 2], center: [f64; 2]) -> Matrix {
    let (rotation, sx, sy) = (angle.to_radians(), shear[0].to_radians(), shear[1].to_radians());
    let ([cx, cy], [tx, ty]) = (center, translate);
    let a = (rotation - sy).cos() / sy.cos();
    let b = -(rotation - sy).cos() * sx.tan() / sy.cos() - rotation.sin();
    let c = (rotation - sy).sin() / sy.cos();
    let d = -(rotation - sy).sin() * sx.tan() / sy.cos() + rotation.cos();
    let mut m = [d, -b, 0.0, -c, a, 0.0];
    m[2] += m[0] * (-cx - tx) + m[1] * (-cy - ty);
    m[5] += m[3] * (-cx - tx) + m[4] * (-cy - ty);
    m[2] += cx;
    m[5] += cy;
    m
}

/// Shears about the upper left corner by these factors, along x and along y.
pub(super) fn shear(image: &mut Image<'_>, factors: [f64; 2], fill: [u8; CHANNELS]) -> Result<()> {
    let degrees = factors.map(|factor| factor.atan().to_degrees());
    transform(image, inverse_matrix(0.0, [0.0; 2], degrees, [0.0; 2]), fill)
}

/// Moves by whole pixels, right and down.
pub(super) fn translate(image: &mut Image<'_>, by: [f64; 2], fill: [u8; CHANNELS]) -> Result<()> {
    let center = [image.width() as f64 * 0.5, image.height() as f64 * 0.5];
    transform(image, inverse_matrix(0.0, by, [0.0; 2], center), fill)
}

/// Rotates counter-clockwise by `angle` degrees about the middle.
pub(super) fn rotate(image: &mut Image<'_>, angle: f64, fill: [u8; CHANNELS]) -> Result<()> {
    let angle = angle.rem_euclid(360.0);
    if angle == 0.0 {
        return Ok(());
    }
    let radians = -angle.to_radians();
    let (cos, sin) = (to_15_decimals(radians.cos()), to_15_decimals(radians.sin()));
    let (cx, cy) = (image.width() as f64 / 2.0, image.height() as f64 / 2.0);
    let m = [
        cos,
        sin,
        cos * -cx + sin * -cy + 0.0 + cx,
        to_15_decimals(-radians.sin()),
        cos,
        -sin * -cx + cos * -cy + 0.0 + cy,
    ];
    transform(image, m, fill)
}

/// Python's `round(value, 15)`.
fn to_15_decimals(value: f64) -> f64 {
    format!("{value:.15}").parse().unwrap_or(value)
}

/// Takes each pixel from where the matrix says, or `fill` where that is outside.
fn transform(image: &mut Image<'_>, m: Matrix, fill: [u8; CHANNELS]) -> Result<()> {
    let (height, width) = (image.height(), image.width());
    let mut out = fill.repeat(height * width);
    {
        let source = image.pixels();
        let (source, _) = source.as_chunks::<CHANNELS>();
        let (out, _) = out.as_chunks_mut::<CHANNELS>();
        let rows = out.chunks_exact_mut(width.max(1));
        if m[1] == 0.0 && m[3] == 0.0 {
            let columns: Vec<Option<usize>> = positions(m[2] + m[0] * 0.5, m[0], width, width).collect();
            for (row, y) in rows.zip(positions(m[5] + m[4] * 0.5, m[4], height, height)) {
                let Some(y) = y else { continue };
                for (pixel, x) in row.iter_mut().zip(&columns) {
                    if let Some(x) = x {
                        *pixel = source[y * width + x];
                    }
                }
            }
        } else if is_small(m, height, width) {
            // 16 bits of fraction.
            let fixed = |value: f64| (value * 65_536.0 + 0.5).floor() as i64;
            let mut start = (
                fixed(m[2] + m[0] * 0.5 + m[1] * 0.5),
                fixed(m[5] + m[3] * 0.5 + m[4] * 0.5),
            );
            let (right, down) = ((fixed(m[0]), fixed(m[3])), (fixed(m[1]), fixed(m[4])));
            for row in rows {
                let (mut x, mut y) = start;
                for pixel in row {
                    if let (Ok(column), Ok(line)) = (usize::try_from(x >> 16), usize::try_from(y >> 16))
                        && column < width
                        && line < height
                    {
                        *pixel = source[line * width + column];
                    }
                    (x, y) = (x + right.0, y + right.1);
                }
                start = (start.0 + down.0, start.1 + down.1);
            }
        } else {
            let mut start = (m[2] + m[1] * 0.5 + m[0] * 0.5, m[5] + m[4] * 0.5 + m[3] * 0.5);
            for row in rows {
                let (mut x, mut y) = start;
                for pixel in row {
                    if let (Some(column), Some(line)) = (position(x, width), position(y, height)) {
                        *pixel = source[line * width + column];
                    }
                    (x, y) = (x + m[0], y + m[3]);
                }
                start = (start.0 + m[1], start.1 + m[4]);
            }
        }
    }
    image.replace(out, height, width)
}

/// Whether all positions can be held with 16 bits of whole pixels.
fn is_small(m: Matrix, height: usize, width: usize) -> bool {
    let (h, w) = (height as f64, width as f64);
    [(0.0, 0.0), (w, h), (0.0, h), (w, 0.0)]
        .iter()
        .all(|(x, y)| (x * m[0] + y * m[1] + m[2]).abs() < 32_768.0 && (x * m[3] + y * m[4] + m[5]).abs() < 32_768.0)
}

/// The pixel that a coordinate lies in, if it is one of `size`.
fn position(coordinate: f64, size: usize) -> Option<usize> {
    (coordinate >= 0.0)
        .then_some(coordinate as usize)
        .filter(|&position| position < size)
}

/// The positions of `count` coordinates `step` apart, added up one by one.
fn positions(start: f64, step: f64, count: usize, size: usize) -> impl Iterator<Item = Option<usize>> {
    let coordinates = std::iter::successors(Some(start), move |coordinate| Some(coordinate + step));
    coordinates
        .take(count)
        .map(move |coordinate| position(coordinate, size))
}
