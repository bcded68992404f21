// Attention over packed segments, forward: kernels/attention.rs. The softmax is made while going over the keys.
#include "attention.cuh"

// o [n, d]; stats [n, heads, 2] keeps each row's largest scaled score and 1 / sum. Grid: (tiles, heads). Shared:
// 4 (32 padded + 64 stride + 1024) bytes, see struct Block.
template <u32 COLUMNS>
DEVICE void forward(const Attention& a, const float* qkv, float* o, float* stats) {
    const Block b(a);
    SHARED_AT_LAUNCH(bytes);
    float* const queries = reinterpret_cast<float*>(bytes);  // [32, padded]
    float* const keys = queries + SIDE * b.padded;           // [32, stride]
    float* const values = keys + SIDE * b.stride;            // [32, stride]
    float* const weights = values + SIDE * b.stride + OWN * SIDE * warp_index();
    load_rows(b, qkv, 3 * a.d, b.own, queries, b.padded);

    const u32 lane = lane_index(), first = b.first();
    float sums[OWN][COLUMNS] = {}, top[OWN], total[OWN] = {};
    for (u32 r = 0; r < OWN; r++) top[r] = of_bits(0xff800000u);
    // Keys that some row of the block sees.
    const u32 last = a.causal && b.own + SIDE < b.length ? b.own + SIDE : b.length;
    for (u32 tile = 0; tile < last; tile += SIDE) {
        block_barrier();
        load_rows(b, qkv + a.d, 3 * a.d, tile, keys, b.stride);
        load_rows(b, qkv + 2 * a.d, 3 * a.d, tile, values, b.stride);
        copies_done();
        block_barrier();
        float s[OWN];
        products(b, queries + OWN * warp_index() * b.padded, keys, s);
        u32 dropped = 0;
        if (a.drop.threshold) {
            const u32 row = a.drop.first + b.start + first + lane / 4;
            dropped = dropped_of_8(a.drop, row, b.head * HEAD_BLOCKS + tile / 8 + lane % 4);
        }
#pragma unroll
        for (u32 r = 0; r < OWN; r++) {
            const bool sees = b.sees(a, first + r, tile + lane);
            const float x = sees ? score(a, b, first + r, tile + lane, s[r]) : of_bits(0xff800000u);
            const float most = warp_max(x), newest = most > top[r] ? most : top[r];
            // Rows behind the segment's end see nothing and become NaN; nobody stores them.
            const float weight = sees ? exponential(x - newest) : 0.0f, shrink = exponential(top[r] - newest);
            top[r] = newest;
            total[r] = total[r] * shrink + weight;
#pragma unroll
            for (u32 m = 0; m < COLUMNS; m++) sums[r][m] *= shrink;
            float factor = 1.0f;
            if (a.drop.threshold) {
                factor = shuffle(dropped, 4 * r + lane / 8) >> (lane % 8) & 1 ? 0.0f : a.drop.scale;
            }
            weights[r * SIDE + lane] = weight * factor;
        }
        warp_barrier();
        add_products(b, weights, values, sums);
    }
#pragma unroll
    for (u32 r = 0; r < OWN; r++) {
        const float inv = 1.0f / warp_sum(total[r]);
#pragma unroll
        for (u32 m = 0; m < COLUMNS; m++) sums[r][m] *= inv;
        if (lane == 0 && first + r < b.length) {
            stats[2 * b.place(a, first + r)] = top[r];
            stats[2 * b.place(a, first + r) + 1] = inv;
        }
    }
    store_rows(b, sums, o, a.d);
}

// For heads up to 64 and up to 128 columns wide.
KERNEL(128, attention_64, (Attention a, const float* qkv, float* o, float* stats)) { forward<2>(a, qkv, o, stats); }
KERNEL(128, attention_128, (Attention a, const float* qkv, float* o, float* stats)) { forward<4>(a, qkv, o, stats); }
