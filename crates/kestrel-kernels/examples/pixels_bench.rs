//! Speed of `RgbToPlanes` alone, one thread: 32x32 images, padded by 4 and cropped, every other one flipped.
//!
//! `pixels_bench [IMAGES] [BUFFERS] [AHEAD]`: reads `IMAGES` images (10000) in a scattered order, writes batches of 128 to
//! `BUFFERS` buffers (3) in turn, and asks for the pixels of the image `AHEAD` places (1) on while it works on one. Images and
//! buffers are at least 1.

use std::hint::black_box;
use std::mem::MaybeUninit;
use std::time::Instant;

use kestrel_kernels::memory::{CachingAllocator, prefetch};
use kestrel_kernels::pixels::{RgbToPlanes, Window};

#[global_allocator]
static ALLOCATOR: CachingAllocator = CachingAllocator::new();

const SIDE: usize = 32;
const BYTES: usize = SIDE * SIDE * 3;

fn main() {
    let argument = |place: usize, default: usize| {
        let text = std::env::args().nth(place);
        text.and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let (images, buffers, ahead) = (argument(1, 10_000).max(1), argument(2, 3).max(1), argument(3, 1));
    let pixels: Vec<u8> = (0..images * BYTES).map(|i| i.wrapping_mul(0x9e37_79b9) as u8).collect();
    let mut out = vec![0.0_f32; buffers * 128 * BYTES];
    let planes = RgbToPlanes::new([0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010]);
    let place = |i: usize| i.wrapping_mul(7_919) % images * BYTES;
    let mut best = f64::INFINITY;
    for _ in 0..9 {
        let started = Instant::now();
        for i in 0..20_000 {
            prefetch(&pixels[place(i + ahead)..][..BYTES]);
            let (y, x) = (i % 9, i / 9 % 9);
            let (top, left) = (y.saturating_sub(4), x.saturating_sub(4));
            let window = Window {
                pixels: &pixels[place(i)..][(top * SIDE + left) * 3..],
                stride: SIDE * 3,
                size: (SIDE, SIDE),
                start: (4_usize.saturating_sub(y), 4_usize.saturating_sub(x)),
                visible: (SIDE - y.abs_diff(4), SIDE - x.abs_diff(4)),
                flipped: i % 2 == 1,
            };
            let chunk = &mut out[i % (buffers * 128) * BYTES..][..BYTES];
            planes
                .write(window, black_box(chunk))
                .unwrap_or_else(|error| panic!("{error}"));
        }
        best = best.min(started.elapsed().as_secs_f64() / 20_000.0);
    }
    black_box(MaybeUninit::new(out));
    println!("{images} images, {buffers} buffers: {:.0} ns an image", best * 1e9);
}
