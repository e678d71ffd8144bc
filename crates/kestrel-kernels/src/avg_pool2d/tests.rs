//! The composite for other devices against the kernel.

use super::*;
use candle_core::Var;

fn geometries(height: usize, width: usize) -> Result<Vec<Geometry>> {
    let mut geometries = Vec::new();
    for (kernel, stride, padding) in [(2, 2, 0), (3, 2, 1), (3, 1, 1), (2, 3, 1)] {
        for count_include_pad in [false, true] {
            let windows = Windows::new("", kernel, stride, padding, count_include_pad)?;
            geometries.push((windows.axis("", height)?, windows.axis("", width)?));
        }
    }
    for (out_height, out_width) in [(1, 1), (3, 5), (height, width), (10, 3)] {
        geometries.push((
            Axis::adaptive("", "", height, out_height)?,
            Axis::adaptive("", "", width, out_width)?,
        ));
    }
    Ok(geometries
        .into_iter()
        .map(|(rows, columns)| Geometry::new(2, 3, rows, columns))
        .collect())
}

#[test]
fn composite_agrees_with_the_kernel() -> candle_core::Result<()> {
    let x = Var::randn(0f64, 1f64, (2, 3, 7, 8), &Device::Cpu)?;
    for geometry in geometries(7, 8)? {
        let outputs = [
            composite::avg_pool2d(&x, &geometry)?,
            pool("avg_pool2d", &x, geometry.clone())?,
        ];
        let weights = outputs[0].randn_like(0.0, 1.0)?;
        let mut results = Vec::new();
        for y in outputs {
            let grads = (&y * &weights)?.backward()?;
            let Some(dx) = grads.get(&x) else { panic!("no gradient") };
            results.push([y, dx.clone()]);
        }
        for (slow, fast) in results[0].iter().zip(&results[1]) {
            assert_eq!(fast.dims(), slow.dims());
            assert!((fast - slow)?.abs()?.max_all()?.to_scalar::<f64>()? < 1e-13);
            assert!(slow.abs()?.max_all()?.to_scalar::<f64>()? > 1e-3);
        }
    }
    Ok(())
}
