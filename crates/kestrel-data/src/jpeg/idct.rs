//! The inverse transform of a block: libjpeg's accurate integer one, eight lanes at a time.
//!
//! Loeffler, Ligtenberg and Moschytz 1989, in fixed point with 13 bits, as libjpeg's `jidctint.c` arranges and rounds it; so
//! the samples are libjpeg's bit for bit.

/// Eight values, one a column (or, transposed, one a row).
type Lanes = [i32; 8];

const CONST_BITS: u32 = 13;
const PASS1_BITS: u32 = 2;

const FIX_0_298631336: i32 = 2446;
const FIX_0_390180644: i32 = 3196;
const FIX_0_541196100: i32 = 4433;
const FIX_0_765366865: i32 = 6270;
const FIX_0_899976223: i32 = 7373;
const FIX_1_175875602: i32 = 9633;
const FIX_1_501321110: i32 = 12299;
const FIX_1_847759065: i32 = 15137;
const FIX_1_961570560: i32 = 16069;
const FIX_2_053119869: i32 = 16819;
const FIX_2_562915447: i32 = 20995;
const FIX_3_072711026: i32 = 25172;

#[inline(always)]
fn zip(a: Lanes, b: Lanes, f: impl Fn(i32, i32) -> i32) -> Lanes {
    let mut out = [0; 8];
    for lane in 0..8 {
        out[lane] = f(a[lane], b[lane]);
    }
    out
}

#[inline(always)]
fn add(a: Lanes, b: Lanes) -> Lanes {
    zip(a, b, i32::wrapping_add)
}

#[inline(always)]
fn sub(a: Lanes, b: Lanes) -> Lanes {
    zip(a, b, i32::wrapping_sub)
}

#[inline(always)]
fn mul(a: Lanes, factor: i32) -> Lanes {
    zip(a, [factor; 8], i32::wrapping_mul)
}

/// `a / 2^bits`, rounded.
#[inline(always)]
fn descale(a: Lanes, bits: u32) -> Lanes {
    zip(a, [1 << (bits - 1); 8], |value, half| value.wrapping_add(half) >> bits)
}

/// The transform along one axis, of eight lines side by side.
#[inline(always)]
fn transform(x: [Lanes; 8], bits: u32) -> [Lanes; 8] {
    // Even part.
    let z1 = mul(add(x[2], x[6]), FIX_0_541196100);
    let t2 = sub(z1, mul(x[6], FIX_1_847759065));
    let t3 = add(z1, mul(x[2], FIX_0_765366865));
    let t0 = mul(add(x[0], x[4]), 1 << CONST_BITS);
    let t1 = mul(sub(x[0], x[4]), 1 << CONST_BITS);
    let (t10, t13) = (add(t0, t3), sub(t0, t3));
    let (t11, t12) = (add(t1, t2), sub(t1, t2));
    // Odd part.
    let (o0, o1, o2, o3) = (x[7], x[5], x[3], x[1]);
    let z5 = mul(add(add(o0, o2), add(o1, o3)), FIX_1_175875602);
    let z1 = mul(add(o0, o3), -FIX_0_899976223);
    let z2 = mul(add(o1, o2), -FIX_2_562915447);
    let z3 = add(mul(add(o0, o2), -FIX_1_961570560), z5);
    let z4 = add(mul(add(o1, o3), -FIX_0_390180644), z5);
    let o0 = add(mul(o0, FIX_0_298631336), add(z1, z3));
    let o1 = add(mul(o1, FIX_2_053119869), add(z2, z4));
    let o2 = add(mul(o2, FIX_3_072711026), add(z2, z3));
    let o3 = add(mul(o3, FIX_1_501321110), add(z1, z4));
    [
        descale(add(t10, o3), bits),
        descale(add(t11, o2), bits),
        descale(add(t12, o1), bits),
        descale(add(t13, o0), bits),
        descale(sub(t13, o0), bits),
        descale(sub(t12, o1), bits),
        descale(sub(t11, o2), bits),
        descale(sub(t10, o3), bits),
    ]
}

#[inline(always)]
fn transposed(x: [Lanes; 8]) -> [Lanes; 8] {
    let mut out = [[0; 8]; 8];
    for (row, lanes) in x.iter().enumerate() {
        for (column, &value) in lanes.iter().enumerate() {
            out[column][row] = value;
        }
    }
    out
}

/// The samples of a block with these coefficients, row by row, into `out`, whose rows are `stride` apart.
#[inline(always)]
pub(super) fn inverse(coefficients: &[i16; 64], out: &mut [u8], stride: usize) {
    let mut x = [[0; 8]; 8];
    for (lanes, row) in x.iter_mut().zip(coefficients.as_chunks::<8>().0) {
        for lane in 0..8 {
            lanes[lane] = i32::from(row[lane]);
        }
    }
    let columns = transform(x, CONST_BITS - PASS1_BITS);
    let rows = transposed(transform(transposed(columns), CONST_BITS + PASS1_BITS + 3));
    for (out, lanes) in out.chunks_mut(stride).zip(rows) {
        let mut samples = [0; 8];
        for lane in 0..8 {
            samples[lane] = (lanes[lane] + 128).clamp(0, 255) as u8;
        }
        out[..8].copy_from_slice(&samples);
    }
}

/// [`inverse`] of a block whose other coefficients are all 0.
#[inline(always)]
pub(super) fn inverse_flat(dc: i16, out: &mut [u8], stride: usize) {
    let value = ((i32::from(dc) << PASS1_BITS) + (1 << (PASS1_BITS + 2))) >> (PASS1_BITS + 3);
    let sample = (value + 128).clamp(0, 255) as u8;
    for row in out.chunks_mut(stride).take(8) {
        row[..8].fill(sample);
    }
}
