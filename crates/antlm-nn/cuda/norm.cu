// Layer norm and root-mean-square norm over rows, forward and backward: kernels/norm.rs. A warp a row, in the order of
// the CPU's sums, so the results have its bits.
#include "columns.cuh"
#include "math.cuh"
#include "random.cuh"

// y = residual + drop(γ x̂ + β): x [n, d] -> y [n, d]; stats [n, 2] keeps mean and 1/σ. Without gamma (null) y = x̂.
// Grid: ceil(n / 4).
KERNEL(128, layer_norm,
       (u32 n, u32 d, const float* x, const float* gamma, const float* beta, const float* residual, Dropout drop,
        float eps, float* y, float* stats)) {
    const u32 row = row_of_warp();
    if (row >= n) return;
    const u64 start = static_cast<u64>(row) * d;
    const Moments m = moments(d, eps, [=](u32 c) { return x[start + c]; });
    if (lane_index() == 0) {
        stats[2 * row] = m.mean;
        stats[2 * row + 1] = m.inv;
    }
    RowDropout factors{drop, dropout_row(drop, row)};
    for (u32 stride = 0; stride * WARP < d; stride++) {
        const float factor = factors.next(stride);
        const u32 c = stride * WARP + lane_index();
        if (c >= d) continue;
        float value = (x[start + c] - m.mean) * m.inv;
        if (gamma) value = fmaf(value, gamma[c], beta[c]);
        value *= factor;
        if (residual) value += residual[start + c];
        y[start + c] = value;
    }
}

// From gy [n, d] to gx [n, d], added when `add`, else written. Grid: ceil(n / 4).
KERNEL(128, layer_norm_backward,
       (u32 n, u32 d, const float* x, const float* stats, const float* gamma, Dropout drop, const float* gy, float* gx,
        u32 add)) {
    const u32 row = row_of_warp();
    if (row >= n) return;
    const u64 start = static_cast<u64>(row) * d;
    const float mean = stats[2 * row], inv = stats[2 * row + 1], scale = 1.0f / static_cast<float>(d);
    // Twice over the row: the gradient of x̂ is made again, with its mask, rather than kept.
    float sum = 0.0f, along = 0.0f;
    for (u32 pass = 0; pass < 2; pass++) {
        RowDropout factors{drop, dropout_row(drop, row)};
        for (u32 stride = 0; stride * WARP < d; stride++) {
            const float factor = factors.next(stride);
            const u32 c = stride * WARP + lane_index();
            if (c >= d) continue;
            const float normed = (x[start + c] - mean) * inv;
            float h = gy[start + c] * factor;
            if (gamma) h *= gamma[c];
            if (pass == 0) {
                sum += h;
                along = fmaf(h, normed, along);
            } else {
                const float inner = fmaf(-along, normed, h - sum);
                gx[start + c] = add ? fmaf(inv, inner, gx[start + c]) : inv * inner;
            }
        }
        if (pass == 0) {
            sum = warp_sum(sum) * scale;
            along = warp_sum(along) * scale;
        }
    }
}

// The gradients of γ and β, summed in blocks of 64 rows: [ceil(n / 64), d] each. Grid: (ceil(d / 128), ceil(n / 64)).
KERNEL(128, layer_norm_backward_affine,
       (u32 n, u32 d, const float* x, const float* stats, Dropout drop, const float* gy, float* gamma_partials,
        float* beta_partials)) {
    ColumnDropout factors{drop, n, block_x() * 4 + warp_index()};
    float ggamma = 0.0f, gbeta = 0.0f;
    const u32 first = block_y() * COLUMN_ROWS;
    const u32 c = down_columns(n, [&](u32 row, u32 i, u32 c) {
        const float factor = factors.next(first, i);
        if (c >= d) return;
        const u64 at = static_cast<u64>(row) * d + c;
        const float h = gy[at] * factor;
        ggamma = fmaf(h, (x[at] - stats[2 * row]) * stats[2 * row + 1], ggamma);
        gbeta += h;
    });
    if (c < d) {
        gamma_partials[static_cast<u64>(block_y()) * d + c] = ggamma;
        beta_partials[static_cast<u64>(block_y()) * d + c] = gbeta;
    }
}

// y = w x / √(mean(x²) + eps); stats [n] keeps 1 / rms. Grid: ceil(n / 4).
KERNEL(128, rms_norm, (u32 n, u32 d, const float* x, const float* w, float eps, float* y, float* stats)) {
    const u32 row = row_of_warp();
    if (row >= n) return;
    const u64 start = static_cast<u64>(row) * d;
    float squares = 0.0f;
    for (u32 c = lane_index(); c < d; c += WARP) squares = fmaf(x[start + c], x[start + c], squares);
    const float inv = 1.0f / sqrtf(warp_sum(squares) / static_cast<float>(d) + eps);
    if (lane_index() == 0) stats[row] = inv;
    for (u32 c = lane_index(); c < d; c += WARP) y[start + c] = w[c] * (x[start + c] * inv);
}

// From gy [n, d] to gx [n, d], added when `add`, else written. Grid: ceil(n / 4).
KERNEL(128, rms_norm_backward,
       (u32 n, u32 d, const float* x, const float* w, const float* stats, const float* gy, float* gx, u32 add)) {
    const u32 row = row_of_warp();
    if (row >= n) return;
    const u64 start = static_cast<u64>(row) * d;
    const float inv = stats[row];
    float along = 0.0f;
    for (u32 c = lane_index(); c < d; c += WARP) along = fmaf(gy[start + c] * w[c], x[start + c], along);
    along = inv * inv * (warp_sum(along) / static_cast<float>(d));
    for (u32 c = lane_index(); c < d; c += WARP) {
        const float inner = fmaf(-along, x[start + c], gy[start + c] * w[c]);
        gx[start + c] = add ? fmaf(inv, inner, gx[start + c]) : inv * inner;
    }
}

// The gradient of w, summed in blocks of 64 rows: [ceil(n / 64), d]. Grid: (ceil(d / 128), ceil(n / 64)).
KERNEL(128, rms_norm_backward_weight,
       (u32 n, u32 d, const float* x, const float* stats, const float* gy, float* partials)) {
    float gw = 0.0f;
    const u32 c = down_columns(n, [&](u32 row, u32, u32 c) {
        const u64 at = static_cast<u64>(row) * d + c;
        if (c < d) gw = fmaf(gy[at], x[at] * stats[row], gw);
    });
    if (c < d) partials[static_cast<u64>(block_y()) * d + c] = gw;
}
