//! Cross-entropy with every combination of its options.

use super::Golden;
use candle_core::{DType, Result};
use kestrel_kernels::{CrossEntropyConfig, cross_entropy, cross_entropy_with};

#[test]
fn cross_entropy_equals_pytorch() -> Result<()> {
    let golden = Golden::load("cross_entropy")?;
    let logits = golden.var("logits")?;
    let classes = golden.get("targets").to_dtype(DType::U32)?;
    let loss = cross_entropy(&logits, &classes)?;
    golden.check("loss", &loss)?;
    golden.check("dlogits", loss.backward()?.get(&logits).unwrap())?;

    for (kind, targets) in [("classes", &classes), ("probabilities", golden.get("probabilities"))] {
        for (weighted, class_weights) in [("plain", None), ("weighted", Some(golden.get("class_weights").clone()))] {
            for label_smoothing in [0.0, 0.1, 1.0] {
                let config = CrossEntropyConfig {
                    label_smoothing,
                    class_weights: class_weights.clone(),
                };
                let case = format!("{kind}.{weighted}.{label_smoothing:.1}");
                let loss = cross_entropy_with(&logits, targets, &config)?;
                golden.check(&format!("{case}.loss"), &loss)?;
                golden.check(&format!("{case}.dlogits"), loss.backward()?.get(&logits).unwrap())?;
            }
        }
    }
    Ok(())
}
