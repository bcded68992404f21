//! exp, erf and sums as our own polynomials and fixed orders, so that results do not depend on a C library.
//!
//! Everything here is `#[inline(always)]` and free of branches, so that loops over it become vector code inside
//! [`dispatch`](super::dispatch).

/// Vector lanes of a reduction. Fixed on every machine: the order of a sum is part of the result.
const LANES: usize = 32;

/// `a * b + c`, rounded once where the CPU fuses (everything from AVX2 on, and NEON); rounded once elsewhere too, slowly.
#[inline(always)]
pub fn fma(a: f32, b: f32, c: f32) -> f32 {
    a.mul_add(b, c)
}

/// e^x with a relative error below 2e-7; 0 below -87, at most e^88.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23: adding and taking it away rounds to a whole number
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let clamped = x.clamp(-87.0, 88.0);
    let shifted = fma(clamped, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = fma(n, -LN2_LOW, fma(n, -LN2_HIGH, clamped));
    // Taylor series; |r| <= ln(2) / 2, so the eighth-order rest is below 6e-9.
    let mut p = 1.0 / 5040.0;
    p = fma(p, r, 1.0 / 720.0);
    p = fma(p, r, 1.0 / 120.0);
    p = fma(p, r, 1.0 / 24.0);
    p = fma(p, r, 1.0 / 6.0);
    p = fma(p, r, 0.5);
    p = fma(p, r, 1.0);
    p = fma(p, r, 1.0);
    // The low bits of `shifted` hold n: moved into the exponent they make 2^n.
    let power = f32::from_bits(shifted.to_bits().wrapping_add(127) << 23);
    // NaN passes through: clamp keeps it, and the comparison is false for it.
    if x < -87.0 { 0.0 } else { p * power }
}

/// 1 / (1 + e^-x).
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// e^(x²) erfc(x) / t for x >= 0 with t = 1 / (1 + x / 2): a polynomial in t fitted at Chebyshev nodes of [1/6, 1]
/// (relative error 5e-8).
#[inline(always)]
fn erfc_polynomial(t: f32) -> f32 {
    let mut p = -0.059_714_92;
    p = fma(p, t, 0.287_768_3);
    p = fma(p, t, -0.493_863_65);
    p = fma(p, t, 0.285_697_7);
    p = fma(p, t, -0.031_841_76);
    p = fma(p, t, 0.204_853_66);
    p = fma(p, t, 0.242_572_9);
    p = fma(p, t, 0.282_445_04);
    fma(p, t, 0.282_082_67)
}

/// The standard normal distribution function and e^(-x²/2), which share their work.
#[inline(always)]
fn normal(x: f32) -> (f32, f32) {
    let z = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let e = exp(-0.5 * x * x);
    let t = 1.0 / fma(0.5, z, 1.0);
    let tail = 0.5 * t * erfc_polynomial(t) * e; // probability beyond |x|
    (if x < 0.0 { tail } else { 1.0 - tail }, e)
}

/// GELU with the error function: x Φ(x).
#[inline(always)]
pub fn gelu(x: f32) -> f32 {
    x * normal(x).0
}

/// Derivative of [`gelu`]: Φ(x) + x φ(x).
#[inline(always)]
pub fn gelu_derivative(x: f32) -> f32 {
    const INV_SQRT_TAU: f32 = 0.398_942_3;
    let (cdf, e) = normal(x);
    fma(x * INV_SQRT_TAU, e, cdf)
}

const SQRT_2_OVER_PI: f32 = 0.797_884_6;
const CUBE: f32 = 0.044_715;

/// GELU by the tanh formula, and its derivative.
/// 0.5 (1 + tanh z) = sigmoid(2z), so one exponential serves both.
#[inline(always)]
pub fn gelu_tanh(x: f32) -> (f32, f32) {
    let x2 = x * x;
    let s = sigmoid(2.0 * SQRT_2_OVER_PI * x * fma(CUBE, x2, 1.0));
    let slope = 2.0 * SQRT_2_OVER_PI * fma(3.0 * CUBE, x2, 1.0);
    (x * s, fma(x * s * (1.0 - s), slope, s))
}

/// SiLU x σ(x), and its derivative.
#[inline(always)]
pub fn silu(x: f32) -> (f32, f32) {
    let s = sigmoid(x);
    (x * s, s * fma(x, 1.0 - s, 1.0))
}

/// Natural logarithm of a positive, finite, normal number (relative error below 1e-15): 2 artanh((m - 1) / (m + 1)).
pub fn ln(x: f64) -> f64 {
    let bits = x.to_bits();
    let mut exponent = ((bits >> 52) & 0x7ff) as i64 - 1023;
    let mut m = f64::from_bits((bits & 0x000f_ffff_ffff_ffff) | 0x3ff0_0000_0000_0000); // [1, 2)
    if m > std::f64::consts::SQRT_2 {
        m *= 0.5;
        exponent += 1;
    }
    let s = (m - 1.0) / (m + 1.0);
    let s2 = s * s;
    let series = (0..12).rev().fold(0.0, |sum, k| sum * s2 + 1.0 / f64::from(2 * k + 1));
    exponent as f64 * std::f64::consts::LN_2 + 2.0 * s * series
}

/// Adds the lanes of a reduction in a fixed tree.
#[inline(always)]
fn fold(mut lanes: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// Sum of `f` over a slice in the fixed order of all our reductions.
#[inline(always)]
pub fn sum_of(x: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let chunks = x.chunks_exact(LANES);
    let rest = chunks.remainder();
    for x in chunks {
        for lane in 0..LANES {
            lanes[lane] += f(x[lane]);
        }
    }
    for (lane, x) in rest.iter().enumerate() {
        lanes[lane] += f(*x);
    }
    fold(lanes)
}

/// Sum of a slice.
#[inline(always)]
pub fn sum(x: &[f32]) -> f32 {
    sum_of(
        x,
        #[inline(always)]
        |x| x,
    )
}

/// Inner product; the slices must be equally long.
#[inline(always)]
pub fn dot(x: &[f32], y: &[f32]) -> f32 {
    let y = &y[..x.len()];
    let mut lanes = [0.0f32; LANES];
    let (xs, ys) = (x.chunks_exact(LANES), y.chunks_exact(LANES));
    let (xr, yr) = (xs.remainder(), ys.remainder());
    for (x, y) in xs.zip(ys) {
        for lane in 0..LANES {
            lanes[lane] = fma(x[lane], y[lane], lanes[lane]);
        }
    }
    for (lane, (x, y)) in xr.iter().zip(yr).enumerate() {
        lanes[lane] = fma(*x, *y, lanes[lane]);
    }
    fold(lanes)
}

/// Largest value; -∞ for an empty slice.
#[inline(always)]
pub fn max(x: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let chunks = x.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for lane in 0..LANES {
            lanes[lane] = if chunk[lane] > lanes[lane] { chunk[lane] } else { lanes[lane] };
        }
    }
    lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |a, &b| if b > a { b } else { a })
}

#[cfg(test)]
mod tests {
    use super::super::dispatch;
    use super::*;

    fn points() -> impl Iterator<Item = f32> {
        (-40_000..40_000).map(|i| i as f32 * 0.00211)
    }

    #[test]
    fn exp_is_close_and_keeps_nan() {
        for x in points() {
            let want = f64::from(x).exp();
            assert!((f64::from(exp(x)) / want - 1.0).abs() < 2e-7, "exp({x})");
        }
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(-200.0), 0.0);
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn activations_agree_with_their_slow_derivatives() {
        for x in points().filter(|x| x.abs() < 9.0) {
            let x64 = f64::from(x);
            let tanh =
                |x: f64| 0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh());
            let silu64 = |x: f64| x / (1.0 + (-x).exp());
            let slope = |f: &dyn Fn(f64) -> f64| (f(x64 + 1e-5) - f(x64 - 1e-5)) / 2e-5;
            let (y, dy) = gelu_tanh(x);
            assert!((f64::from(y) - tanh(x64)).abs() < 1e-6 && (f64::from(dy) - slope(&tanh)).abs() < 2e-6, "{x}");
            let (y, dy) = silu(x);
            // Roundings of 1 + e^-x (6e-8), of its inverse (3e-8) and of the product (6e-8), times |x| at most.
            let bound = 1.5e-7 * x64.abs() + 1e-7;
            assert!((f64::from(y) - silu64(x64)).abs() < bound && (f64::from(dy) - slope(&silu64)).abs() < 2e-6, "{x}");
            let step = |x: f32| f64::from(gelu(x));
            let rough = (step(x + 0.01) - step(x - 0.01)) / (f64::from(x + 0.01) - f64::from(x - 0.01));
            assert!((f64::from(gelu_derivative(x)) - rough).abs() < 1e-4, "{x}");
        }
    }

    #[test]
    fn ln_is_close() {
        for x in (1..20_000).map(|i| f64::from(i) * 0.37).chain([1e-300, 1e300, 1.0]) {
            assert!((ln(x) - x.ln()).abs() <= 1e-15 * x.ln().abs().max(1.0), "ln({x})");
        }
    }

    #[test]
    fn gelu_has_known_values() {
        // x Φ(x) from the tables of the normal distribution, to ten digits.
        for (x, want) in
            [(1.0, 0.8413447461), (-1.0, -0.1586552539), (2.5, 2.4844758367), (-3.0, -0.0040496941), (0.0, 0.0)]
        {
            assert!((f64::from(gelu(x)) - want).abs() < 2e-7, "gelu({x}) = {}", gelu(x));
        }
    }

    /// Every function of this file, as loops that may become vectors.
    #[inline(always)]
    fn everything(x: &[f32]) -> Vec<u32> {
        let mut y = vec![0.0f32; 6 * x.len() + 5];
        let (sums, values) = y.split_at_mut(5);
        for (y, &x) in values.chunks_exact_mut(6).zip(x) {
            let ((g, dg), (s, ds)) = (gelu_tanh(x), silu(x));
            y.copy_from_slice(&[g, dg, s, ds, gelu(x), gelu_derivative(x)]);
        }
        sums.copy_from_slice(&[sum(x), dot(x, values), max(x), sum_of(x, |x| x * x), exp(x[1])]);
        y.iter().map(|y| y.to_bits()).collect()
    }

    /// These functions do not depend on the processor: plain code, AVX2's and, where there is one, AVX-512's give the same
    /// bits.
    #[test]
    fn every_instruction_set_gives_the_same_bits() {
        let x: Vec<f32> = points().step_by(7).collect();
        let plain = everything(&x);
        assert!(
            plain
                == dispatch(
                    #[inline(always)]
                    || everything(&x)
                )
        );
        #[cfg(target_arch = "x86_64")]
        for other in [
            pulp::x86::V3::try_new().map(|arch| {
                arch.vectorize(
                    #[inline(always)]
                    || everything(&x),
                )
            }),
            pulp::x86::V4::try_new().map(|arch| {
                arch.vectorize(
                    #[inline(always)]
                    || everything(&x),
                )
            }),
        ] {
            assert!(other.is_none_or(|other| other == plain));
        }
    }

    #[test]
    fn sums_add_everything() {
        for len in [0, 1, 31, 32, 33, 100] {
            let x: Vec<f32> = (0..len).map(|i| i as f32).collect();
            assert_eq!(sum(&x), (0..len).sum::<usize>() as f32);
            assert_eq!(dot(&x, &x), (0..len).map(|i| i * i).sum::<usize>() as f32);
            assert_eq!(max(&x), if len == 0 { f32::NEG_INFINITY } else { (len - 1) as f32 });
        }
    }
}
