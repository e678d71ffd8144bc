//! Every instruction set of this machine against scalar arithmetic, and the choice among them.

use super::*;

/// Each operation applied to `a`, `b`, `c`, and a round trip of the first `n` lanes.
struct Operations<'a> {
    a: &'a [f32; MAX_LANES],
    b: &'a [f32; MAX_LANES],
    c: &'a [f32; MAX_LANES],
}

/// The largest vector's alignment.
#[repr(align(64))]
struct Aligned([f32; MAX_LANES]);

impl Kernel for Operations<'_> {
    type Output = (usize, Vec<[f32; MAX_LANES]>);

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Self::Output {
        // SAFETY: the arrays hold MAX_LANES >= LANES floats.
        let [a, b, c] = [self.a, self.b, self.c].map(|lanes| unsafe { s.load(lanes.as_ptr()) });
        let results = [
            s.add(a, b),
            s.sub(a, b),
            s.mul(a, b),
            s.mul_add(a, b, c),
            s.neg_mul_add(a, b, c),
            s.max(a, b),
            s.gated(a, b),
            s.maximum(a, b),
            s.where_equal(a, b, c, b),
            s.splat(3.5),
            s.div(c, s.splat(0.25)),
            s.exp2_of_whole(a),
        ];
        let store = |value| {
            let mut lanes = [0.0; MAX_LANES];
            // SAFETY: the array holds MAX_LANES >= LANES floats.
            unsafe { s.store(lanes.as_mut_ptr(), value) };
            lanes
        };
        let mut stored: Vec<_> = results.into_iter().map(store).collect();
        for n in 0..=S::LANES {
            // SAFETY: n <= LANES <= MAX_LANES.
            let first = unsafe { s.load_first(self.a.as_ptr(), n) };
            stored.push(store(first));
            let mut lanes = [9.0; MAX_LANES];
            // SAFETY: n <= LANES <= MAX_LANES.
            unsafe { s.store_first(lanes.as_mut_ptr(), a, n) };
            stored.push(lanes);
        }
        let mut aligned = Aligned([9.0; MAX_LANES]);
        // SAFETY: the array holds MAX_LANES >= LANES floats and is aligned to them.
        unsafe { s.stream(aligned.0.as_mut_ptr(), a) };
        s.fence();
        stored.push(aligned.0);
        (S::LANES, stored)
    }
}

/// `2ⁿ`; not by `exp2`, which need not be exact.
fn power_of_two(n: i32) -> f32 {
    let power = (1_u32 << n.unsigned_abs()) as f32;
    if n < 0 { 1.0 / power } else { power }
}

#[test]
fn operations_equal_scalar_arithmetic() {
    // Small integers and halves: every result is exact, fused or not.
    let a = std::array::from_fn(|i| i as f32 - 5.0);
    let b = std::array::from_fn(|i| 0.5 * ((7 * i) % 11) as f32 - 2.0);
    let c = std::array::from_fn(|i| ((5 * i) % 13) as f32);
    for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
        let (lanes, got) = isa.dispatch(Operations { a: &a, b: &b, c: &c });
        for i in 0..lanes {
            let gated = if a[i] > 0.0 { b[i] } else { 0.0 };
            let want = [
                a[i] + b[i],
                a[i] - b[i],
                a[i] * b[i],
                a[i] * b[i] + c[i],
                c[i] - a[i] * b[i],
                a[i].max(b[i]),
                gated,
                a[i].max(b[i]),
                if a[i] == b[i] { c[i] } else { b[i] },
                3.5,
                c[i] / 0.25,
                power_of_two(a[i] as i32),
            ];
            for (op, want) in want.into_iter().enumerate() {
                assert_eq!(got[op][i], want, "{isa}, operation {op}, lane {i}");
            }
            for n in 0..=lanes {
                assert_eq!(
                    got[12 + 2 * n][i],
                    if i < n { a[i] } else { 0.0 },
                    "{isa}, load_first({n}), lane {i}"
                );
                assert_eq!(
                    got[13 + 2 * n][i],
                    if i < n { a[i] } else { 9.0 },
                    "{isa}, store_first({n}), lane {i}"
                );
            }
            assert_eq!(got[14 + 2 * lanes][i], a[i], "{isa}, stream, lane {i}");
        }
    }
}

/// Rows of eight floats, [`STEP`] apart: read as columns, and written back to rows.
struct Transposition<'a>(&'a [f32; MAX_LANES * STEP]);

const STEP: usize = 11;

impl Kernel for Transposition<'_> {
    type Output = (usize, [[f32; MAX_LANES]; 8], [f32; MAX_LANES * STEP]);

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Self::Output {
        // SAFETY: the array holds MAX_LANES >= LANES rows of STEP >= 8 floats.
        let vectors = unsafe { s.load_transposed(self.0.as_ptr(), STEP) };
        let columns = vectors.map(|column| {
            let mut lanes = [0.0; MAX_LANES];
            // SAFETY: the array holds MAX_LANES >= LANES floats.
            unsafe { s.store(lanes.as_mut_ptr(), column) };
            lanes
        });
        let mut rows = [-1.0; MAX_LANES * STEP];
        // SAFETY: the array holds MAX_LANES >= LANES rows of STEP >= 8 floats.
        unsafe { s.store_transposed(rows.as_mut_ptr(), STEP, vectors) };
        (S::LANES, columns, rows)
    }
}

#[test]
fn rows_of_eight_are_transposed_and_back() {
    let source = std::array::from_fn(|i| i as f32);
    for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
        let (lanes, columns, rows) = isa.dispatch(Transposition(&source));
        for (i, column) in columns.iter().enumerate() {
            for (lane, &value) in column[..lanes].iter().enumerate() {
                assert_eq!(value, source[lane * STEP + i], "{isa}, column {i}, lane {lane}");
            }
        }
        for (at, &value) in rows.iter().enumerate() {
            let written = at / STEP < lanes && at % STEP < 8;
            assert_eq!(value, if written { source[at] } else { -1.0 }, "{isa}, float {at}");
        }
    }
}

#[test]
fn names_round_trip_and_an_unknown_one_is_refused() {
    for isa in Isa::ALL {
        assert_eq!(isa.name().parse(), Ok(isa));
    }
    assert_eq!("sse9".parse::<Isa>(), Err(UnknownIsa { got: "sse9".into() }));
    assert!(Isa::detect().is_available());
    if cfg!(target_arch = "aarch64") {
        assert_eq!(Isa::detect(), Isa::Neon);
    }
}

#[test]
fn a_choice_that_cannot_be_made_says_what_there_is() {
    let missing = Isa::ALL.into_iter().find(|isa| !isa.is_available());
    let missing = missing.expect("no processor has both AVX-512 and NEON");
    let error = Isa::force(missing).unwrap_err();
    let available = Isa::available();
    assert_eq!(
        error,
        ForceError::Unavailable {
            asked: missing,
            available: available.clone()
        }
    );
    for isa in available {
        assert!(error.to_string().contains(isa.name()), "{error}");
    }
}

/// The process has one choice, so this test works with whichever was made first; the binary's tests force every set.
#[test]
fn the_first_choice_holds() {
    let current = Isa::current();
    assert_eq!(Isa::force(current), Ok(()));
    for asked in Isa::available().into_iter().filter(|isa| *isa != current) {
        assert_eq!(Isa::force(asked), Err(ForceError::AlreadyChosen { asked, current }));
    }
    assert_eq!(Isa::current(), current);
}

/// NaN with a number.
struct NanOperations;

impl Kernel for NanOperations {
    type Output = [f32; 5];

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> [f32; 5] {
        let (nan, two) = (s.splat(f32::NAN), s.splat(2.0));
        let values = [
            s.max(s.zero(), nan),
            s.maximum(nan, two),
            s.maximum(two, nan),
            s.gated(nan, two),
            s.where_equal(nan, nan, s.zero(), two),
        ];
        values.map(|value| {
            let mut lanes = [0.0; MAX_LANES];
            // SAFETY: the array holds MAX_LANES >= LANES floats.
            unsafe { s.store(lanes.as_mut_ptr(), value) };
            lanes[0]
        })
    }
}

#[test]
fn nan_passes_a_maximum_and_a_gate() {
    for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
        let [rectified, left, right, gated, equal] = isa.dispatch(NanOperations);
        assert!(rectified.is_nan() && left.is_nan() && right.is_nan(), "{isa}");
        assert_eq!([gated, equal], [2.0; 2], "{isa}");
    }
}
