//! Changes of an image's colours, with Pillow's integers: what `torchvision.transforms.functional` does to PIL images.
//!
//! Proved by `tests/golden/color.safetensors`, bit for bit.

use crate::pixels::{CHANNELS, Image};

/// Black at 0, the image at 1, brighter above: `adjust_brightness`.
pub fn adjust_brightness(image: &mut Image<'_>, factor: f64) {
    blend(image, factor, |_, pixels| pixels.fill(0));
}

/// The mean grey at 0, the image at 1: `adjust_contrast`.
pub fn adjust_contrast(image: &mut Image<'_>, factor: f64) {
    blend(image, factor, |_, pixels| {
        let (all, _) = pixels.as_chunks::<CHANNELS>();
        let sum: u64 = all.iter().map(|&pixel| u64::from(grey(pixel))).sum();
        let mean = (sum as f64 / all.len().max(1) as f64 + 0.5) as u8;
        pixels.fill(mean);
    });
}

/// The grey image at 0, the image at 1: `adjust_saturation`.
pub fn adjust_saturation(image: &mut Image<'_>, factor: f64) {
    blend(image, factor, |_, pixels| {
        for pixel in pixels.as_chunks_mut::<CHANNELS>().0 {
            *pixel = [grey(*pixel); CHANNELS];
        }
    });
}

/// A smoothed image at 0, the image at 1: `adjust_sharpness`.
pub fn adjust_sharpness(image: &mut Image<'_>, factor: f64) {
    blend(image, factor, |(height, width), pixels| {
        if height < 3 || width < 3 {
            return;
        }
        let source = pixels.to_vec();
        let stride = width * CHANNELS;
        for y in 1..height - 1 {
            for at in y * stride + CHANNELS..(y + 1) * stride - CHANNELS {
                let around = |row: usize| {
                    u32::from(source[row - CHANNELS]) + u32::from(source[row]) + u32::from(source[row + CHANNELS])
                };
                let sum = around(at - stride) + around(at) + around(at + stride) + 4 * u32::from(source[at]);
                // Rounded; a thirteenth has no ties.
                pixels[at] = ((2 * sum + 13) / 26) as u8;
            }
        }
    });
}

/// Turns the hue by `factor` of a full turn, -0.5 to 0.5: `adjust_hue`.
pub fn adjust_hue(image: &mut Image<'_>, factor: f64) {
    let turn = (factor * 255.0) as i32 as u8;
    for pixel in image.pixels_mut().as_chunks_mut::<CHANNELS>().0 {
        let [h, s, v] = to_hsv(*pixel);
        *pixel = to_rgb([h.wrapping_add(turn), s, v]);
    }
}

/// Keeps the `bits` highest bits of each value, 1 to 8: `posterize`.
pub fn posterize(image: &mut Image<'_>, bits: u32) {
    let mask = 0xff_u8 << 8_u32.saturating_sub(bits).min(7);
    for value in image.pixels_mut() {
        *value &= mask;
    }
}

/// Inverts the values from `threshold` on: `solarize`.
pub fn solarize(image: &mut Image<'_>, threshold: f64) {
    for value in image.pixels_mut() {
        if f64::from(*value) >= threshold {
            *value = 255 - *value;
        }
    }
}

/// Stretches each channel's values to the whole range: `autocontrast`.
pub fn autocontrast(image: &mut Image<'_>) {
    through_tables(image, |counts, table| {
        let low = counts.iter().position(|&count| count > 0);
        let high = counts.iter().rposition(|&count| count > 0);
        if let (Some(low), Some(high)) = (low, high)
            && low < high
        {
            let scale = 255.0 / (high - low) as f64;
            let offset = -(low as f64) * scale;
            for (value, new) in table.iter_mut().enumerate() {
                *new = (value as f64 * scale + offset) as u8;
            }
        }
    });
}

/// Spreads each channel's values evenly: `equalize`.
pub fn equalize(image: &mut Image<'_>) {
    through_tables(image, |counts, table| {
        let last = counts.iter().copied().rfind(|&count| count > 0).unwrap_or(0);
        let step = (counts.iter().sum::<usize>() - last) / 255;
        if step > 0 {
            let mut n = step / 2;
            for (new, count) in table.iter_mut().zip(counts) {
                *new = (n / step).min(255) as u8;
                n += count;
            }
        }
    });
}

/// The image and another made of it, mixed: the other at 0, the image at 1, past it beyond. Pillow's `Image.blend`, which cuts
/// off.
fn blend(image: &mut Image<'_>, factor: f64, other: impl FnOnce((usize, usize), &mut [u8])) {
    let alpha = factor as f32;
    if alpha == 1.0 {
        return;
    }
    let size = (image.height(), image.width());
    let pixels = image.pixels_mut();
    let mut mixed = pixels.to_vec();
    other(size, &mut mixed);
    for (value, &other) in pixels.iter_mut().zip(&mixed) {
        let (from, to) = (f32::from(other), f32::from(*value));
        // A cast to u8 cuts off, and clips to its range.
        *value = (from + alpha * (to - from)) as u8;
    }
}

/// Applies a table a channel, which starts as the identity and is made from the channel's counts of values.
fn through_tables(image: &mut Image<'_>, make: impl Fn(&[usize; 256], &mut [u8; 256])) {
    let pixels = image.pixels_mut();
    for channel in 0..CHANNELS {
        let mut counts = [0; 256];
        for &value in pixels.iter().skip(channel).step_by(CHANNELS) {
            counts[usize::from(value)] += 1;
        }
        let mut table = std::array::from_fn(|value| value as u8);
        make(&counts, &mut table);
        for value in pixels.iter_mut().skip(channel).step_by(CHANNELS) {
            *value = table[usize::from(*value)];
        }
    }
}

/// ITU-R BT.601 luma in 16 bits of fraction, rounded.
fn grey([red, green, blue]: [u8; 3]) -> u8 {
    ((u32::from(red) * 19_595 + u32::from(green) * 38_470 + u32::from(blue) * 7_471 + 0x8000) >> 16) as u8
}

/// Pillow's 8-bit HSV, with its mix of precisions.
fn to_hsv([r, g, b]: [u8; 3]) -> [u8; 3] {
    let (max, min) = (r.max(g).max(b), r.min(g).min(b));
    if max == min {
        return [0, 0, max];
    }
    let range = f32::from(max - min);
    let saturation = range / f32::from(max);
    let [rc, gc, bc] = [r, g, b].map(|value| f32::from(max - value) / range);
    let hue = if r == max {
        bc - gc
    } else if g == max {
        (2.0 + f64::from(rc) - f64::from(bc)) as f32
    } else {
        (4.0 + f64::from(gc) - f64::from(rc)) as f32
    };
    let hue = ((f64::from(hue) / 6.0 + 1.0) % 1.0) as f32;
    [
        (f64::from(hue) * 255.0) as u8,
        (f64::from(saturation) * 255.0) as u8,
        max,
    ]
}

fn to_rgb([h, s, v]: [u8; 3]) -> [u8; 3] {
    if s == 0 {
        return [v; 3];
    }
    let scaled = f64::from(f32::from(h)) * 6.0 / 255.0;
    let sector = scaled.floor();
    let f = f64::from((scaled - f64::from(sector as f32)) as f32);
    let saturation = f64::from((f64::from(f32::from(s)) / 255.0) as f32);
    let value = f64::from(v);
    // A cast to u8 clips to its range.
    let [p, q, t] = [
        value * (1.0 - saturation),
        value * (1.0 - saturation * f),
        value * (1.0 - saturation * (1.0 - f)),
    ]
    .map(|part| part.round() as u8);
    match sector as u8 % 6 {
        0 => [v, t, p],
        1 => [q, v, p],
        2 => [p, v, t],
        3 => [p, q, v],
        4 => [t, p, v],
        _ => [v, p, q],
    }
}
