// Attention over packed segments, forward, with both products on tensor cores: operands in bf16, sums, scores and softmax
// in f32. A warp has 16 queries, a block 64; the next tile of 32 keys comes in while the present one is worked on.
#include "attention.cuh"

constexpr u32 KEYS = 32;    // keys of a tile
constexpr u32 QUERIES = 16;  // queries of a warp

// Columns c and c + 1 of a row of bf16 numbers; zeros where there is no row or column.
DEVICE u32 pair_of(const u16* row, u32 c, u32 width, bool there) {
    const u32 low = there && c < width ? row[c] : 0, high = there && c + 1 < width ? row[c + 1] : 0;
    return low | high << 16;
}

// Copies rows first .. first + 32 of the segment, this head's columns of `from` [n, 3 d], to shared memory [32, WIDTH + 8].
template <u32 WIDTH>
DEVICE void load_keys(const Attention& a, const Block& b, const u16* from, u32 first, u16* to) {
    for (u32 e = thread_index(); e < KEYS * WIDTH / 8; e += threads_in_block()) {
        const u32 i = e / (WIDTH / 8), c = 8 * (e % (WIDTH / 8));
        const bool there = first + i < b.length;
        const u16* const row = from + static_cast<u64>(b.start + first + i) * 3 * a.d + b.head * b.width;
        u16* const place = to + i * (WIDTH + 8) + c;
        if (there && b.width % 8 == 0 && c < b.width) {
            copy_16(place, row + c);
        } else {
            for (u32 k = 0; k < 8; k++) place[k] = there && c + k < b.width ? row[c + k] : 0;
        }
    }
}

// qkv [n, 3 d] in bf16, o [n, d]; stats as attention.cu. Grid: (tiles of 64 queries, heads). Shared: 256 (WIDTH + 8) bytes.
template <u32 WIDTH>
DEVICE void forward_bf16(const Attention& a, const u16* qkv, float* o, float* stats) {
    constexpr u32 STEPS = WIDTH / 16, STRIDE = WIDTH + 8;
    const Block b(a);
    SHARED_AT_LAUNCH(bytes);
    u16* const tiles = reinterpret_cast<u16*>(bytes);  // [2, keys and values, 32, STRIDE]
    const auto load = [&](u32 tile) {
        u16* const to = tiles + tile / KEYS % 2 * 2 * KEYS * STRIDE;
        load_keys<WIDTH>(a, b, qkv + a.d, tile, to);
        load_keys<WIDTH>(a, b, qkv + 2 * a.d, tile, to + KEYS * STRIDE);
    };
    // mma's places: rows g and g + 8, columns 2 t and 2 t + 1 of every 8.
    const u32 g = lane_index() / 4, t = lane_index() % 4, first = b.own + QUERIES * warp_index() + g;
    u32 queries[STEPS][4];
#pragma unroll
    for (u32 step = 0; step < STEPS; step++) {
#pragma unroll
        for (u32 r = 0; r < 4; r++) {
            const u32 i = first + 8 * (r % 2);
            const u16* const row = qkv + static_cast<u64>(b.start + i) * 3 * a.d + b.head * b.width;
            queries[step][r] = pair_of(row, 16 * step + 2 * t + 8 * (r / 2), b.width, i < b.length);
        }
    }
    float sums[WIDTH / 8][4] = {}, top[2] = {of_bits(0xff800000u), of_bits(0xff800000u)}, total[2] = {};
    const u32 behind = b.own + 4 * QUERIES, last = a.causal && behind < b.length ? behind : b.length;
    load(0);
    for (u32 tile = 0; tile < last; tile += KEYS) {
        copies_done();
        block_barrier();
        if (tile + KEYS < last) load(tile + KEYS);
        const u16* const keys = tiles + tile / KEYS % 2 * 2 * KEYS * STRIDE;
        const u16* const values = keys + KEYS * STRIDE;

        float s[KEYS / 8][4] = {};
#pragma unroll
        for (u32 block = 0; block < KEYS / 8; block++) {
#pragma unroll
            for (u32 step = 0; step < STEPS; step++) {
                const u16* const key = keys + (8 * block + g) * STRIDE + 16 * step + 2 * t;
                const u32 right[2] = {pair_at(key), pair_at(key + 8)};
                mma_16x8x16(s[block], queries[step], right);
            }
        }
        // Of the four lanes that share two rows, lane t makes the masks of the t-th eight keys.
        u32 dropped[2] = {0, 0};
        if (a.drop.threshold) {
            for (u32 half = 0; half < 2; half++) {
                const u32 row = a.drop.first + b.start + first + 8 * half;
                dropped[half] = dropped_of_8(a.drop, row, b.head * HEAD_BLOCKS + tile / 8 + t);
            }
        }
#pragma unroll
        for (u32 half = 0; half < 2; half++) {
            const u32 i = first + 8 * half;
            float newest = top[half];
#pragma unroll
            for (u32 e = 0; e < KEYS / 4; e++) {
                const u32 j = tile + 8 * (e / 2) + 2 * t + e % 2;
                float& x = s[e / 2][2 * half + e % 2];
                x = b.sees(a, i, j) ? score(a, b, i, j, x) : of_bits(0xff800000u);
                if (x > newest) newest = x;
            }
            for (u32 mask = 1; mask < 4; mask *= 2) {
                const float other = shuffle_xor(newest, mask);
                if (other > newest) newest = other;
            }
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
            for (u32 block = 0; block < KEYS / 8; block++) {
                const u32 bits = a.drop.threshold ? shuffle(dropped[half], 4 * g + block) : 0;
#pragma unroll
                for (u32 e = 0; e < 2; e++) {
                    float& x = s[block][2 * half + e];
                    const float weight = exponential(x - newest);
                    total[half] += weight;
                    x = bits >> (2 * t + e) & 1 ? 0.0f : weight * a.drop.scale;
                }
            }
        }
        // The scores' places are those of a left operand, two blocks of eight keys side by side.
#pragma unroll
        for (u32 step = 0; step < KEYS / 16; step++) {
            u32 left[4];
#pragma unroll
            for (u32 r = 0; r < 4; r++) {
                const float* const two = s[2 * step + r / 2] + 2 * (r % 2);
                left[r] = bf16_pair(two[0], two[1]);
            }
#pragma unroll
            for (u32 c = 0; c < WIDTH / 8; c++) {
                const u16* const value = values + (16 * step + 2 * t) * STRIDE + 8 * c + g;
                const u32 right[2] = {value[0] | static_cast<u32>(value[STRIDE]) << 16,
                                      value[8 * STRIDE] | static_cast<u32>(value[9 * STRIDE]) << 16};
                mma_16x8x16(sums[c], left, right);
            }
        }
    }
#pragma unroll
    for (u32 half = 0; half < 2; half++) {
        const u32 i = first + 8 * half;
        for (u32 mask = 1; mask < 4; mask *= 2) total[half] += shuffle_xor(total[half], mask);
        if (i >= b.length) continue;
        const float inv = 1.0f / total[half];
        float* const row = o + static_cast<u64>(b.start + i) * a.d + b.head * b.width;
#pragma unroll
        for (u32 e = 0; e < WIDTH / 4; e++) {
            const u32 c = 8 * (e / 2) + 2 * t + e % 2;
            if (c < b.width) row[c] = sums[e / 2][2 * half + e % 2] * inv;
        }
        if (t == 0) {
            stats[2 * b.place(a, i)] = top[half];
            stats[2 * b.place(a, i) + 1] = inv;
        }
    }
}

// For heads up to 64 and up to 128 columns wide.
KERNEL(128, attention_bf16_64, (Attention a, const u16* qkv, float* o, float* stats)) {
    forward_bf16<64>(a, qkv, o, stats);
}
KERNEL(128, attention_bf16_128, (Attention a, const u16* qkv, float* o, float* stats)) {
    forward_bf16<128>(a, qkv, o, stats);
}
