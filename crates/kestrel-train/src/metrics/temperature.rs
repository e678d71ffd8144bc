//! Temperature scaling: one number that makes a model's probabilities honest, and changes no prediction.

use super::Logits;

/// The temperatures that are looked at. Where every image is right the likelihood rises for ever as the temperature falls, and
/// where the logits say nothing as it rises; nobody is served by such probabilities.
pub const RANGE: (f64, f64) = (0.1, 10.0);

/// Steps at most; halving alone comes to the last bit in as many.
const MAX_STEPS: usize = 60;
/// The relative change of the inverse temperature at which the search ends.
const TOLERANCE: f64 = 1e-10;

/// The temperature `T` in [`RANGE`] that minimises the mean cross-entropy of `softmax(logits / T)`, to be fitted on images that
/// the model was not trained on; `None` where there are no images, or a logit is not finite.
///
/// The loss is convex in `b = 1 / T`: with `p = softmax(b z)`, its slope is the mean of `E_p[z] - z_target` and its curvature
/// the mean of `Var_p[z]`. Newton's steps find where the slope is 0; one that leaves the bracket is replaced by halving it.
///
/// # Source
/// Guo et al. 2017, On Calibration of Modern Neural Networks, section 4.2; proved by `tests/golden/calibration.safetensors`.
pub fn fit_temperature(logits: &Logits) -> Option<f64> {
    if logits.is_empty() || logits.rows().any(|(row, _)| row.iter().any(|v| !v.is_finite())) {
        return None;
    }
    let (mut low, mut high) = (1.0 / RANGE.1, 1.0 / RANGE.0);
    let slope = |inverse| slope_and_curvature(logits, inverse).0;
    match (slope(low), slope(high)) {
        // Logits that say nothing are as good at any temperature.
        (0.0, 0.0) => return Some(1.0),
        (rising, _) if rising >= 0.0 => return Some(RANGE.1),
        (_, falling) if falling <= 0.0 => return Some(RANGE.0),
        _ => {}
    }
    let mut inverse = 1.0;
    for _ in 0..MAX_STEPS {
        let (slope, curvature) = slope_and_curvature(logits, inverse);
        if slope > 0.0 {
            high = inverse;
        } else {
            low = inverse;
        }
        let newton = inverse - slope / curvature;
        let next = if newton > low && newton < high {
            newton
        } else {
            0.5 * (low + high)
        };
        let moved = (next - inverse).abs();
        inverse = next;
        if moved <= TOLERANCE * inverse {
            break;
        }
    }
    Some(1.0 / inverse)
}

/// The first and second derivative of the mean cross-entropy by the inverse temperature.
fn slope_and_curvature(logits: &Logits, inverse: f64) -> (f64, f64) {
    let (mut slope, mut curvature) = (0.0, 0.0);
    for (row, target) in logits.rows() {
        let top = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let (mut sum, mut first, mut second) = (0.0, 0.0, 0.0);
        for v in row {
            // From the largest: nothing overflows, and the moments lose no digits.
            let z = f64::from(*v) - f64::from(top);
            let weight = (inverse * z).exp();
            sum += weight;
            first += weight * z;
            second += weight * z * z;
        }
        let mean = first / sum;
        slope += mean - (f64::from(row[target as usize]) - f64::from(top));
        curvature += second / sum - mean * mean;
    }
    let images = logits.len() as f64;
    (slope / images, curvature / images)
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};

    use super::*;

    fn of(rows: &[[f32; 2]], targets: &[u32]) -> Logits {
        let mut logits = Logits::new(2);
        let indices: Vec<usize> = (0..targets.len()).collect();
        let rows = Tensor::from_vec(rows.concat(), (rows.len(), 2), &Device::Cpu).unwrap();
        logits.add(&rows, targets, &indices).unwrap();
        logits
    }

    /// Three of four right, each with the same margin: the probability that is honest is 3/4, so `margin / T = ln 3`.
    #[test]
    fn the_temperature_makes_the_confidence_the_accuracy() {
        for margin in [0.5f32, 1.0, 4.0, 8.0] {
            let logits = of(&[[margin, 0.0]; 4], &[0, 0, 0, 1]);
            let temperature = fit_temperature(&logits).unwrap();
            let want = f64::from(margin) / 3f64.ln();
            assert!((temperature / want - 1.0).abs() < 1e-9, "{temperature} {want}");
            let predicted = logits.predictions(temperature).next().unwrap();
            assert!((predicted.confidence - 0.75).abs() < 1e-9);
        }
    }

    #[test]
    fn a_search_without_an_end_ends_at_the_range() {
        assert_eq!(fit_temperature(&of(&[[9.0, 0.0]; 3], &[0; 3])), Some(RANGE.0));
        assert_eq!(fit_temperature(&of(&[[9.0, 0.0]; 3], &[1; 3])), Some(RANGE.1));
        assert_eq!(fit_temperature(&of(&[[0.0, 0.0]; 3], &[1; 3])), Some(1.0));
    }

    #[test]
    fn no_images_and_no_numbers_give_no_temperature() {
        assert_eq!(fit_temperature(&Logits::new(2)), None);
        assert_eq!(fit_temperature(&of(&[[f32::NAN, 0.0]], &[0])), None);
        assert_eq!(fit_temperature(&of(&[[f32::INFINITY, 0.0]], &[0])), None);
    }

    #[test]
    fn huge_logits_do_not_overflow() {
        let logits = of(&[[3e38, -3e38], [3e38, -3e38]], &[0, 1]);
        assert_eq!(fit_temperature(&logits), Some(RANGE.1));
    }
}
