//! Patches of channels-last images: row `(n, p, q)` of the patch matrix holds the pixels under the kernel, `[R, R, C]`.

/// The images, and how a kernel moves over them.
#[derive(Clone, Copy)]
pub(super) struct Patches<'a> {
    x: &'a [f32],
    batch: usize,
    height: usize,
    width: usize,
    channels: usize,
    kernel: usize,
    padding: usize,
    out_height: usize,
    out_width: usize,
}

impl<'a> Patches<'a> {
    /// Patches of `r` by `r` pixels of `x` `[N, H, W, C]`.
    ///
    /// # Panics
    /// If a size but `n` is 0, the kernel is larger than the padded image, or `x` has another length.
    pub(super) fn new(x: &'a [f32], [n, h, w, c]: [usize; 4], r: usize, padding: usize) -> Self {
        assert!(h > 0 && w > 0 && c > 0 && r > 0, "expected sizes of at least 1");
        assert!(h.min(w) + 2 * padding >= r, "kernel larger than the padded image");
        assert_eq!(x.len(), n * h * w * c, "expected images [N, H, W, C]");
        Self {
            x,
            batch: n,
            height: h,
            width: w,
            channels: c,
            kernel: r,
            padding,
            out_height: h + 2 * padding - r + 1,
            out_width: w + 2 * padding - r + 1,
        }
    }

    /// Rows of the patch matrix.
    pub(super) fn count(&self) -> usize {
        self.batch * self.out_height * self.out_width
    }

    /// Elements of a patch.
    pub(super) fn depth(&self) -> usize {
        self.kernel * self.kernel * self.channels
    }

    /// Makes `buffer` the rows `first..first + rows` of the patch matrix.
    pub(super) fn gather(&self, first: usize, rows: usize, buffer: &mut Vec<f32>) {
        buffer.resize(rows * self.depth(), 0.0);
        let (mut q, mut p) = (first % self.out_width, first / self.out_width % self.out_height);
        let mut image = first / self.out_width / self.out_height;
        for patch in buffer.chunks_exact_mut(self.depth()) {
            for (r, row) in patch.chunks_exact_mut(self.kernel * self.channels).enumerate() {
                match (p + r).checked_sub(self.padding).filter(|row| *row < self.height) {
                    Some(y) => self.gather_row(image * self.height + y, q, row),
                    None => row.fill(0.0),
                }
            }
            q += 1;
            if q == self.out_width {
                (p, q) = (p + 1, 0);
            }
            if p == self.out_height {
                (image, p) = (image + 1, 0);
            }
        }
    }

    /// The part `[R, C]` of a patch that lies in row `y` of all images' rows.
    #[inline(always)]
    fn gather_row(&self, y: usize, q: usize, row: &mut [f32]) {
        let line = &self.x[y * self.width * self.channels..][..self.width * self.channels];
        // The row is line[q − padding .. q − padding + R] with zeros where that leaves the line.
        let before = self.padding.saturating_sub(q).min(self.kernel);
        let end = (self.width + self.padding)
            .saturating_sub(q)
            .min(self.kernel)
            .max(before);
        if (before, end) == (0, self.kernel) {
            let start = (q - self.padding) * self.channels;
            row.copy_from_slice(&line[start..start + row.len()]);
            return;
        }
        row.fill(0.0);
        if before < end {
            let start = (q + before - self.padding) * self.channels;
            let inside = &mut row[before * self.channels..end * self.channels];
            inside.copy_from_slice(&line[start..start + inside.len()]);
        }
    }
}
