// Attention over packed segments, forward, with both products on tensor cores; scores and softmax in f32.
#include "attention_bf16.cuh"

// qkv [n, 3 d] in bf16, o [n, d]; stats as attention.cu. Grid: (tiles of 64 queries, heads). Shared: 256 (WIDTH + 8) bytes.
template <u32 WIDTH>
DEVICE void forward_bf16(const Attention& a, const u16* qkv, float* o, float* stats) {
    const Block b(a);
    SHARED_AT_LAUNCH(bytes);
    const auto load = [&](u32 tile) {
        u16* const to = pair_of_tiles<WIDTH>(bytes, tile);
        load_tile<WIDTH>(b, qkv + a.d, 3 * a.d, tile, to);
        load_tile<WIDTH>(b, qkv + 2 * a.d, 3 * a.d, tile, to + TILE * (WIDTH + 8));
    };
    const u32 g = lane_index() / 4, t = lane_index() % 4, first = b.own + ROWS * warp_index();
    u32 queries[WIDTH / 16][4];
    load_own(b, qkv, 3 * a.d, first, queries);
    float sums[WIDTH / 8][4] = {}, top[2] = {of_bits(0xff800000u), of_bits(0xff800000u)}, total[2] = {};
    const u32 behind = b.own + WARPS * ROWS, last = a.causal && behind < b.length ? behind : b.length;
    load(0);
    for (u32 tile = 0; tile < last; tile += TILE) {
        copies_done();
        block_barrier();
        if (tile + TILE < last) load(tile + TILE);
        const u16* const keys = pair_of_tiles<WIDTH>(bytes, tile);
        Product s;
        multiply(queries, keys, s);
        u32 dropped[2];
        drop_of_rows(a, b, first, tile, dropped);
#pragma unroll
        for (u32 half = 0; half < 2; half++) {
            const u32 i = first + g + 8 * half;
            float newest = top[half];
#pragma unroll
            for (u32 e = 0; e < TILE / 4; e++) {
                const u32 j = tile + 8 * (e / 2) + 2 * t + e % 2;
                float& x = s[e / 2][2 * half + e % 2];
                x = b.sees(a, i, j) ? score(a, b, i, j, x) : of_bits(0xff800000u);
                if (x > newest) newest = x;
            }
            newest = row_max(newest);
            // As in attention.cu, rows behind the end become NaN and are not stored.
            const float shrink = exponential(top[half] - newest);
            top[half] = newest;
            total[half] *= shrink;
#pragma unroll
            for (u32 c = 0; c < WIDTH / 8; c++) {
                sums[c][2 * half] *= shrink;
                sums[c][2 * half + 1] *= shrink;
            }
#pragma unroll
            for (u32 k = 0; k < TILE / 8; k++) {
                const u32 bits = a.drop.threshold ? shuffle(dropped[half], 4 * g + k) : 0;
#pragma unroll
                for (u32 e = 0; e < 2; e++) {
                    float& x = s[k][2 * half + e];
                    const float weight = exponential(x - newest);
                    total[half] += weight;
                    x = bits >> (2 * t + e) & 1 ? 0.0f : weight * a.drop.scale;
                }
            }
        }
        multiply_add<WIDTH>(s, keys + TILE * (WIDTH + 8), sums);
    }
#pragma unroll
    for (u32 half = 0; half < 2; half++) {
        const u32 i = first + g + 8 * half;
        const float inv = 1.0f / row_sum(total[half]);
#pragma unroll
        for (u32 c = 0; c < WIDTH / 8; c++) {
            sums[c][2 * half] *= inv;
            sums[c][2 * half + 1] *= inv;
        }
        if (t == 0 && i < b.length) {
            stats[2 * b.place(a, i)] = top[half];
            stats[2 * b.place(a, i) + 1] = inv;
        }
    }
    store_sums<WIDTH>(b, sums, first, o, a.d);
}

// For heads up to 64 and up to 128 columns wide.
KERNEL(128, attention_bf16_64, (Attention a, const u16* qkv, float* o, float* stats)) {
    forward_bf16<64>(a, qkv, o, stats);
}
KERNEL(128, attention_bf16_128, (Attention a, const u16* qkv, float* o, float* stats)) {
    forward_bf16<128>(a, qkv, o, stats);
}
