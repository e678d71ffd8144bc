//! Five steps of SGD with each of its options.

use super::Golden;
use candle_core::Result;
use kestrel_kernels::{SgdConfig, sgd_step};

#[test]
fn five_steps_of_sgd_equal_pytorch() -> Result<()> {
    let golden = Golden::load("sgd")?;
    let config = |momentum, dampening, weight_decay, nesterov| SgdConfig {
        lr: 0.1,
        momentum,
        dampening,
        weight_decay,
        nesterov,
    };
    let cases = [
        ("plain", config(0.0, 0.0, 0.0, false)),
        ("decay", config(0.0, 0.0, 0.05, false)),
        ("momentum", config(0.9, 0.0, 0.05, false)),
        ("dampening", config(0.8, 0.3, 0.0, false)),
        ("nesterov", config(0.9, 0.0, 0.05, true)),
    ];
    assert_eq!(golden.cases().len(), cases.len());
    for (case, config) in cases {
        let name = |part: &str| format!("{case}.{part}");
        let param = golden.var(&name("param"))?;
        let has_momentum = config.momentum != 0.0;
        let buffer = param.zeros_like()?;
        let (grads, params) = (golden.get(&name("grads")), golden.get(&name("y")));
        assert_eq!(grads.dim(0)?, 5);
        for step in 0..5 {
            let buffer = has_momentum.then_some(&buffer);
            sgd_step(&param, &grads.get(step)?, buffer, step as u64 + 1, &config)?;
            let error = (param.as_tensor() - &params.get(step)?)?
                .abs()?
                .max_all()?
                .to_scalar::<f32>()?;
            assert!(error <= 1e-6, "{case}, step {step}: {error}");
        }
        if has_momentum {
            golden.check(&name("momentum_buffer"), &buffer)?;
        }
    }
    Ok(())
}
