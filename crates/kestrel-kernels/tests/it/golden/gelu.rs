//! Gelu in its exact form.

use super::{Golden, backward};
use candle_core::Result;
use kestrel_kernels::gelu;

#[test]
fn gelu_equals_pytorch() -> Result<()> {
    let golden = Golden::load("gelu")?;
    assert_eq!(golden.cases(), ["far", "normal"]);
    for case in golden.cases() {
        let x = golden.var(&format!("{case}.x"))?;
        let y = gelu(&x)?;
        golden.check(&format!("{case}.y"), &y)?;
        let grads = backward(&y, golden.get(&format!("{case}.dy")))?;
        golden.check(&format!("{case}.dx"), grads.get(&x).unwrap())?;
    }
    Ok(())
}
