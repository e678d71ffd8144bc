//! What of a picture is left after the transforms, told from sizes alone.

/// A rectangle of a picture, in its pixels; parts of pixels, and places outside of it, where there is padding.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct View {
    /// The first row.
    pub top: f64,
    /// The first column.
    pub left: f64,
    /// Rows of the picture.
    pub height: f64,
    /// Columns of the picture.
    pub width: f64,
    /// Height and width in pixels after the transforms so far.
    pub pixels: (usize, usize),
}

impl View {
    /// All of a picture of this size.
    pub fn all(height: usize, width: usize) -> Self {
        Self {
            top: 0.0,
            left: 0.0,
            height: height as f64,
            width: width as f64,
            pixels: (height, width),
        }
    }

    /// The same part of the picture in as many pixels.
    #[must_use]
    pub fn resized(self, height: usize, width: usize) -> Self {
        Self {
            pixels: (height, width),
            ..self
        }
    }

    /// `height` x `width` of the pixels from `top` and `left` on, which are negative in padding.
    #[must_use]
    pub fn cropped(self, (top, left): (isize, isize), height: usize, width: usize) -> Self {
        let row = self.height / self.pixels.0.max(1) as f64;
        let column = self.width / self.pixels.1.max(1) as f64;
        Self {
            top: self.top + row * top as f64,
            left: self.left + column * left as f64,
            height: row * height as f64,
            width: column * width as f64,
            pixels: (height, width),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::transforms::{CenterCrop, Compose, Resize};

    fn view(transforms: &Compose, height: usize, width: usize) -> [f64; 4] {
        let view = transforms.view(height, width);
        assert_eq!(view.pixels, (32, 32));
        [view.top, view.left, view.height, view.width]
    }

    #[test]
    fn the_middle_is_told_in_pixels_of_the_picture() {
        let middle = Compose::new().then(Resize::new(32)).then(CenterCrop::new(32));
        assert_eq!(view(&middle, 32, 32), [0.0, 0.0, 32.0, 32.0]);
        // Resized to 32x64, of which columns 16 to 48 are kept.
        assert_eq!(view(&middle, 320, 640), [0.0, 160.0, 320.0, 320.0]);
        assert_eq!(view(&middle, 16, 8), [4.0, 0.0, 8.0, 8.0]);
        let exact = Compose::new().then(Resize::exact(32, 32));
        assert_eq!(view(&exact, 10, 50), [0.0, 0.0, 10.0, 50.0]);
    }

    #[test]
    fn padding_lies_outside_of_the_picture() {
        let crop = Compose::new().then(CenterCrop::new(32));
        assert_eq!(view(&crop, 40, 30), [4.0, -1.0, 32.0, 32.0]);
    }
}
