//! Top-k accuracy.

use super::Logits;

/// The share of images whose target is among the `k` largest logits, in `[0, 1]`; 0 where there are no images.
///
/// Of equal logits the lowest class comes first, so that `k = 1` is [`super::Accuracy`]'s. A logit that is not a number is
/// among none.
///
/// # Source
/// `torchvision`'s reference `accuracy(output, target, topk)`, proved by `tests/golden/calibration.safetensors`.
pub fn top_k_accuracy(logits: &Logits, k: usize) -> f64 {
    let among = |(row, target): (&[f32], u32)| {
        let target = target as usize;
        let own = row[target];
        let before = |(class, v): (usize, &f32)| *v > own || (*v == own && class < target);
        !own.is_nan() && row.iter().enumerate().filter(|entry| before(*entry)).count() < k
    };
    let count = logits.rows().filter(|row| among(*row)).count();
    count as f64 / logits.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};

    use super::*;

    #[test]
    fn ties_go_to_the_lowest_class() {
        let mut logits = Logits::new(3);
        let rows = Tensor::new(&[[1f32, 3.0, 3.0], [f32::NAN, 0.0, 0.0]], &Device::Cpu).unwrap();
        logits.add(&rows, &[2, 0], &[0, 1]).unwrap();
        let at = |k| top_k_accuracy(&logits, k);
        assert_eq!([at(1), at(2), at(3)], [0.0, 0.5, 0.5]);
        assert_eq!(top_k_accuracy(&Logits::new(3), 1), 0.0);
    }
}
