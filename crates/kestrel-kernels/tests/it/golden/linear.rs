//! The fully connected layer, by itself and fused with relu.

use super::{Golden, backward};
use candle_core::{Result, Var};
use kestrel_kernels::{linear, linear_relu};

#[test]
fn linear_equals_pytorch() -> Result<()> {
    let golden = Golden::load("linear")?;
    let cases = golden.cases();
    assert_eq!(cases.len(), 4);
    for case in cases {
        let name = |part: &str| format!("{case}.{part}");
        let (x, weight) = (golden.var(&name("x"))?, golden.var(&name("weight"))?);
        let bias = golden.0.get(&name("bias")).map(Var::from_tensor).transpose()?;
        let op = if case.starts_with("relu") { linear_relu } else { linear };
        let y = op(&x, &weight, bias.as_ref().map(Var::as_tensor))?;
        golden.check(&name("y"), &y)?;
        let grads = backward(&y, golden.get(&name("dy")))?;
        golden.check(&name("dx"), grads.get(&x).unwrap())?;
        golden.check(&name("dweight"), grads.get(&weight).unwrap())?;
        if let Some(bias) = bias {
            golden.check(&name("dbias"), grads.get(&bias).unwrap())?;
        }
    }
    Ok(())
}
