//! Filters that whiten the patches of images: their outputs are uncorrelated and of about unit size.

use candle_core::{DType, Device, Tensor};

use super::symmetric_eigen::SymmetricEigen;
use crate::{Error, Result};

/// Added to each eigenvalue, so that a direction in which patches hardly differ is not blown up to noise.
const EPS: f64 = 5e-4;

/// For each eigenvector `v` of the patches' second moments, with eigenvalue `λ`, the filter `v / √(λ + 5e-4)`, by falling `λ`;
/// then the negatives of all.
///
/// ```text
/// moments = Σ p pᵀ / number of patches,  p [3 · patch²], at every place of every image
/// ```
///
/// Sums run in `f64` and in one order, and an eigenvector's largest component is positive: the filters are a function of the
/// images.
///
/// # Shapes
/// `images` `[N, 3, H, W]` → `[6 · patch², 3, patch, patch]`, `f64`.
///
/// # Errors
/// [`Error::InputShape`] where there is no patch.
pub(super) fn filters(images: &Tensor, patch: usize) -> Result<Tensor> {
    let (n, channels, height, width) = images.dims4()?;
    let size = channels * patch * patch;
    if n == 0 || height < patch || width < patch {
        return Err(Error::InputShape {
            expected: format!("[N, {channels}, H, W] with at least one image of at least {patch}x{patch} pixels"),
            got: images.dims().to_vec(),
        });
    }
    let mut moments = vec![0.0; size * size];
    let mut pixels = vec![0.0; size];
    for image in 0..n {
        let planes = images.get(image)?.to_device(&Device::Cpu)?.to_dtype(DType::F64)?;
        let planes = planes.flatten_all()?.to_vec1::<f64>()?;
        let mut of_image = vec![0.0; size * size];
        for top in 0..=height - patch {
            for left in 0..=width - patch {
                for (i, pixel) in pixels.iter_mut().enumerate() {
                    let (channel, row, column) = (i / (patch * patch), i / patch % patch, i % patch);
                    *pixel = planes[(channel * height + top + row) * width + left + column];
                }
                for (sums, a) in of_image.chunks_exact_mut(size).zip(&pixels) {
                    for (sum, b) in sums.iter_mut().zip(&pixels) {
                        *sum += a * b;
                    }
                }
            }
        }
        moments.iter_mut().zip(of_image).for_each(|(sum, term)| *sum += term);
    }
    let patches = (n * (height - patch + 1) * (width - patch + 1)) as f64;
    moments.iter_mut().for_each(|sum| *sum /= patches);

    let mut filters = Vec::with_capacity(2 * size * size);
    for (value, mut vector) in SymmetricEigen::new(moments, size).by_falling_value() {
        let largest = vector
            .iter()
            .fold(0.0, |max: f64, v| if v.abs() > max.abs() { *v } else { max });
        let scale = largest.signum() / (value.max(0.0) + EPS).sqrt();
        vector.iter_mut().for_each(|v| *v *= scale);
        filters.extend(vector);
    }
    let negatives: Vec<f64> = filters.iter().map(|v| -v).collect();
    filters.extend(negatives);
    let shape = (2 * size, channels, patch, patch);
    Ok(Tensor::from_vec(filters, shape, &Device::Cpu)?)
}
