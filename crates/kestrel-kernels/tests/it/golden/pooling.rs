//! Average pooling in both layouts, and maximum pooling in the channels-last one.

use super::{Golden, Layout, backward};
use candle_core::{Result, Tensor};
use kestrel_kernels::{adaptive_avg_pool2d, avg_pool2d, channels_last};

type Pool<'a> = &'a dyn Fn(&Tensor) -> kestrel_kernels::Result<Tensor>;

/// Checks `pool` in its layout and `pool_last` on the same images `[N, H, W, C]`.
fn check_layouts(golden: &Golden, case: &str, pool: Option<Pool<'_>>, pool_last: Pool<'_>) -> Result<()> {
    let name = |part: &str| format!("{case}.{part}");
    let pools = [pool.map(|pool| (Layout::First, pool)), Some((Layout::Last, pool_last))];
    for (layout, pool) in pools.into_iter().flatten() {
        let x = layout.var(golden.get(&name("x")))?;
        let y = layout.first(&pool(&x)?)?;
        golden.check(&name("y"), &y)?;
        let dx = backward(&y, golden.get(&name("dy")))?.get(&x).unwrap().clone();
        golden.check(&name("dx"), &layout.first(&dx)?)?;
    }
    Ok(())
}

#[test]
fn avg_pool2d_equals_pytorch() -> Result<()> {
    let golden = Golden::load("avg_pool2d")?;
    let (adaptive, fixed): (Vec<_>, Vec<_>) = golden
        .cases()
        .into_iter()
        .partition(|case| case.starts_with("adaptive"));
    assert_eq!((adaptive.len(), fixed.len()), (4, 5));
    for case in fixed {
        let [kernel, stride, padding, include] = golden.config(&case)?;
        check_layouts(
            &golden,
            &case,
            Some(&|x| avg_pool2d(x, kernel, stride, padding, include == 1)),
            &|x| channels_last::avg_pool2d(x, kernel, stride, padding, include == 1),
        )?;
    }
    for case in adaptive {
        let [out_height, out_width] = golden.config(&case)?;
        check_layouts(
            &golden,
            &case,
            Some(&|x| adaptive_avg_pool2d(x, (out_height, out_width))),
            &|x| channels_last::adaptive_avg_pool2d(x, (out_height, out_width)),
        )?;
    }
    Ok(())
}

#[test]
fn channels_last_max_pool2d_equals_pytorch() -> Result<()> {
    let golden = Golden::load("max_pool2d")?;
    let mut of_a_stem = 0;
    for case in golden.cases() {
        let [kernel, stride, padding] = golden.config(&case)?;
        of_a_stem += usize::from((kernel, stride, padding) == (3, 2, 1));
        check_layouts(&golden, &case, None, &|x| {
            channels_last::max_pool2d(x, kernel, stride, padding)
        })?;
    }
    assert_eq!(of_a_stem, 1);
    Ok(())
}
