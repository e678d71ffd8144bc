//! Sizes of a convolution, checked once so that no later arithmetic on them can overflow.

use crate::conv2d::Conv2dConfig;

/// Sizes of a convolution: input `[N, H, W, C]`, output `[N, P, Q, K]`, weight `[K, C, R, S]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    input: [usize; 4],
    k: usize,
    kernel: [usize; 2],
    output: [usize; 2],
    stride: usize,
    padding: usize,
    dilation: usize,
}

/// Sizes for which there is no such convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ShapeError {
    /// The channels are cut into groups.
    #[error("expected one group, got {got}")]
    Groups {
        /// The groups given.
        got: usize,
    },
    /// A size, the stride or the dilation is zero; only the batch may be.
    #[error("expected sizes, stride and dilation of at least 1, got {sizes:?}")]
    Zero {
        /// `[H, W, C, K, R, S, stride, dilation]`.
        sizes: [usize; 8],
    },
    /// The padded image is smaller than the kernel with its dilation.
    #[error("expected a padded image of at least {kernel:?}, got {image:?}")]
    KernelTooLarge {
        /// Rows and columns that the kernel spans.
        kernel: [usize; 2],
        /// Rows and columns of the padded image.
        image: [usize; 2],
    },
    /// A tensor or a buffer would not fit the address space.
    #[error(
        "expected sizes whose product fits the address space, got input {input:?}, {k} output channels, kernel {kernel:?}"
    )]
    TooLarge {
        /// `[N, H, W, C]`.
        input: [usize; 4],
        /// Output channels.
        k: usize,
        /// `[R, S]`.
        kernel: [usize; 2],
    },
}

impl Shape {
    /// The shape for input `[n, h, w, c]`, `k` output channels and kernel `[r, s]`.
    ///
    /// # Errors
    /// - [`ShapeError::Groups`] if there is more than one group (or none).
    /// - [`ShapeError::Zero`] if a size other than `n`, the stride or the dilation is 0.
    /// - [`ShapeError::TooLarge`] if the tensors cannot be addressed.
    /// - [`ShapeError::KernelTooLarge`] if the padded image is smaller than the kernel with its dilation.
    pub fn new(input: [usize; 4], k: usize, kernel: [usize; 2], config: &Conv2dConfig) -> Result<Self, ShapeError> {
        let [n, h, w, c] = input;
        let &Conv2dConfig {
            stride,
            padding,
            dilation,
            groups,
        } = config;
        if groups != 1 {
            return Err(ShapeError::Groups { got: groups });
        }
        let sizes = [h, w, c, k, kernel[0], kernel[1], stride, dilation];
        if sizes.contains(&0) {
            return Err(ShapeError::Zero { sizes });
        }
        let too_large = ShapeError::TooLarge { input, k, kernel };
        let image = [h, w].map(|size| size.saturating_add(padding.saturating_mul(2)));
        let extent = kernel.map(|size| dilation.saturating_mul(size - 1).saturating_add(1));
        // Channels round up to two vectors at most; the rest is room for offsets between elements of one tensor.
        let [c_padded, k_padded] = [c, k].map(|channels| channels.saturating_add(64));
        let [taps_down, taps_across] = kernel;
        let fits = |sizes: &[usize]| {
            let bytes = sizes
                .iter()
                .try_fold(64_usize, |product, &size| product.checked_mul(size));
            bytes.is_some_and(|bytes| bytes <= isize::MAX as usize)
        };
        let images = n.max(1);
        if !(fits(&[images, image[0], image[1], c_padded])
            && fits(&[images, image[0], image[1], k_padded])
            && fits(&[taps_down, taps_across, c_padded, k_padded])
            && fits(&[extent[0], extent[1]])
            && fits(&[stride]))
        {
            return Err(too_large);
        }
        if image[0] < extent[0] || image[1] < extent[1] {
            return Err(ShapeError::KernelTooLarge { kernel: extent, image });
        }
        Ok(Self {
            input,
            k,
            kernel,
            output: [0, 1].map(|axis| (image[axis] - extent[axis]) / stride + 1),
            stride,
            padding,
            dilation,
        })
    }

    /// `[N, H, W, C]`.
    pub fn input(&self) -> [usize; 4] {
        self.input
    }

    /// `[N, P, Q, K]`.
    pub fn output(&self) -> [usize; 4] {
        [self.input[0], self.output[0], self.output[1], self.k]
    }

    /// `[K, C, R, S]`.
    pub fn weight(&self) -> [usize; 4] {
        [self.k, self.input[3], self.kernel[0], self.kernel[1]]
    }

    /// Distance between neighbouring windows.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// Rows and columns of zeros on each side of the image.
    pub fn padding(&self) -> usize {
        self.padding
    }

    /// Distance between neighbouring taps of the kernel.
    pub fn dilation(&self) -> usize {
        self.dilation
    }

    /// Floating-point operations of one pass, a multiplication and an addition counting as two.
    pub fn flops(&self) -> f64 {
        let product = |sizes: [usize; 4]| sizes.into_iter().map(|size| size as f64).product::<f64>();
        let [n, p, q, _] = self.output();
        2.0 * product(self.weight()) * product([n, p, q, 1])
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn config(stride: usize, padding: usize, dilation: usize) -> Conv2dConfig {
        Conv2dConfig {
            stride,
            padding,
            dilation,
            groups: 1,
        }
    }

    #[test]
    fn faults_are_told_apart() {
        let input = [1, 8, 8, 4];
        let groups = Conv2dConfig {
            groups: 2,
            ..Default::default()
        };
        assert_eq!(
            Shape::new(input, 4, [3, 3], &groups),
            Err(ShapeError::Groups { got: 2 })
        );
        for faulty in [config(0, 1, 1), config(1, 1, 0)] {
            let shape = Shape::new(input, 4, [3, 3], &faulty);
            assert!(matches!(shape, Err(ShapeError::Zero { .. })), "{shape:?}");
        }
        assert!(matches!(
            Shape::new([1, 8, 0, 4], 4, [3, 3], &config(1, 1, 1)),
            Err(ShapeError::Zero { .. })
        ));
        assert_eq!(
            Shape::new([1, 8, 3, 4], 4, [3, 3], &config(1, 0, 2)),
            Err(ShapeError::KernelTooLarge {
                kernel: [5, 5],
                image: [8, 3]
            })
        );
    }

    #[test]
    fn no_size_overflows() {
        const MAX: usize = usize::MAX;
        let one = config(1, 0, 1);
        let shapes = [
            Shape::new([MAX, 8, 8, 4], 4, [1, 1], &one),
            Shape::new([1, MAX, 8, 4], 4, [1, 1], &one),
            Shape::new([1, 8, 8, MAX], 4, [1, 1], &one),
            Shape::new([1, 8, 8, 4], MAX, [1, 1], &one),
            Shape::new([0, MAX, MAX, 4], 4, [1, 1], &one),
            Shape::new([1, 8, 8, 4], 4, [MAX, 3], &one),
            Shape::new([1, 8, 8, 4], 4, [3, 3], &config(1, MAX, 1)),
            Shape::new([1, 8, 8, 4], 4, [3, 3], &config(1, 0, MAX)),
            Shape::new([1, 8, 8, 4], 4, [3, 3], &config(MAX, 0, 1)),
        ];
        for shape in shapes {
            assert!(matches!(shape, Err(ShapeError::TooLarge { .. })), "{shape:?}");
        }
    }

    #[test]
    fn outputs_follow_pytorch() {
        let output = |h, r, config| {
            let shape = Shape::new([2, h, h, 3], 5, [r, r], &config).unwrap();
            shape.output()
        };
        assert_eq!(output(224, 7, config(2, 3, 1)), [2, 112, 112, 5]);
        assert_eq!(output(56, 1, config(2, 0, 1)), [2, 28, 28, 5]);
        assert_eq!(output(11, 3, config(3, 2, 2)), [2, 4, 4, 5]);
    }
}
