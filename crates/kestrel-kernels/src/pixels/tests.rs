//! Every instruction set against the formula, pixel by pixel, for awkward windows.

use super::*;

const CIFAR: ([f32; 3], [f32; 3]) = ([0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010]);
const IMAGENET: ([f32; 3], [f32; 3]) = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
const PLAIN: ([f32; 3], [f32; 3]) = ([0.0; 3], [1.0; 3]);

fn reference(window: Window<'_>, (mean, std): ([f32; 3], [f32; 3])) -> Vec<u32> {
    let (height, width) = window.size;
    let mut out = Vec::new();
    for channel in 0..3 {
        for y in 0..height {
            for x in 0..width {
                let row = y.checked_sub(window.start.0).filter(|&row| row < window.visible.0);
                let column = x
                    .checked_sub(window.start.1)
                    .filter(|&column| column < window.visible.1);
                let value = match (row, column) {
                    (Some(row), Some(column)) => {
                        let column = if window.flipped {
                            window.visible.1 - 1 - column
                        } else {
                            column
                        };
                        window.pixels[row * window.stride + 3 * column + channel]
                    }
                    _ => 0,
                };
                out.push(((f32::from(value) / 255.0 - mean[channel]) / std[channel]).to_bits());
            }
        }
    }
    out
}

#[test]
fn every_window_equals_the_formula_on_every_instruction_set() {
    let pixels: Vec<u8> = (0..3 * 40 * 50)
        .map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let isas: Vec<Isa> = Isa::ALL.into_iter().filter(|isa| isa.is_available()).collect();
    for isa in isas {
        for normalize in [CIFAR, IMAGENET, PLAIN] {
            let planes = RgbToPlanes::new(normalize.0, normalize.1);
            let isa = planes.is_exact(isa).then_some(isa);
            for columns in [0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 50] {
                for (rows, start, end) in [
                    (1, (0, 0), (0, 0)),
                    (3, (0, 2), (1, 0)),
                    (40, (2, 0), (0, 17)),
                    (0, (1, 1), (1, 1)),
                ] {
                    for flipped in [false, true] {
                        // The slice ends with the last visible pixel, so that a read past it would be noticed.
                        let (stride, offset) = (150, 3 * (50 - columns));
                        let end_byte = if rows == 0 {
                            offset
                        } else {
                            offset + (rows - 1) * stride + 3 * columns
                        };
                        let window = Window {
                            pixels: &pixels[offset..end_byte],
                            stride,
                            size: (start.0 + rows + end.0, start.1 + columns + end.1),
                            start,
                            visible: (rows, columns),
                            flipped,
                        };
                        let mut out = vec![MaybeUninit::new(f32::NAN); 3 * window.size.0 * window.size.1];
                        let got = planes.write_on(isa, window, &mut out).unwrap();
                        let got: Vec<u32> = got.iter().map(|value| value.to_bits()).collect();
                        assert!(got == reference(window, normalize), "{isa:?} {window:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn fused_sets_need_no_table() {
    for isa in [Isa::Avx2, Isa::Avx512, Isa::Neon]
        .into_iter()
        .filter(|isa| isa.is_available())
    {
        for (mean, std) in [CIFAR, IMAGENET, PLAIN] {
            assert!(RgbToPlanes::new(mean, std).is_exact(isa));
        }
    }
}

#[test]
fn a_reciprocal_that_is_no_float_falls_back_on_the_table() {
    // 1 / std overflows.
    let std = [1e-39; 3];
    let planes = RgbToPlanes::new([0.5; 3], std);
    assert_eq!(planes.isa(), None);
    let window = Window {
        pixels: &[9; 3],
        stride: 3,
        size: (1, 1),
        start: (0, 0),
        visible: (1, 1),
        flipped: false,
    };
    let mut out = [0.0; 3];
    planes.write(window, &mut out).unwrap();
    assert_eq!(out, [(9.0 / 255.0 - 0.5) / 1e-39_f32; 3]);
}

#[test]
fn windows_that_do_not_fit_are_refused() {
    let planes = RgbToPlanes::new([0.0; 3], [1.0; 3]);
    let good = Window {
        pixels: &[0; 24],
        stride: 12,
        size: (2, 4),
        start: (0, 0),
        visible: (2, 4),
        flipped: false,
    };
    let mut out = [0.0; 24];
    planes.write(good, &mut out).unwrap();
    for bad in [
        Window {
            pixels: &[0; 23],
            ..good
        },
        Window { stride: 13, ..good },
        Window {
            stride: usize::MAX,
            ..good
        },
        Window { start: (1, 0), ..good },
        Window { start: (0, 1), ..good },
        Window {
            start: (usize::MAX, 0),
            ..good
        },
        Window {
            visible: (2, usize::MAX),
            ..good
        },
    ] {
        assert!(planes.write(bad, &mut out).is_err(), "{bad:?}");
    }
    assert!(planes.write(good, &mut [0.0; 23]).is_err());
}

/// No column to see, and no byte given: the window is black, whatever its rows.
#[test]
fn a_window_without_columns_is_black() {
    for std in [1.0, 1e-39] {
        let planes = RgbToPlanes::new([0.5; 3], [std; 3]);
        assert_eq!(planes.isa().is_none(), std < 1e-3);
        for flipped in [false, true] {
            let window = Window {
                pixels: &[],
                stride: 12,
                size: (2, 4),
                start: (0, 0),
                visible: (2, 0),
                flipped,
            };
            let mut out = [0.0; 24];
            planes.write(window, &mut out).unwrap();
            assert_eq!(out, [-0.5 / std; 24]);
        }
    }
}
