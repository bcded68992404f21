// AdamW, LAMB, the clip by the global norm and the moving average, over flat buffers: optim/kernels.rs. No multiply-add is
// fused, so values that no sum is in have the CPU's bits. Nothing comes back to the host in between: the clip's factor and
// LAMB's rates stay on the card.
#include "columns.cuh"
#include "math.cuh"

// As on the CPU, worked out in f64 by the host.
struct Coefficients {
    float beta1, beta2, new1, new2, correct1, correct2, eps, weight_decay, lr;
    float keep;  // AdamW: the factor of a decayed tensor's old weights
};

// A piece of one tensor: at most 4096 values. The pieces of a tensor follow each other.
struct Piece {
    u64 start;
    u32 length, tensor;
};

// Moves both moments of value i; gives Adam's update without the learning rate.
DEVICE float adam_update(const Coefficients& k, float grad_scale, float g, float* m, float* v) {
    g *= grad_scale;
    *m = k.beta1 * *m + k.new1 * g;
    *v = k.beta2 * *v + k.new2 * (g * g);
    return *m * k.correct1 / (sqrtf(*v * k.correct2) + k.eps);
}

// Where a new weight goes: to its place, as a bf16 number to the mirror that the products read, and `part` of the way from
// the moving average to it. Mirror and average are null where none is kept.
struct Written {
    float* w;
    u16* mirror;
    float* average;
    float part;
};

DEVICE void put(const Written& to, u64 i, float value) {
    to.w[i] = value;
    if (to.mirror) to.mirror[i] = to_bf16_number(value);
    if (to.average) to.average[i] += to.part * (value - to.average[i]);
}

// One step of AdamW. decay [tensors] says which decay; grad_scale is one number, the clip's. Grid: pieces.
KERNEL(256, adamw,
       (Coefficients k, const Piece* pieces, const u32* decay, const float* grad_scale, Written weights, const float* g,
        float* m, float* v)) {
    const Piece piece = pieces[block_x()];
    const float keep = decay[piece.tensor] ? k.keep : 1.0f;
    for (u64 i = piece.start + thread_index(); i < piece.start + piece.length; i += threads_in_block()) {
        const float update = adam_update(k, *grad_scale, g[i], m + i, v + i);
        put(weights, i, weights.w[i] * keep - k.lr * update);
    }
}

// LAMB's first pass: moves the moments; tensors without decay make Adam's step; of the others' pieces it leaves the sums of
// the squares of w and of u = Adam's update + decay w: squares [pieces, 2]. Grid: pieces.
KERNEL(256, lamb_moments,
       (Coefficients k, const Piece* pieces, const u32* decay, const float* grad_scale, Written weights, const float* g,
        float* m, float* v, double* squares)) {
    SHARED(double, of_w, WARP);
    SHARED(double, of_u, WARP);
    const Piece piece = pieces[block_x()];
    float ww = 0.0f, uu = 0.0f;
    for (u64 i = piece.start + thread_index(); i < piece.start + piece.length; i += threads_in_block()) {
        const float update = adam_update(k, *grad_scale, g[i], m + i, v + i);
        if (decay[piece.tensor]) {
            const float w = weights.w[i], u = update + k.weight_decay * w;
            ww += w * w;
            uu += u * u;
        } else {
            put(weights, i, weights.w[i] - k.lr * update);
        }
    }
    const double sum_w = block_sum(static_cast<double>(ww), of_w), sum_u = block_sum(static_cast<double>(uu), of_u);
    if (thread_index() == 0) {
        squares[2 * block_x()] = sum_w;
        squares[2 * block_x() + 1] = sum_u;
    }
}

// rates [tensors] = lr |w| / |u|, or lr where either is 0. The pieces of tensor t are firsts[t] .. firsts[t + 1].
// Grid: tensors.
KERNEL(32, lamb_rates, (const u32* firsts, const double* squares, double lr, float* rates)) {
    double ww = 0.0, uu = 0.0;
    for (u32 i = firsts[block_x()] + lane_index(); i < firsts[block_x() + 1]; i += WARP) {
        ww += squares[2 * i];
        uu += squares[2 * i + 1];
    }
    ww = sqrt(warp_sum(ww));
    uu = sqrt(warp_sum(uu));
    if (lane_index() == 0) rates[block_x()] = static_cast<float>(lr * (ww > 0.0 && uu > 0.0 ? ww / uu : 1.0));
}

// LAMB's second pass, for the tensors with decay: w -= rate u. Grid: pieces.
KERNEL(256, lamb_step,
       (Coefficients k, const Piece* pieces, const u32* decay, const float* rates, Written weights, const float* m,
        const float* v)) {
    const Piece piece = pieces[block_x()];
    if (!decay[piece.tensor]) return;
    const float rate = rates[piece.tensor];
    for (u64 i = piece.start + thread_index(); i < piece.start + piece.length; i += threads_in_block()) {
        const float update = m[i] * k.correct1 / (sqrtf(v[i] * k.correct2) + k.eps);
        put(weights, i, weights.w[i] - rate * (update + k.weight_decay * weights.w[i]));
    }
}

// Sums of squares of stretches of 4096 of n values: squares [ceil(n / 4096)]. Grid: ceil(n / 4096).
KERNEL(256, sums_of_squares, (u64 n, const float* x, double* squares)) {
    SHARED(double, scratch, WARP);
    const u64 start = static_cast<u64>(block_x()) * 4096;
    const u64 end = start + 4096 < n ? start + 4096 : n;
    float sum = 0.0f;
    for (u64 i = start + thread_index(); i < end; i += threads_in_block()) sum += x[i] * x[i];
    const double all = block_sum(static_cast<double>(sum), scratch);
    if (thread_index() == 0) squares[block_x()] = all;
}

// norm [1] = √(the sum of squares [count]), factor [1] = min(1, most / (norm + 1e-6)); NaN stays. Grid: 1.
KERNEL(256, clip_factor, (u32 count, const double* squares, double most, double* norm, float* factor)) {
    SHARED(double, scratch, WARP);
    double sum = 0.0;
    for (u32 i = thread_index(); i < count; i += threads_in_block()) sum += squares[i];
    sum = sqrt(block_sum(sum, scratch));
    if (thread_index() > 0) return;
    *norm = sum;
    const double coefficient = most / (sum + 1e-6);
    *factor = coefficient >= 1.0 ? 1.0f : static_cast<float>(coefficient);
}
