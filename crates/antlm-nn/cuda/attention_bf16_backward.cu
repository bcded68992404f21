// Attention over packed segments, backward, with its products on tensor cores: the two kernels of attention_backward.cu, for
// heads up to 64 columns wide. Shared in each: 43008 bytes.
#include "attention_bf16.cuh"

constexpr u32 WIDE = 64;

// What the forward pass had and left, and the gradient that comes in.
struct SavedBf16 {
    const u16* qkv;      // [n, 3 d]
    const float* o;      // [n, d]
    const u16* go;       // [n, d]
    const float* stats;  // [n, heads, 2]
};

// Behind the four tiles: gradients of scores [4, 16, 32], sums by position [4, 16, 64]; this warp's.
struct Scratch {
    float *gradients, *positions;

    DEVICE_MEMBER explicit Scratch(unsigned char* bytes) {
        float* const start = reinterpret_cast<float*>(bytes + 4 * TILE * (WIDE + 8) * sizeof(u16));
        gradients = start + ROWS * TILE * warp_index();
        positions = start + WARPS * ROWS * TILE + ROWS * POSITIONS * warp_index();
        for (u32 e = lane_index(); e < ROWS * POSITIONS; e += WARP) positions[e] = 0.0f;
    }

    // Adds a product's gradients by position; `distance` is that of its first row and column, `step` what a column adds.
    DEVICE_MEMBER void add(const Product& s, int distance, int step) const {
        const u32 g = lane_index() / 4, t = lane_index() % 4;
        warp_barrier();
        for (u32 e = 0; e < TILE / 2; e++) {
            gradients[(g + 8 * (e / 2 % 2)) * TILE + 8 * (e / 4) + 2 * t + e % 2] = s[e / 4][e % 4];
        }
        warp_barrier();
        for (u32 r = 0; r < ROWS; r++) {
            add_by_position(gradients + r * TILE, distance - step * static_cast<int>(r), step, positions + r * POSITIONS);
        }
    }

    // Writes them to rows first .. first + 16 of `to` [n, heads, 64].
    DEVICE_MEMBER void store(const Attention& a, const Block& b, u32 first, float* to) const {
        warp_barrier();
        store_positions(a, b, first, ROWS, positions, to);
    }
};

// Queries' gradients, in gqkv [n, 3 d]; means [n, heads] = o · go; gpositions [n, heads, 64] or null.
// Grid: (tiles of 64 queries, heads).
KERNEL(128, attention_bf16_backward_queries,
       (Attention a, SavedBf16 saved, float* gqkv, float* means, float* gpositions)) {
    const Block b(a);
    SHARED_AT_LAUNCH(bytes);
    const Scratch scratch(bytes);
    const auto load = [&](u32 tile) {
        u16* const to = pair_of_tiles<WIDE>(bytes, tile);
        load_tile<WIDE>(b, saved.qkv + a.d, 3 * a.d, tile, to);
        load_tile<WIDE>(b, saved.qkv + 2 * a.d, 3 * a.d, tile, to + TILE * (WIDE + 8));
    };
    const u32 g = lane_index() / 4, t = lane_index() % 4, first = b.own + ROWS * warp_index();
    u32 queries[WIDE / 16][4], gos[WIDE / 16][4];
    load_own(b, saved.qkv, 3 * a.d, first, queries);
    load_own(b, saved.go, a.d, first, gos);
    float top[2], inv[2], mean[2], sums[WIDE / 8][4] = {};
#pragma unroll
    for (u32 half = 0; half < 2; half++) {
        const u32 i = first + g + 8 * half;
        const u64 row = static_cast<u64>(b.start + i) * a.d + b.head * b.width;
        float along = 0.0f;
        for (u32 c = t; c < b.width && i < b.length; c += 4) {
            along = fmaf(saved.o[row + c], bf16_value(saved.go[row + c]), along);
        }
        mean[half] = row_sum(along);
        top[half] = i < b.length ? saved.stats[2 * b.place(a, i)] : 0.0f;
        inv[half] = i < b.length ? saved.stats[2 * b.place(a, i) + 1] : 0.0f;
        if (t == 0 && i < b.length) means[b.place(a, i)] = mean[half];
    }
    const u32 behind = b.own + WARPS * ROWS, last = a.causal && behind < b.length ? behind : b.length;
    load(0);
    for (u32 tile = 0; tile < last; tile += TILE) {
        copies_done();
        block_barrier();
        if (tile + TILE < last) load(tile + TILE);
        const u16* const keys = pair_of_tiles<WIDE>(bytes, tile);
        Product s, along;
        multiply(queries, keys, s);
        multiply(gos, keys + TILE * (WIDE + 8), along);
        u32 dropped[2];
        drop_of_rows(a, b, first, tile, dropped);
#pragma unroll
        for (u32 half = 0; half < 2; half++) {
            const u32 i = first + g + 8 * half;
#pragma unroll
            for (u32 k = 0; k < TILE / 8; k++) {
                const u32 bits = a.drop.threshold ? shuffle(dropped[half], 4 * g + k) : 0;
#pragma unroll
                for (u32 e = 0; e < 2; e++) {
                    const u32 j = tile + 8 * k + 2 * t + e;
                    float& x = s[k][2 * half + e];
                    const float factor = bits >> (2 * t + e) & 1 ? 0.0f : a.drop.scale;
                    const bool sees = b.sees(a, i, j);
                    const float scored = sees ? score(a, b, i, j, x) : 0.0f;
                    x = sees ? weigh(a, scored, factor, along[k][2 * half + e], top[half], inv[half], mean[half]).gradient
                             : 0.0f;
                }
            }
        }
        multiply_add<WIDE>(s, keys, sums);
        if (a.query_positions) scratch.add(s, static_cast<int>(first) - static_cast<int>(tile), -1);
    }
    store_sums<WIDE>(b, sums, first, gqkv, 3 * a.d);
    if (a.query_positions) scratch.store(a, b, first, gpositions);
}

// Keys' and values' gradients, in gqkv [n, 3 d]; gpositions [n, heads, 64] or null. Products have keys as rows and queries
// as columns. Grid: (tiles of 64 keys, heads).
KERNEL(128, attention_bf16_backward_keys,
       (Attention a, SavedBf16 saved, const float* means, float* gqkv, float* gpositions)) {
    const Block b(a);
    SHARED_AT_LAUNCH(bytes);
    const Scratch scratch(bytes);
    const auto load = [&](u32 tile) {
        u16* const to = pair_of_tiles<WIDE>(bytes, tile);
        load_tile<WIDE>(b, saved.qkv, 3 * a.d, tile, to);
        load_tile<WIDE>(b, saved.go, a.d, tile, to + TILE * (WIDE + 8));
    };
    const u32 g = lane_index() / 4, t = lane_index() % 4, first = b.own + ROWS * warp_index();
    u32 keys[WIDE / 16][4], values[WIDE / 16][4];
    load_own(b, saved.qkv + a.d, 3 * a.d, first, keys);
    load_own(b, saved.qkv + 2 * a.d, 3 * a.d, first, values);
    float of_keys[WIDE / 8][4] = {}, of_values[WIDE / 8][4] = {};
    const u32 begin = a.causal ? b.own : 0;
    load(begin);
    for (u32 tile = begin; tile < b.length; tile += TILE) {
        copies_done();
        block_barrier();
        if (tile + TILE < b.length) load(tile + TILE);
        const u16* const queries = pair_of_tiles<WIDE>(bytes, tile);
        const u16* const gos = queries + TILE * (WIDE + 8);
        Product s, weights;
        multiply(keys, queries, s);
        multiply(values, gos, weights);
        // What query `tile + lane` drops of this warp's first and last eight keys.
        u32 dropped[2] = {0, 0};
        for (u32 half = 0; half < 2 && a.drop.threshold; half++) {
            const u32 row = a.drop.first + b.start + tile + lane_index();
            dropped[half] = dropped_of_8(a.drop, row, b.head * HEAD_BLOCKS + first / 8 + half);
        }
#pragma unroll
        for (u32 e = 0; e < TILE / 4; e++) {
            const u32 column = 8 * (e / 2) + 2 * t + e % 2, i = tile + column;
            const u64 place = b.place(a, i < b.length ? i : 0);
            const float top = saved.stats[2 * place], inv = saved.stats[2 * place + 1], mean = means[place];
#pragma unroll
            for (u32 half = 0; half < 2; half++) {
                const u32 j = first + g + 8 * half;
                const u32 bits = a.drop.threshold ? shuffle(dropped[half], column) : 0;
                float &x = s[e / 2][2 * half + e % 2], &weight = weights[e / 2][2 * half + e % 2];
                Weighed weighed = {0.0f, 0.0f};
                if (b.sees(a, i, j)) {
                    const float factor = bits >> g & 1 ? 0.0f : a.drop.scale;
                    weighed = weigh(a, score(a, b, i, j, x), factor, weight, top, inv, mean);
                }
                x = weighed.gradient;
                weight = weighed.weight;
            }
        }
        multiply_add<WIDE>(weights, gos, of_values);
        multiply_add<WIDE>(s, queries, of_keys);
        if (a.query_positions) scratch.add(s, static_cast<int>(tile) - static_cast<int>(first), 1);
    }
    store_sums<WIDE>(b, of_keys, first, gqkv + a.d, 3 * a.d);
    store_sums<WIDE>(b, of_values, first, gqkv + 2 * a.d, 3 * a.d);
    if (a.query_positions) scratch.store(a, b, first, gpositions);
}
