//! Focal loss: cross-entropy that counts less where the model is right already.

use candle_core::{CpuStorage, CustomOp1, D, DType, Device, Layout, Shape, Tensor};

use super::{ClassWeights, Loss, Targets};
use crate::Result;
use crate::optim::{Range, check};

/// The softmax focal loss.
///
/// ```text
/// p    = softmax(logits)
/// loss = − Σ_n Σ_c t[n, c] · w[c] · (1 − p[n, c])^gamma · log p[n, c] / N
/// ```
///
/// `t` is 1 for an image's class, or its probabilities; `w` are the class weights (the paper's alpha), 1 without. With
/// `gamma` 0 it is the sum of the weighted cross-entropies over N.
///
/// # Source
/// Lin et al. 2017, "Focal Loss for Dense Object Detection", equation 5, with a softmax for the sigmoid; the golden file
/// `focal_loss` compares value and gradient with the same lines in PyTorch.
#[derive(Clone, Debug)]
pub struct FocalLoss {
    gamma: f64,
    class_weights: Option<ClassWeights>,
}

impl FocalLoss {
    /// `gamma` is 0 or more; the paper's is 2.
    ///
    /// # Errors
    /// [`crate::Error::InvalidConfig`] for values outside of their ranges.
    pub fn new(gamma: f64, class_weights: Option<Vec<f64>>) -> Result<Self> {
        check(&[("gamma", gamma, Range::NotNegative)])?;
        Ok(Self {
            gamma,
            class_weights: class_weights.map(ClassWeights::new).transpose()?,
        })
    }
}

impl Loss for FocalLoss {
    fn forward(&self, logits: &Tensor, targets: Targets<'_>) -> Result<Tensor> {
        if let Some(weights) = &self.class_weights {
            weights.check(logits)?;
        }
        // The logits are few: they come to the host from any device, and the loss goes back.
        let host_logits = logits.to_device(&Device::Cpu)?;
        let host_targets = targets.tensor().to_device(&Device::Cpu)?;
        // Also checks shapes, types and the range of the classes; the last on the host alone.
        kestrel_kernels::cross_entropy(&host_logits.detach(), &host_targets)?;
        let num_classes = logits.dim(D::Minus1)?;
        let shares = match targets {
            Targets::Soft(_) => host_targets.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?,
            Targets::Classes(_) => {
                let classes = host_targets.to_vec1::<u32>()?;
                let mut shares = vec![0.0; classes.len() * num_classes];
                for (row, class) in shares.chunks_mut(num_classes).zip(classes) {
                    row[class as usize] = 1.0;
                }
                shares
            }
        };
        let weighted = shares.into_iter().enumerate().map(|(i, share): (usize, f64)| {
            let weight = self.class_weights.as_ref().map_or(1.0, |w| w.0[i % num_classes]);
            share * weight
        });
        let op = Focal {
            gamma: self.gamma,
            shares: weighted.collect(),
            num_classes,
        };
        let loss = host_logits.contiguous()?.apply_op1(op)?;
        Ok(loss.to_device(logits.device())?)
    }
}

/// The op that candle's autograd records. Every sum is kept in `f64`.
struct Focal {
    gamma: f64,
    /// `t w`, `[N, C]`.
    shares: Vec<f64>,
    num_classes: usize,
}

impl Focal {
    fn rows<'a>(&'a self, logits: &'a [f64]) -> impl Iterator<Item = (Vec<f64>, &'a [f64])> {
        let rows = logits.chunks(self.num_classes).map(log_softmax);
        rows.zip(self.shares.chunks(self.num_classes))
    }

    fn value(&self, logits: &[f64]) -> f64 {
        let term = |(log_p, share): (&f64, &f64)| {
            if *share == 0.0 {
                0.0
            } else {
                -share * (-log_p.exp_m1()).powf(self.gamma) * log_p
            }
        };
        let sum: f64 = self
            .rows(logits)
            .map(|(log_p, share)| log_p.iter().zip(share).map(term).sum::<f64>())
            .sum();
        sum / (logits.len() / self.num_classes) as f64
    }

    fn gradient(&self, logits: &[f64], grad: f64) -> Vec<f64> {
        let scale = grad / (logits.len() / self.num_classes) as f64;
        let mut gradient = Vec::with_capacity(logits.len());
        for (log_p, share) in self.rows(logits) {
            // Of the loss by each log-probability.
            let by_log: Vec<f64> = log_p
                .iter()
                .zip(share)
                .map(|(l, share)| self.by_log_probability(*l, *share))
                .collect();
            let total: f64 = by_log.iter().sum();
            gradient.extend(log_p.iter().zip(by_log).map(|(l, own)| scale * (own - l.exp() * total)));
        }
        gradient
    }

    fn by_log_probability(&self, log_p: f64, share: f64) -> f64 {
        if share == 0.0 {
            return 0.0;
        }
        let (p, rest) = (log_p.exp(), -log_p.exp_m1());
        // (1 − p)^(gamma − 1) log p is infinite at p = 1 for a gamma below 1; log p / (1 − p) goes to −1 there.
        let quotient = if rest > 0.0 { log_p / rest } else { -1.0 };
        -share * rest.powf(self.gamma) * (1.0 - self.gamma * p * quotient)
    }
}

fn log_softmax(row: &[f64]) -> Vec<f64> {
    let max = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let log_sum = row.iter().map(|v| (v - max).exp()).sum::<f64>().ln();
    row.iter().map(|v| v - max - log_sum).collect()
}

fn widen(storage: &CpuStorage, layout: &Layout) -> candle_core::Result<Vec<f64>> {
    let (start, end) = layout
        .contiguous_offsets()
        .ok_or_else(|| candle_core::Error::RequiresContiguous { op: "focal loss" }.bt())?;
    match storage {
        CpuStorage::F32(data) => Ok(data[start..end].iter().map(|v| f64::from(*v)).collect()),
        CpuStorage::F64(data) => Ok(data[start..end].to_vec()),
        _ => candle_core::bail!("focal loss: the logits are neither f32 nor f64"),
    }
}

impl CustomOp1 for Focal {
    fn name(&self) -> &'static str {
        "focal loss"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let value = self.value(&widen(storage, layout)?);
        let value = match storage {
            CpuStorage::F32(_) => CpuStorage::F32(vec![value as f32]),
            _ => CpuStorage::F64(vec![value]),
        };
        Ok((value, Shape::from(())))
    }

    fn bwd(&self, logits: &Tensor, _loss: &Tensor, grad: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let grad = grad.to_dtype(DType::F64)?.to_scalar::<f64>()?;
        let values = logits.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
        let gradient = Tensor::from_vec(self.gradient(&values, grad), logits.shape(), &Device::Cpu)?;
        Ok(Some(gradient.to_dtype(logits.dtype())?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Var;

    /// The gradient against finite differences in `f64`.
    #[test]
    fn gradient_is_the_slope() {
        let values: Vec<f64> = (0..12).map(|i| (f64::from(i) * 1.3).sin() * 3.0).collect();
        let soft = Tensor::from_vec(
            (0..12).map(|i| f64::from(i % 5) * 0.2).collect::<Vec<_>>(),
            (3, 4),
            &Device::Cpu,
        )
        .unwrap();
        let classes = Tensor::new(&[3u32, 0, 1], &Device::Cpu).unwrap();
        for (gamma, targets) in [
            (2.0, Targets::Classes(&classes)),
            (0.5, Targets::Classes(&classes)),
            (0.0, Targets::Soft(&soft)),
            (1.5, Targets::Soft(&soft)),
        ] {
            let loss = FocalLoss::new(gamma, Some(vec![1.0, 0.5, 2.0, 0.25])).unwrap();
            let at = |values: &[f64]| Var::from_slice(values, (3, 4), &Device::Cpu).unwrap();
            let value = |values: &[f64]| loss.forward(&at(values), targets).unwrap().to_scalar::<f64>().unwrap();
            let logits = at(&values);
            let grads = loss.forward(&logits, targets).unwrap().backward().unwrap();
            let got = grads
                .get(&logits)
                .unwrap()
                .flatten_all()
                .unwrap()
                .to_vec1::<f64>()
                .unwrap();
            for i in 0..12 {
                let mut moved = values.clone();
                moved[i] += 1e-6;
                let above = value(&moved);
                moved[i] -= 2e-6;
                let slope = (above - value(&moved)) / 2e-6;
                assert!(
                    (slope - got[i]).abs() < 1e-8,
                    "gamma {gamma}, logit {i}: {slope} {}",
                    got[i]
                );
            }
        }
    }

    #[test]
    fn a_sure_and_right_answer_makes_no_nan() {
        let logits = Var::new(&[[200f32, -200.0]], &Device::Cpu).unwrap();
        for class in [0u32, 1] {
            for gamma in [0.0, 0.5, 2.0] {
                let target = Tensor::new(&[class], &Device::Cpu).unwrap();
                let loss = FocalLoss::new(gamma, None)
                    .unwrap()
                    .forward(&logits, Targets::Classes(&target))
                    .unwrap();
                let grads = loss.backward().unwrap();
                let grad = grads.get(&logits).unwrap().to_vec2::<f32>().unwrap();
                assert!(loss.to_scalar::<f32>().unwrap().is_finite() && grad[0].iter().all(|g| g.is_finite()));
            }
        }
    }
}
