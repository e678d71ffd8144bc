//! A grid of images with what the model said and what they are.

use std::path::Path;

use candle_core::{DType, Device, Tensor};

use super::canvas::{Canvas, LINE_HEIGHT, written};
use crate::Result;

const COLUMNS: u32 = 4;
const TILE: u32 = 192;
const BORDER: u32 = 6;
const GAP: u32 = 16;
const RIGHT: [u8; 3] = [0x1a, 0x7f, 0x37];
const WRONG: [u8; 3] = [0xcf, 0x22, 0x2e];
const INK: [u8; 3] = [0x24, 0x29, 0x2f];

/// One image of the grid.
#[derive(Clone, Debug)]
pub struct Prediction {
    /// RGB bytes, row by row: `size * size * 3` of them.
    pub pixels: Vec<u8>,
    /// Side of the square image in pixels.
    pub size: usize,
    /// The predicted class's name.
    pub predicted: String,
    /// Its probability, in `[0, 1]`.
    pub probability: f32,
    /// The true class's name.
    pub target: String,
}

/// Turns a normalised batch back into bytes: `(x * std + mean) * 255`, rounded and clamped.
///
/// # Shapes
/// `images [N, 3, H, W]` → N vectors of `H * W * 3` bytes, row by row, RGB.
///
/// # Errors
/// Where the tensor has another shape.
pub fn denormalize(images: &Tensor, mean: [f32; 3], std: [f32; 3]) -> Result<Vec<Vec<u8>>> {
    let images = images
        .to_device(&Device::Cpu)?
        .to_dtype(DType::F32)?
        .permute((0, 2, 3, 1))?;
    let (n, ..) = images.dims4()?;
    (0..n)
        .map(|i| {
            let values = images.get(i)?.flatten_all()?.to_vec1::<f32>()?;
            let byte = |(j, v): (usize, f32)| ((v * std[j % 3] + mean[j % 3]) * 255.0).round().clamp(0.0, 255.0) as u8;
            Ok(values.into_iter().enumerate().map(byte).collect())
        })
        .collect()
}

/// Writes a PNG with four images a row. A green frame and title say right, a red one wrong.
///
/// Letters that the font lacks (it has those of Latin alphabets) are drawn as `?`. A name with such letters follows its number,
/// the place in `classes` counted from 0, so that the classes can be told apart: `#3 ??`.
///
/// # Errors
/// [`crate::Error::Picture`] or [`crate::Error::Write`].
pub fn save_prediction_grid(predictions: &[Prediction], classes: &[impl AsRef<str>], path: &Path) -> Result<()> {
    let classes: Vec<&str> = classes.iter().map(AsRef::as_ref).collect();
    draw(predictions, &classes).save(path)
}

fn draw(predictions: &[Prediction], classes: &[&str]) -> Canvas {
    let count = predictions.len() as u32;
    let columns = count.clamp(1, COLUMNS);
    let cell_width = TILE + 2 * BORDER + GAP;
    let cell_height = 2 * LINE_HEIGHT + TILE + 2 * BORDER + GAP;
    let mut canvas = Canvas::new(
        columns * cell_width + GAP,
        count.div_ceil(columns).max(1) * cell_height + GAP,
    );
    for (i, prediction) in predictions.iter().enumerate() {
        let (column, row) = (i as u32 % columns, i as u32 / columns);
        draw_cell(
            &mut canvas,
            GAP + column * cell_width,
            GAP + row * cell_height,
            prediction,
            classes,
        );
    }
    canvas
}

fn draw_cell(canvas: &mut Canvas, x: u32, y: u32, prediction: &Prediction, classes: &[&str]) {
    let frame = TILE + 2 * BORDER;
    let colour = if prediction.predicted == prediction.target {
        RIGHT
    } else {
        WRONG
    };
    let name = |name: &str| {
        let number = classes.iter().position(|class| *class == name);
        number.map_or_else(|| name.to_owned(), |number| written(number, name))
    };
    let title = format!(
        "Pred: {} {:.0}%",
        name(&prediction.predicted),
        100.0 * prediction.probability
    );
    canvas.line_of_text(x, y, frame, &title, colour);
    let truth = format!("True: {}", name(&prediction.target));
    canvas.line_of_text(x, y + LINE_HEIGHT, frame, &truth, INK);
    let top = y + 2 * LINE_HEIGHT;
    canvas.fill(x, top, frame, frame, colour);
    // Nearest neighbour: small images keep their pixels, and large ones are thinned out.
    for ty in 0..TILE {
        for tx in 0..TILE {
            let source = |t: u32| t as usize * prediction.size / TILE as usize;
            let at = (source(ty) * prediction.size + source(tx)) * 3;
            if let Some(&[r, g, b]) = prediction.pixels.get(at..at + 3) {
                canvas.fill(x + BORDER + tx, top + BORDER + ty, 1, 1, [r, g, b]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prediction(predicted: &str, target: &str) -> Prediction {
        Prediction {
            pixels: [10, 20, 30].repeat(4),
            size: 2,
            predicted: predicted.into(),
            probability: 0.5,
            target: target.into(),
        }
    }

    #[test]
    fn right_and_wrong_have_their_frames_and_pixels_their_colours() {
        let canvas = draw(&[prediction("cat", "cat"), prediction("cat", "dog")], &["cat", "dog"]);
        let top = GAP + 2 * LINE_HEIGHT;
        let cell = TILE + 2 * BORDER + GAP;
        assert_eq!(canvas.0.get_pixel(GAP, top).0, RIGHT);
        assert_eq!(canvas.0.get_pixel(GAP + cell, top).0, WRONG);
        assert_eq!(canvas.0.get_pixel(GAP + BORDER, top + BORDER).0, [10, 20, 30]);
        let inked = (0..2 * LINE_HEIGHT).any(|y| (0..TILE).any(|x| canvas.0.get_pixel(GAP + x, GAP + y).0 == INK));
        assert!(inked, "the title must be drawn");
    }

    #[test]
    fn eight_images_make_two_rows_of_four() {
        let canvas = draw(&vec![prediction("a", "b"); 8], &["a", "b"]);
        assert_eq!(canvas.0.width(), 4 * (TILE + 2 * BORDER + GAP) + GAP);
        assert_eq!(canvas.0.height(), 2 * (2 * LINE_HEIGHT + TILE + 2 * BORDER + GAP) + GAP);
    }

    #[test]
    fn classes_that_cannot_be_written_are_told_apart() {
        let classes = ["猫", "犬"];
        let [cat, dog] = classes.map(|class| draw(&[prediction(class, class)], &classes).0);
        assert!(cat != dog);
    }

    #[test]
    fn denormalize_inverts_normalisation() {
        let (mean, std) = ([0.5, 0.4, 0.3], [0.2, 0.3, 0.1]);
        let bytes: Vec<u8> = (0..2 * 3 * 4).map(|i| (i * 10) as u8).collect();
        let value = |i: usize, c: usize| (f32::from(bytes[i * 3 + c]) / 255.0 - mean[c]) / std[c];
        let planes: Vec<f32> = (0..3)
            .flat_map(|c| (0..8).map(move |i| (i, c)))
            .map(|(i, c)| value(i, c))
            .collect();
        let images = Tensor::from_vec(planes, (1, 3, 2, 4), &Device::Cpu).unwrap();
        assert_eq!(denormalize(&images, mean, std).unwrap(), [bytes]);
    }
}
