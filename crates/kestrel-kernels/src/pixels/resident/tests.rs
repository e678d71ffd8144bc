//! Batches of resident images against [`RgbToPlanes`], and refusals.

use super::*;
use crate::pixels::Window;

const SIZE: (usize, usize) = (5, 7);

fn planes() -> RgbToPlanes {
    RgbToPlanes::new([0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010])
}

fn pixels(images: usize) -> Vec<u8> {
    let bytes = 0..(images * SIZE.0 * SIZE.1 * CHANNELS) as u32;
    bytes.map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

fn whole(image: usize) -> Placement {
    Placement {
        image,
        rows: (0..SIZE.0 as u16).collect(),
        columns: (0..SIZE.1 as u16).collect(),
        erased: None,
    }
}

/// A batch that has all there is: plain, mirrored, shifted out of the image, mirrored at the edge, in two colours, erased.
fn placements() -> ((usize, usize), Vec<Placement>) {
    let (first, second) = (FIRST_FILL, FIRST_FILL + 1);
    let placements = vec![
        Placement {
            rows: vec![0, 1, 2, 3],
            columns: vec![0, 1, 2, 3, 4, 5],
            ..whole(0)
        },
        Placement {
            rows: vec![first, first, 0, 1],
            columns: vec![5, 4, 3, 2, 1, 0],
            ..whole(2)
        },
        Placement {
            rows: vec![2, 1, 0, 1],
            columns: vec![second, first, 0, 1, 6, second],
            erased: Some(Erasure {
                top: 1,
                left: 2,
                height: 2,
                width: 3,
                values: [1.5, -2.5, 0.25],
            }),
            ..whole(1)
        },
    ];
    ((4, 6), placements)
}

fn resident(device: &Device) -> ResidentImages {
    ResidentImages::new(pixels(3), SIZE, &planes(), &[[0, 0, 0], [9, 200, 255]], device).unwrap()
}

fn bits(batch: &Tensor) -> Vec<u32> {
    let values = batch.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    values.into_iter().map(f32::to_bits).collect()
}

/// By the formula, an element at a time.
fn reference(size: (usize, usize), placements: &[Placement]) -> Vec<u32> {
    let (planes, pixels) = (planes(), pixels(3));
    let colours = [[0, 0, 0], [9, 200, 255]];
    let mut out = Vec::new();
    for placement in placements {
        for channel in 0..CHANNELS {
            for y in 0..size.0 {
                for x in 0..size.1 {
                    let (row, column) = (placement.rows[y], placement.columns[x]);
                    let pixel = if row >= FIRST_FILL || column >= FIRST_FILL {
                        colours[usize::from(row.max(column) - FIRST_FILL)][channel]
                    } else {
                        let at = (placement.image * SIZE.0 + usize::from(row)) * SIZE.1 + usize::from(column);
                        pixels[at * CHANNELS + channel]
                    };
                    let erased = placement.erased.filter(|part| {
                        (part.top..part.top + part.height).contains(&y)
                            && (part.left..part.left + part.width).contains(&x)
                    });
                    let value = planes.table(channel)[usize::from(pixel)];
                    out.push(erased.map_or(value, |part| part.values[channel]).to_bits());
                }
            }
        }
    }
    out
}

#[test]
fn a_batch_is_the_formula() {
    let (size, placements) = placements();
    let batch = resident(&Device::Cpu).batch(size, &placements).unwrap();
    assert_eq!(batch.dims(), [3, 3, 4, 6]);
    assert_eq!(bits(&batch), reference(size, &placements));
}

#[test]
fn whole_images_are_what_the_host_writes() {
    let batch = resident(&Device::Cpu).batch(SIZE, &[whole(1)]).unwrap();
    let image = SIZE.0 * SIZE.1 * CHANNELS;
    let mut want = vec![0.0; image];
    let window = Window {
        pixels: &pixels(3)[image..2 * image],
        stride: SIZE.1 * CHANNELS,
        size: SIZE,
        start: (0, 0),
        visible: SIZE,
        flipped: false,
    };
    planes().write(window, &mut want).unwrap();
    assert_eq!(bits(&batch), want.into_iter().map(f32::to_bits).collect::<Vec<_>>());
}

#[test]
fn what_is_not_there_is_refused() {
    let images = resident(&Device::Cpu);
    let refused = |change: &dyn Fn(&mut Placement)| {
        let mut placement = whole(0);
        change(&mut placement);
        images.batch(SIZE, &[whole(0), placement]).unwrap_err().to_string()
    };
    let part = Erasure {
        top: 4,
        left: 0,
        height: 2,
        width: 1,
        values: [0.0; CHANNELS],
    };
    let row = "a row or a column must be one of the image, or a colour";
    for (error, want) in [
        (
            refused(&|p| p.image = 3),
            "image must be below the number of images, got 3",
        ),
        (refused(&|p| p.rows[4] = 5), row),
        (refused(&|p| p.columns[0] = FIRST_FILL + 2), row),
        (
            refused(&|p| p.rows.push(0)),
            "the number of rows must be the batch's, got 6",
        ),
        (refused(&|p| p.erased = Some(part)), "within the image"),
    ] {
        assert!(error.contains(want), "{error}");
    }
    assert!(images.batch(SIZE, &[]).is_err());
    let torn = ResidentImages::new(vec![0; 10], SIZE, &planes(), &[], &Device::Cpu);
    assert!(torn.unwrap_err().to_string().contains("N * h * w * 3, got 10"));
    let colours = vec![[0; CHANNELS]; MAX_FILLS + 1];
    assert!(ResidentImages::new(pixels(3), SIZE, &planes(), &colours, &Device::Cpu).is_err());
}

/// Every float is one of the table's, so the device's are the host's.
#[cfg(feature = "cuda")]
#[test]
fn cuda_batches_are_the_cpus_to_the_bit() -> Result<()> {
    let device = match crate::cuda::device(0) {
        Ok(device) => device,
        Err(error) if std::env::var_os("KESTREL_REQUIRE_CUDA").is_none() => {
            eprintln!("skipped: no CUDA device ({error})");
            return Ok(());
        }
        Err(error) => panic!("KESTREL_REQUIRE_CUDA is set, and there is no device: {error}"),
    };
    let (count, height, width) = (37, 13, 9);
    let bytes = 0..(count * height * width * 3) as u32;
    let pixels: Vec<u8> = bytes.map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let fills = [[0, 0, 0], [9, 200, 255]];
    // Odd and even numbers of rows and columns, more elements than one launch has threads, a batch of one.
    for (size, batch) in [((13, 9), 37), ((32, 31), 5000), ((1, 2), 1), ((40, 40), 3)] {
        let number = |place: usize, at: usize, side: usize| match (place * 31 + at * 7) % 11 {
            0 => FIRST_FILL,
            1 => FIRST_FILL + 1,
            _ => ((place * 13 + at * 5) % side) as u16,
        };
        let placements: Vec<Placement> = (0..batch)
            .map(|place| Placement {
                image: place * 17 % count,
                rows: (0..size.0).map(|at| number(place, at, height)).collect(),
                columns: (0..size.1).map(|at| number(place + 5, at, width)).collect(),
                erased: (place % 3 == 1).then(|| Erasure {
                    top: place % size.0,
                    left: place % size.1,
                    height: (size.0 - place % size.0).min(3),
                    width: (size.1 - place % size.1).min(4),
                    values: [1.5, -0.25, place as f32],
                }),
            })
            .collect();
        let make = |device: &Device| -> Result<Vec<u32>> {
            let images = ResidentImages::new(pixels.clone(), (height, width), &planes(), &fills, device)?;
            let batch = images.batch(size, &placements)?.flatten_all()?.to_vec1::<f32>()?;
            Ok(batch.into_iter().map(f32::to_bits).collect())
        };
        assert_eq!(make(&device)?, make(&Device::Cpu)?, "{size:?}");
    }
    Ok(())
}
