// The functions of kernels/math.rs, bit for bit: exp, erf and logarithm as our own polynomials, and sums over a row in
// the order of the CPU. There a sum has 32 lanes and a tree; here a warp is those lanes.
#pragma once
#include "device.cuh"

// e^x with a relative error below 2e-7; 0 below -87, at most e^88; NaN stays.
DEVICE float exponential(float x) {
    const float clamped = x < -87.0f ? -87.0f : (x > 88.0f ? 88.0f : x);
    // Adding 1.5 * 2^23 and taking it away rounds to a whole number.
    const float shifted = fmaf(clamped, 1.44269504f, 12582912.0f);
    const float n = shifted - 12582912.0f;
    const float r = fmaf(n, 2.1219444e-4f, fmaf(n, -0.6933594f, clamped));
    float p = 1.0f / 5040.0f;
    p = fmaf(p, r, 1.0f / 720.0f);
    p = fmaf(p, r, 1.0f / 120.0f);
    p = fmaf(p, r, 1.0f / 24.0f);
    p = fmaf(p, r, 1.0f / 6.0f);
    p = fmaf(p, r, 0.5f);
    p = fmaf(p, r, 1.0f);
    p = fmaf(p, r, 1.0f);
    const float power = of_bits((bits_of(shifted) + 127u) << 23);
    return x < -87.0f ? 0.0f : p * power;
}

DEVICE float sigmoid(float x) { return 1.0f / (1.0f + exponential(-x)); }

// A function's value and its derivative.
struct Slope {
    float value, derivative;
};

// SiLU: x σ(x).
DEVICE Slope silu(float x) {
    const float s = sigmoid(x);
    return {x * s, s * fmaf(x, 1.0f - s, 1.0f)};
}

// GELU by the tanh formula.
DEVICE Slope gelu_tanh(float x) {
    const float twice = 2.0f * 0.7978846f, cube = 0.044715f;
    const float x2 = x * x;
    const float s = sigmoid(twice * x * fmaf(cube, x2, 1.0f));
    const float slope = twice * fmaf(3.0f * cube, x2, 1.0f);
    return {x * s, fmaf(x * s * (1.0f - s), slope, s)};
}

// GELU with the error function: x Φ(x).
DEVICE Slope gelu_exact(float x) {
    const float z = fabsf(x) * 0.70710678f;
    const float e = exponential(-0.5f * x * x);
    const float t = 1.0f / fmaf(0.5f, z, 1.0f);
    float p = -0.05971492f;
    p = fmaf(p, t, 0.2877683f);
    p = fmaf(p, t, -0.49386365f);
    p = fmaf(p, t, 0.2856977f);
    p = fmaf(p, t, -0.03184176f);
    p = fmaf(p, t, 0.20485366f);
    p = fmaf(p, t, 0.2425729f);
    p = fmaf(p, t, 0.28244504f);
    p = fmaf(p, t, 0.28208267f);
    const float tail = 0.5f * t * p * e;  // probability beyond |x|
    const float cdf = x < 0.0f ? tail : 1.0f - tail;
    return {x * cdf, fmaf(x * 0.3989423f, e, cdf)};
}

// Natural logarithm of a positive, finite, normal number (relative error below 1e-15).
DEVICE double logarithm(double x) {
    const u64 bits = bits_of(x);
    i64 exponent = static_cast<i64>(bits >> 52 & 0x7ff) - 1023;
    double m = of_bits((bits & 0x000fffffffffffffull) | 0x3ff0000000000000ull);  // [1, 2)
    if (m > 1.4142135623730951) {
        m *= 0.5;
        exponent++;
    }
    const double s = (m - 1.0) / (m + 1.0), s2 = s * s;
    double series = 0.0;
    for (int k = 11; k >= 0; k--) series = series * s2 + 1.0 / (2 * k + 1);
    return static_cast<double>(exponent) * 0.6931471805599453 + 2.0 * s * series;
}

// The sum of all lanes, in every lane.
template <class T>
DEVICE T warp_sum(T x) {
    for (u32 mask = WARP / 2; mask > 0; mask /= 2) x += shuffle_xor(x, mask);
    return x;
}

// The largest of all lanes, in every lane. Floats' bits, those of negative ones turned round, are ordered as they are.
DEVICE float warp_max(float x) {
    const int bits = static_cast<int>(bits_of(x));
    const int most = largest_of_warp(bits < 0 ? bits ^ 0x7fffffff : bits);
    return of_bits(static_cast<u32>(most < 0 ? most ^ 0x7fffffff : most));
}

struct Moments {
    float mean, inv;
};

// Mean and 1 / √(variance + eps) of value(column) over a row of d columns: by one warp, in two passes.
template <class Value>
DEVICE Moments moments(u32 d, float eps, Value value) {
    const float scale = 1.0f / static_cast<float>(d);
    float sum = 0.0f, squares = 0.0f;
    for (u32 c = lane_index(); c < d; c += WARP) sum += value(c);
    const float mean = warp_sum(sum) * scale;
    for (u32 c = lane_index(); c < d; c += WARP) squares += (value(c) - mean) * (value(c) - mean);
    return {mean, 1.0f / sqrtf(warp_sum(squares) * scale + eps)};
}

// The sum over the whole block, in every thread; `scratch` is shared and has room for 32. All threads call it; the
// scratch may be used again after the next barrier.
template <class T>
DEVICE T block_sum(T x, T* scratch) {
    x = warp_sum(x);
    if (lane_index() == 0) scratch[warp_index()] = x;
    block_barrier();
    const u32 warps = threads_in_block() / WARP;
    return warp_sum(lane_index() < warps ? scratch[lane_index()] : T(0));
}

// The largest over the whole block, as block_sum.
DEVICE float block_max(float x, float* scratch) {
    x = warp_max(x);
    if (lane_index() == 0) scratch[warp_index()] = x;
    block_barrier();
    const u32 warps = threads_in_block() / WARP;
    return warp_max(lane_index() < warps ? scratch[lane_index()] : scratch[0]);
}
