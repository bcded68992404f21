// Gated feed-forward activations, GELU and dropout with residual, forward and backward: kernels/activation.rs, bit for bit.
#include "columns.cuh"
#include "math.cuh"
#include "random.cuh"

// [u|g] [n, 2 width] -> z [n, width], the norm without parameters of u ⊙ gelu_tanh(g); stats [n] keeps 1/σ.
// Grid: ceil(n / 4).
KERNEL(128, geglu_norm, (u32 n, u32 width, const float* ug, float eps, float* z, float* stats)) {
    const u32 row = row_of_warp();
    if (row >= n) return;
    const float* const u = ug + static_cast<u64>(row) * 2 * width;
    const float* const g = u + width;
    float* const to = z + static_cast<u64>(row) * width;
    // From here on a lane reads what it wrote itself.
    for (u32 c = lane_index(); c < width; c += WARP) to[c] = u[c] * gelu_tanh(g[c]).value;
    const Moments m = moments(width, eps, [to](u32 c) { return to[c]; });
    if (lane_index() == 0) stats[row] = m.inv;
    for (u32 c = lane_index(); c < width; c += WARP) to[c] = (to[c] - m.mean) * m.inv;
}

// From gz [n, width] to gug [n, 2 width]. Grid: ceil(n / 4).
KERNEL(128, geglu_norm_backward,
       (u32 n, u32 width, const float* ug, const float* z, const float* stats, const float* gz, float* gug)) {
    const u32 row = row_of_warp();
    if (row >= n) return;
    const u64 narrow = static_cast<u64>(row) * width, wide = 2 * narrow;
    const float inv = stats[row], scale = 1.0f / static_cast<float>(width);
    float sum = 0.0f, along = 0.0f;
    for (u32 c = lane_index(); c < width; c += WARP) {
        sum += gz[narrow + c];
        along = fmaf(gz[narrow + c], z[narrow + c], along);
    }
    sum = warp_sum(sum) * scale;
    along = warp_sum(along) * scale;
    for (u32 c = lane_index(); c < width; c += WARP) {
        const float h = inv * fmaf(-along, z[narrow + c], gz[narrow + c] - sum);
        const Slope y = gelu_tanh(ug[wide + width + c]);
        gug[wide + c] = h * y.value;
        gug[wide + width + c] = h * ug[wide + c] * y.derivative;
    }
}

// [gate|up] [n, 2 width] -> y [n, width] = silu(gate) ⊙ up. Grid: n.
KERNEL(256, swiglu, (u32 width, const float* gu, float* y)) {
    const float* const gate = gu + static_cast<u64>(block_x()) * 2 * width;
    float* const to = y + static_cast<u64>(block_x()) * width;
    for (u32 c = thread_index(); c < width; c += threads_in_block()) to[c] = silu(gate[c]).value * gate[width + c];
}

// From gy [n, width] to ggu [n, 2 width]. Grid: n.
KERNEL(256, swiglu_backward, (u32 width, const float* gu, const float* gy, float* ggu)) {
    const u64 narrow = static_cast<u64>(block_x()) * width, wide = 2 * narrow;
    for (u32 c = thread_index(); c < width; c += threads_in_block()) {
        const Slope y = silu(gu[wide + c]);
        ggu[wide + c] = gy[narrow + c] * gu[wide + width + c] * y.derivative;
        ggu[wide + width + c] = gy[narrow + c] * y.value;
    }
}

// Exact GELU of n values. Grid: any.
KERNEL(256, gelu, (u64 n, const float* x, float* y)) {
    for (u64 i = first_value(); i < n; i += all_threads()) y[i] = gelu_exact(x[i]).value;
}

// Grid: any.
KERNEL(256, gelu_backward, (u64 n, const float* x, const float* gy, float* gx)) {
    for (u64 i = first_value(); i < n; i += all_threads()) gx[i] = gy[i] * gelu_exact(x[i]).derivative;
}

// y = residual + drop(x) over rows of d; residual may be null. Backward: the same with x = gy and no residual.
// A thread has 8 columns, which share a block of random numbers. Grid: any.
KERNEL(256, dropout_add, (u32 n, u32 d, Dropout drop, const float* x, const float* residual, float* y)) {
    const u32 groups = (d + 7) / 8;
    const u64 all = static_cast<u64>(n) * groups;
    for (u64 i = first_value(); i < all; i += all_threads()) {
        const u32 row = static_cast<u32>(i / groups), group = static_cast<u32>(i % groups);
        const u64 at = static_cast<u64>(row) * d + 8 * group;
        const u32 dropped = drop.threshold == 0 ? 0 : dropped_of_8(drop, dropout_row(drop, row), group);
        if (d % 8 == 0) {
            for (u32 half = 0; half < 2; half++) {
                const u64 place = at / 4 + half;
                Four value = reinterpret_cast<const Four*>(x)[place];
                const Four rest = residual ? reinterpret_cast<const Four*>(residual)[place] : Four{};
                for (u32 c = 0; c < 4; c++) {
                    const float factor = dropped >> (4 * half + c) & 1 ? 0.0f : drop.scale;
                    value.x[c] = residual ? fmaf(value.x[c], factor, rest.x[c]) : value.x[c] * factor;
                }
                reinterpret_cast<Four*>(y)[place] = value;
            }
        } else {
            for (u32 c = 0; c < 8 && 8 * group + c < d; c++) {
                const float factor = dropped >> c & 1 ? 0.0f : drop.scale;
                y[at + c] = residual ? fmaf(x[at + c], factor, residual[at + c]) : x[at + c] * factor;
            }
        }
    }
}
