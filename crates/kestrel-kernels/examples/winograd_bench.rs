//! Times the Winograd passes on the five hot layers of the CIFAR net.
//!
//! `winograd_bench [isa] [rounds] [batch] [layer]`: milliseconds (best and median of the rounds) and nominal GFLOP/s, those of a
//! direct convolution. Weight transforms are included, as in a step of training. The least number of rounds is 1. `layer` (0 to 4, or `resnet`) picks
//! one layer, or ResNet-18's 3x3 at 224 pixels.

use std::time::Instant;

use kestrel_kernels::conv2d::Workspace;
use kestrel_kernels::conv2d::winograd::{Shape, Winograd};
use kestrel_kernels::memory::CachingAllocator;
use kestrel_kernels::simd::Isa;

/// As in a program that trains.
#[global_allocator]
static ALLOCATOR: CachingAllocator = CachingAllocator::new();

/// `[C, K, H, stride]`.
const CIFAR: [[usize; 4]; 5] = [
    [64, 64, 32, 1],
    [64, 128, 16, 1],
    [128, 128, 16, 1],
    [128, 256, 8, 1],
    [256, 256, 8, 1],
];
const RESNET: [[usize; 4]; 7] = [
    [64, 64, 56, 1],
    [128, 128, 28, 1],
    [256, 256, 14, 1],
    [512, 512, 7, 1],
    [64, 128, 56, 2],
    [128, 256, 28, 2],
    [256, 512, 14, 2],
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let argument = |i: usize| arguments.get(i).map(String::as_str);
    let isa = argument(0).map_or(Ok(Isa::detect()), str::parse)?;
    let rounds: usize = argument(1).unwrap_or("9").parse::<usize>()?.max(1);
    let batch: usize = argument(2).unwrap_or("128").parse()?;
    let layers: Vec<[usize; 4]> = match argument(3) {
        None => CIFAR.to_vec(),
        Some("resnet") => RESNET.to_vec(),
        Some(layer) => match CIFAR.get(layer.parse::<usize>()?) {
            Some(layer) => vec![*layer],
            None => {
                return Err(format!("expected a layer from 0 to {}, or resnet, got {layer}", CIFAR.len() - 1).into());
            }
        },
    };
    println!(
        "{isa}, {} threads, batch {batch}, {rounds} rounds",
        rayon::current_num_threads()
    );
    let mut workspace = Workspace::new();
    for [c, k, h, stride] in layers {
        let input = [batch, h, h, c];
        let shape = if stride == 1 {
            Shape::new(input, k, 1)?
        } else {
            Shape::strided(input, k)?
        };
        let conv = Winograd::with_isa(shape, isa);
        let (x, dy, w) = (
            numbers(batch * h * h * c),
            numbers(shape.output().iter().product()),
            numbers(k * c * 9),
        );
        let (mut y, mut dx, mut dw) = (dy.clone(), x.clone(), w.clone());
        let mut times = [const { Vec::new() }; 3];
        // On a thread of the pool, as in a program that trains.
        rayon::scope(|_| {
            for _ in 0..=rounds {
                times[0].push(milliseconds(|| conv.forward(&x, &w, &mut y, &mut workspace)));
                times[1].push(milliseconds(|| conv.backward_data(&dy, &w, &mut dx, &mut workspace)));
                times[2].push(milliseconds(|| conv.backward_weights(&x, &dy, &mut dw, &mut workspace)));
            }
        });
        print!("{c}->{k}@{h} stride {stride}");
        for (pass, times) in ["fwd", "bd", "bw"].into_iter().zip(&mut times) {
            // The first round faults pages in.
            let times = &mut times[1..];
            times.sort_by(f64::total_cmp);
            let (best, median) = (times[0], times[rounds / 2]);
            print!(
                "  {pass} {best:.2}/{median:.2} ms {:.0} GFLOP/s",
                shape.direct_flops() / best / 1e6
            );
        }
        println!();
    }
    println!("workspace {:.1} MiB", workspace.bytes() as f64 / f64::from(1 << 20));
    Ok(())
}

fn milliseconds(pass: impl FnOnce()) -> f64 {
    let start = Instant::now();
    pass();
    start.elapsed().as_secs_f64() * 1e3
}

/// Numbers in `[-1, 1)`.
fn numbers(len: usize) -> Vec<f32> {
    (0..len as u32)
        .map(|i| (i.wrapping_mul(0x9e37_79b9) >> 8) as f32 / (1_u32 << 23) as f32 - 1.0)
        .collect()
}
