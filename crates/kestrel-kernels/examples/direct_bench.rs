//! Times the direct convolution's passes on layers of ResNet-18 and ResNet-50 that Winograd does not take.
//!
//! `direct_bench [isa] [repeats] [batch] [layer] [pass]`: milliseconds (best and median of the repeats) and GFLOP/s of
//! the best. Packing of weights is included, as in a step of training. `layer` is a name or the beginning of one, or
//! `plain` for lines of `<layer> <pass> <best ms> <median ms>` of all layers, as `scripts/peer/torch_conv.py` prints;
//! `pass` is `forward`, `backward_data` or `backward_weights`.

use std::time::Instant;

use kestrel_kernels::conv2d::Conv2dConfig;
use kestrel_kernels::conv2d::Workspace;
use kestrel_kernels::conv2d::direct::{Direct, Shape};
use kestrel_kernels::memory::CachingAllocator;
use kestrel_kernels::simd::Isa;

/// As in a program that trains.
#[global_allocator]
static ALLOCATOR: CachingAllocator = CachingAllocator::new();

/// `C, K, H, kernel, stride, padding`.
const LAYERS: [[usize; 6]; 13] = [
    [3, 64, 32, 3, 1, 1],
    [3, 64, 224, 7, 2, 3],
    [64, 128, 56, 3, 2, 1],
    [128, 256, 28, 3, 2, 1],
    [256, 512, 14, 3, 2, 1],
    [64, 128, 56, 1, 2, 0],
    [128, 256, 28, 1, 2, 0],
    [256, 512, 14, 1, 2, 0],
    [64, 256, 56, 1, 1, 0],
    [256, 64, 56, 1, 1, 0],
    [512, 2048, 7, 1, 1, 0],
    [64, 64, 56, 3, 1, 1],
    [512, 512, 7, 3, 1, 1],
];
const PASSES: [&str; 3] = ["forward", "backward_data", "backward_weights"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let argument = |i: usize| arguments.get(i).map(String::as_str);
    let isa = argument(0).map_or(Ok(Isa::detect()), str::parse)?;
    let repeats: usize = argument(1).unwrap_or("9").parse::<usize>()?.max(1);
    let batch: usize = argument(2).unwrap_or("16").parse()?;
    let plain = argument(3) == Some("plain");
    let layer = argument(3).filter(|_| !plain).unwrap_or("");
    let pass = argument(4).unwrap_or("");
    if !plain {
        let threads = rayon::current_num_threads();
        println!("{isa}, {threads} threads, batch {batch}, {repeats} repeats");
    }
    let mut workspace = Workspace::new();
    for [c, k, h, kernel, stride, padding] in LAYERS {
        let name = format!("{kernel}x{kernel}s{stride}_{c}_{k}@{h}");
        if !name.starts_with(layer) {
            continue;
        }
        let config = Conv2dConfig {
            stride,
            padding,
            ..Default::default()
        };
        let shape = Shape::new([batch, h, h, c], k, [kernel; 2], &config)?;
        let conv = Direct::with_isa(shape, isa);
        let [x, w, dy] = [shape.input(), shape.weight(), shape.output()].map(|sizes| numbers(sizes.iter().product()));
        let (mut y, mut dx, mut dw) = (dy.clone(), x.clone(), w.clone());
        for (i, name_of_pass) in PASSES.into_iter().enumerate() {
            if !name_of_pass.starts_with(pass) {
                continue;
            }
            let mut run = || {
                let start = Instant::now();
                match i {
                    0 => conv.forward(&x, &w, &mut y, &mut workspace),
                    1 => conv.backward_data(&dy, &w, &mut dx, &mut workspace),
                    _ => conv.backward_weights(&x, &dy, &mut dw, &mut workspace),
                }
                start.elapsed().as_secs_f64() * 1e3
            };
            // The first one faults pages in. All on a thread of the pool, as in a program that trains.
            let mut times: Vec<f64> = rayon::scope(|_| (0..=repeats).map(|_| run()).skip(1).collect());
            times.sort_by(f64::total_cmp);
            let (best, median) = (times[0], times[repeats / 2]);
            if plain {
                println!("{name} {name_of_pass} {best:.3} {median:.3}");
            } else {
                let speed = shape.flops() / best / 1e6;
                println!("{name:18} {name_of_pass:16} {best:8.3} / {median:8.3} ms {speed:6.0} GFLOP/s");
            }
        }
    }
    if !plain {
        println!("workspace {:.1} MiB", workspace.bytes() as f64 / f64::from(1 << 20));
    }
    Ok(())
}

/// Numbers in `[-1, 1)`.
fn numbers(len: usize) -> Vec<f32> {
    (0..len as u32)
        .map(|i| (i.wrapping_mul(0x9e37_79b9) >> 8) as f32 / (1_u32 << 23) as f32 - 1.0)
        .collect()
}
