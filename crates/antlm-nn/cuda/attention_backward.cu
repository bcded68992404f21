// Attention over packed segments, backward, in two kernels: first every query gathers from its keys, then every key from
// its queries. Both make the weights again from the row's largest score and its sum. Shared in each:
// 4 (64 padded + 64 stride + 3072) bytes.
#include "attention.cuh"

// What the forward pass had and left, and the gradient that comes in.
struct Saved {
    const float* qkv;    // [n, 3 d]
    const float* o;      // [n, d]
    const float* go;     // [n, d]
    const float* stats;  // [n, heads, 2]
};

// Queries' gradients, in gqkv [n, 3 d]; means [n, heads] = o · go, for the kernel that follows; with positions the
// gradient of query_positions, gpositions [n, heads, 64]. Grid: (tiles of queries, heads).
template <u32 COLUMNS>
DEVICE void backward_queries(const Attention& a, const Saved& saved, float* gqkv, float* means, float* gpositions) {
    const Block b(a);
    SHARED_AT_LAUNCH(bytes);
    float* const queries = reinterpret_cast<float*>(bytes);  // [32, padded]
    float* const gos = queries + SIDE * b.padded;            // [32, padded]
    float* const keys = gos + SIDE * b.padded;               // [32, stride]
    float* const values = keys + SIDE * b.stride;            // [32, stride]
    float* const gradients = values + SIDE * b.stride + OWN * SIDE * warp_index();
    float* const positions = values + SIDE * b.stride + SIDE * SIDE + OWN * POSITIONS * warp_index();
    load_rows(b, saved.qkv, 3 * a.d, b.own, queries, b.padded);
    load_rows(b, saved.go, a.d, b.own, gos, b.padded);
    for (u32 e = lane_index(); e < OWN * POSITIONS; e += WARP) positions[e] = 0.0f;

    const u32 lane = lane_index(), first = b.first();
    float sums[OWN][COLUMNS] = {}, top[OWN], inv[OWN], mean[OWN];
#pragma unroll
    for (u32 r = 0; r < OWN; r++) {
        top[r] = inv[r] = mean[r] = 0.0f;
        if (first + r >= b.length) continue;  // the whole warp
        const u64 place = b.place(a, first + r), row = static_cast<u64>(b.start + first + r) * a.d + b.head * b.width;
        top[r] = saved.stats[2 * place];
        inv[r] = saved.stats[2 * place + 1];
        float along = 0.0f;
        for (u32 c = lane; c < b.width; c += WARP) along = fmaf(saved.o[row + c], saved.go[row + c], along);
        mean[r] = warp_sum(along);
        if (lane == 0) means[place] = mean[r];
    }
    const u32 last = a.causal && b.own + SIDE < b.length ? b.own + SIDE : b.length;
    for (u32 tile = 0; tile < last; tile += SIDE) {
        block_barrier();
        load_rows(b, saved.qkv + a.d, 3 * a.d, tile, keys, b.stride);
        load_rows(b, saved.qkv + 2 * a.d, 3 * a.d, tile, values, b.stride);
        copies_done();
        block_barrier();
        float s[OWN], along[OWN];
        products(b, queries + OWN * warp_index() * b.padded, keys, s);
        products(b, gos + OWN * warp_index() * b.padded, values, along);
        u32 dropped = 0;
        if (a.drop.threshold) {
            const u32 row = a.drop.first + b.start + first + lane / 4;
            dropped = dropped_of_8(a.drop, row, b.head * HEAD_BLOCKS + tile / 8 + lane % 4);
        }
#pragma unroll
        for (u32 r = 0; r < OWN; r++) {
            float factor = 1.0f, gradient = 0.0f;
            if (a.drop.threshold) {
                factor = shuffle(dropped, 4 * r + lane / 8) >> (lane % 8) & 1 ? 0.0f : a.drop.scale;
            }
            if (b.sees(a, first + r, tile + lane)) {
                const float x = score(a, b, first + r, tile + lane, s[r]);
                gradient = weigh(a, x, factor, along[r], top[r], inv[r], mean[r]).gradient;
            }
            gradients[r * SIDE + lane] = gradient;
        }
        warp_barrier();
        add_products(b, gradients, keys, sums);
        if (a.query_positions) {
            for (u32 r = 0; r < OWN; r++) {
                const int distance = static_cast<int>(first + r) - static_cast<int>(tile);
                add_by_position(gradients + r * SIDE, distance, -1, positions + r * POSITIONS);
            }
        }
    }
    store_rows(b, sums, gqkv, 3 * a.d);
    warp_barrier();
    if (a.query_positions) store_positions(a, b, first, OWN, positions, gpositions);
}

// Keys' and values' gradients, in gqkv [n, 3 d]; with positions the gradient of key_positions, gpositions [n, heads, 64].
// Grid: (tiles of keys, heads).
template <u32 COLUMNS>
DEVICE void backward_keys(const Attention& a, const Saved& saved, const float* means, float* gqkv, float* gpositions) {
    const Block b(a);
    SHARED_AT_LAUNCH(bytes);
    float* const keys = reinterpret_cast<float*>(bytes);  // [32, padded]
    float* const values = keys + SIDE * b.padded;         // [32, padded]
    float* const queries = values + SIDE * b.padded;      // [32, stride]
    float* const gos = queries + SIDE * b.stride;         // [32, stride]
    float* const weights = gos + SIDE * b.stride + OWN * SIDE * warp_index();
    float* const positions = gos + SIDE * b.stride + SIDE * SIDE + OWN * POSITIONS * warp_index();
    load_rows(b, saved.qkv + a.d, 3 * a.d, b.own, keys, b.padded);
    load_rows(b, saved.qkv + 2 * a.d, 3 * a.d, b.own, values, b.padded);
    for (u32 e = lane_index(); e < OWN * POSITIONS; e += WARP) positions[e] = 0.0f;

    const u32 lane = lane_index(), first = b.first();
    float of_keys[OWN][COLUMNS] = {}, of_values[OWN][COLUMNS] = {};
    for (u32 tile = a.causal ? b.own : 0; tile < b.length; tile += SIDE) {
        block_barrier();
        load_rows(b, saved.qkv, 3 * a.d, tile, queries, b.stride);
        load_rows(b, saved.go, a.d, tile, gos, b.stride);
        copies_done();
        block_barrier();
        float s[OWN], along[OWN];
        products(b, keys + OWN * warp_index() * b.padded, queries, s);
        products(b, values + OWN * warp_index() * b.padded, gos, along);
        // The lane's query, and what its row keeps of this warp's eight keys.
        const u32 i = tile + lane;
        float top = 0.0f, inv = 0.0f, mean = 0.0f;
        u32 dropped = 0;
        if (i < b.length) {
            const u64 place = b.place(a, i);
            top = saved.stats[2 * place];
            inv = saved.stats[2 * place + 1];
            mean = means[place];
            if (a.drop.threshold) {
                dropped = dropped_of_8(a.drop, a.drop.first + b.start + i, b.head * HEAD_BLOCKS + first / 8);
            }
        }
        float gradients[OWN];
#pragma unroll
        for (u32 r = 0; r < OWN; r++) {
            Weighed weighed = {0.0f, 0.0f};
            if (b.sees(a, i, first + r)) {
                const float factor = a.drop.threshold == 0 ? 1.0f : dropped >> r & 1 ? 0.0f : a.drop.scale;
                weighed = weigh(a, score(a, b, i, first + r, s[r]), factor, along[r], top, inv, mean);
            }
            weights[r * SIDE + lane] = weighed.weight;
            gradients[r] = weighed.gradient;
        }
        warp_barrier();
        add_products(b, weights, gos, of_values);
        warp_barrier();
#pragma unroll
        for (u32 r = 0; r < OWN; r++) weights[r * SIDE + lane] = gradients[r];
        warp_barrier();
        add_products(b, weights, queries, of_keys);
        if (a.query_positions) {
            for (u32 r = 0; r < OWN; r++) {
                const int distance = static_cast<int>(tile) - static_cast<int>(first + r);
                add_by_position(weights + r * SIDE, distance, 1, positions + r * POSITIONS);
            }
        }
    }
    store_rows(b, of_keys, gqkv + a.d, 3 * a.d);
    store_rows(b, of_values, gqkv + 2 * a.d, 3 * a.d);
    warp_barrier();
    if (a.query_positions) store_positions(a, b, first, OWN, positions, gpositions);
}

// For heads up to 64 and up to 128 columns wide.
KERNEL(128, attention_backward_queries_64, (Attention a, Saved saved, float* gqkv, float* means, float* gpositions)) {
    backward_queries<2>(a, saved, gqkv, means, gpositions);
}
KERNEL(128, attention_backward_queries_128, (Attention a, Saved saved, float* gqkv, float* means, float* gpositions)) {
    backward_queries<4>(a, saved, gqkv, means, gpositions);
}
KERNEL(128, attention_backward_keys_64, (Attention a, Saved saved, const float* means, float* gqkv, float* gpositions)) {
    backward_keys<2>(a, saved, means, gqkv, gpositions);
}
KERNEL(128, attention_backward_keys_128, (Attention a, Saved saved, const float* means, float* gqkv, float* gpositions)) {
    backward_keys<4>(a, saved, means, gqkv, gpositions);
}
