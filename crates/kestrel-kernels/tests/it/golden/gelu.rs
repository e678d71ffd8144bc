//! Gelu in its exact form, by itself and within a section.

use super::{Golden, backward};
use candle_core::{Result, Tensor};
use kestrel_kernels::{gelu, tape};

#[test]
fn gelu_equals_pytorch() -> Result<()> {
    let golden = Golden::load("gelu")?;
    assert_eq!(golden.cases(), ["far", "normal"]);
    let in_section = |x: &Tensor| {
        tape::section(|tape| {
            let x = tape.leaf(x)?;
            tape.gelu(&x)
        })
    };
    for case in golden.cases() {
        for op in [
            &gelu as &dyn Fn(&Tensor) -> kestrel_kernels::Result<Tensor>,
            &in_section,
        ] {
            let x = golden.var(&format!("{case}.x"))?;
            let y = op(&x)?;
            golden.check(&format!("{case}.y"), &y)?;
            let grads = backward(&y, golden.get(&format!("{case}.dy")))?;
            golden.check(&format!("{case}.dx"), grads.get(&x).unwrap())?;
        }
    }
    Ok(())
}
