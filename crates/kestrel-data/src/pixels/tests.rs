//! The window against copies made pixel by pixel.

use proptest::prelude::*;

use super::*;

/// A plain image that copies at each step.
#[derive(Clone, Debug)]
struct Plain {
    pixels: Vec<[u8; 3]>,
    height: usize,
    width: usize,
}

impl Plain {
    fn map(&self, height: usize, width: usize, at: impl Fn(usize, usize) -> Option<(usize, usize)>) -> Self {
        let get = |(y, x): (usize, usize)| self.pixels[y * self.width + x];
        let pixels = (0..height * width)
            .map(|i| at(i / width, i % width).map_or([0; 3], get))
            .collect();
        Self { pixels, height, width }
    }

    fn step(&self, step: Step) -> Self {
        let (h, w) = (self.height, self.width);
        match step {
            Step::Flip => self.map(h, w, |y, x| Some((y, w - 1 - x))),
            Step::Pad(p) => self.map(h + 2 * p, w + 2 * p, |y, x| {
                ((p..p + h).contains(&y) && (p..p + w).contains(&x)).then(|| (y - p, x - p))
            }),
            Step::Crop(top, left, height, width) => {
                let (height, width) = (1 + height % h, 1 + width % w);
                let (top, left) = (top % (h - height + 1), left % (w - width + 1));
                self.map(height, width, |y, x| Some((y + top, x + left)))
            }
            Step::Change => {
                let pixels = self.pixels.iter().map(|pixel| pixel.map(|v| 255 - v)).collect();
                Self { pixels, ..*self }
            }
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Flip,
    Pad(usize),
    Crop(usize, usize, usize, usize),
    Change,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        Just(Step::Flip),
        (0usize..5).prop_map(Step::Pad),
        (0usize..64, 0usize..64, 0usize..64, 0usize..64).prop_map(|(a, b, c, d)| Step::Crop(a, b, c, d)),
        Just(Step::Change),
    ];
    proptest::collection::vec(step, 0..7)
}

fn apply(image: &mut Image<'_>, step: Step) {
    match step {
        Step::Flip => image.hflip(),
        Step::Pad(p) => image.pad(p),
        Step::Crop(top, left, height, width) => {
            let (height, width) = (1 + height % image.height(), 1 + width % image.width());
            let (top, left) = (top % (image.height() - height + 1), left % (image.width() - width + 1));
            image.crop(top, left, height, width).unwrap();
        }
        Step::Change => image.pixels_mut().iter_mut().for_each(|v| *v = 255 - *v),
    }
}

proptest! {
    #[test]
    fn window_equals_copies(height in 1usize..9, width in 1usize..9, steps in steps()) {
        let bytes: Vec<u8> = (0..height * width * 3).map(|i| (i % 251) as u8 + 1).collect();
        let pixels = bytes.as_chunks::<3>().0.to_vec();
        let mut plain = Plain { pixels, height, width };
        let mut image = Image::new(bytes.as_slice(), height, width).unwrap();
        for step in steps {
            plain = plain.step(step);
            apply(&mut image, step);
            prop_assert_eq!((image.height(), image.width()), (plain.height, plain.width));
            prop_assert_eq!(image.pixels().into_owned(), plain.pixels.as_flattened());
        }
        let seen = image.pixels().into_owned();
        let mut owned = image.into_owned();
        prop_assert_eq!(seen, owned.pixels_mut());
    }
}

#[test]
fn whole_image_is_borrowed() {
    let bytes = [1, 2, 3];
    let mut image = Image::new(bytes.as_slice(), 1, 1).unwrap();
    assert!(matches!(image.pixels(), Cow::Borrowed(_)));
    image.pixels_mut()[0] = 9;
    assert_eq!(bytes[0], 1);
    assert_eq!(image.pixels()[0], 9);
}

#[test]
fn faults_are_named() {
    assert!(matches!(
        Image::new(vec![0; 5], 1, 2),
        Err(Error::PixelCount {
            expected: 6,
            got: 5,
            ..
        })
    ));
    let mut image = Image::new(vec![0; 12], 2, 2).unwrap();
    for (top, left, height, width) in [(1, 0, 2, 2), (0, 1, 2, 2), (0, 0, 3, 1), (usize::MAX, 0, 2, 1)] {
        assert!(matches!(
            image.crop(top, left, height, width),
            Err(Error::CropTooLarge { .. })
        ));
    }
}
