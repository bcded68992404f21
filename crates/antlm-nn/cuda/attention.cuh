// What the three attention kernels share. A block has 32 rows of one head of one segment of its own (queries, or keys in
// the backward pass of keys), four warps with 8 rows each, and goes over the segment's other side in tiles of 32, one row
// a lane. Nothing of size T x T exists, and what a row gets is summed by one warp from the first tile to the last.
#pragma once
#include "math.cuh"
#include "random.cuh"
#include "relative.cuh"

constexpr u32 OWN = 8;           // own rows of a warp
constexpr u32 SIDE = 32;         // own rows of a block; rows of a tile
constexpr u32 HEAD_BLOCKS = 8192;  // blocks of 8 columns that a head has for its random numbers

// The operands besides qkv [n, 3 d], and what does not change from row to row.
struct Attention {
    // Products with the projected positions, made before: q·kᵖ and k·qᵖ, [n, heads, 64] with 63 columns in use; or null.
    const float* query_positions;
    const float* key_positions;
    const u32* tiles;  // [tiles, 3]: a segment's first row, its end, the first of a block's own rows
    u32 d, heads;
    float scale;
    u32 causal;
    Dropout drop;
};

// The head and the rows of this block.
struct Block {
    u32 head, width, padded;  // padded: the width rounded up to 4
    u32 start, length, own;   // the segment's first row in the batch, its rows, this block's first row in the segment
    u32 stride;               // of tiles whose rows lanes read side by side: an odd number of 16 bytes

    DEVICE_MEMBER Block(const Attention& a) {
        head = block_y();
        width = a.d / a.heads;
        padded = (width + 3) / 4 * 4;
        stride = padded / 4 % 2 == 0 ? padded + 4 : padded;
        const u32* tile = a.tiles + 3 * block_x();
        start = tile[0];
        length = tile[1] - tile[0];
        own = tile[2] - tile[0];
    }

    // First own row of this warp, in the segment.
    DEVICE_MEMBER u32 first() const { return own + OWN * warp_index(); }
    // Where a table [n, heads, …] has row `i` of the segment.
    DEVICE_MEMBER u64 place(const Attention& a, u32 i) const { return static_cast<u64>(start + i) * a.heads + head; }
    // Whether query i sees key j.
    DEVICE_MEMBER bool sees(const Attention& a, u32 i, u32 j) const {
        return i < length && j < length && (!a.causal || j <= i);
    }
};

// Copies rows first .. first + 32 of the segment, this head's columns of `from` [n, row], to shared memory; zeros where
// there is no row or column. Whoever calls it calls copies_done and a barrier afterwards.
DEVICE void load_rows(const Block& b, const float* from, u32 row, u32 first, float* to, u32 stride) {
    const u32 fours = b.padded / 4;
    for (u32 e = thread_index(); e < SIDE * fours; e += threads_in_block()) {
        const u32 i = e / fours, c = 4 * (e % fours);
        float* const there = to + i * stride + c;
        const float* const here = from + static_cast<u64>(b.start + first + i) * row + b.head * b.width + c;
        if (first + i < b.length && b.width % 4 == 0) {
            copy_16(there, here);
        } else {
            for (u32 k = 0; k < 4; k++) there[k] = first + i < b.length && c + k < b.width ? here[k] : 0.0f;
        }
    }
}

DEVICE Four four_at(const float* x) { return *reinterpret_cast<const Four*>(x); }

// s[r] = own row r · this lane's row of a tile.
DEVICE void products(const Block& b, const float* own, const float* tile, float (&s)[OWN]) {
    const float* const mine = tile + lane_index() * b.stride;
    for (u32 r = 0; r < OWN; r++) s[r] = 0.0f;
    for (u32 c = 0; c < b.padded; c += 4) {
        const Four x = four_at(mine + c);
#pragma unroll
        for (u32 r = 0; r < OWN; r++) {
            const Four y = four_at(own + r * b.padded + c);
            for (u32 k = 0; k < 4; k++) s[r] = fmaf(y.x[k], x.x[k], s[r]);
        }
    }
}

// sums[r][m] += Σ weights[r][x] tile[x][c] for this lane's columns c = lane + 32 m; weights [8, 32] are shared.
template <u32 COLUMNS>
DEVICE void add_products(const Block& b, const float* weights, const float* tile, float (&sums)[OWN][COLUMNS]) {
    for (u32 x = 0; x < SIDE; x += 4) {
        float rows[4][COLUMNS];
#pragma unroll
        for (u32 k = 0; k < 4; k++) {
#pragma unroll
            for (u32 m = 0; m < COLUMNS; m++) {
                const u32 c = lane_index() + WARP * m;
                rows[k][m] = c < b.width ? tile[(x + k) * b.stride + c] : 0.0f;
            }
        }
#pragma unroll
        for (u32 r = 0; r < OWN; r++) {
            const Four w = four_at(weights + r * SIDE + x);
#pragma unroll
            for (u32 k = 0; k < 4; k++) {
#pragma unroll
                for (u32 m = 0; m < COLUMNS; m++) sums[r][m] = fmaf(w.x[k], rows[k][m], sums[r][m]);
            }
        }
    }
}

// Writes sums[r] to this warp's rows of `to` [n, row], this head's columns.
template <u32 COLUMNS>
DEVICE void store_rows(const Block& b, const float (&sums)[OWN][COLUMNS], float* to, u32 row) {
#pragma unroll
    for (u32 r = 0; r < OWN; r++) {
        if (b.first() + r >= b.length) continue;
        float* const there = to + static_cast<u64>(b.start + b.first() + r) * row + b.head * b.width;
#pragma unroll
        for (u32 m = 0; m < COLUMNS; m++) {
            const u32 c = lane_index() + WARP * m;
            if (c < b.width) there[c] = sums[r][m];
        }
    }
}

// The scaled score of query i and key j from their product; both must be rows of the segment where there are positions.
DEVICE float score(const Attention& a, const Block& b, u32 i, u32 j, float product) {
    if (a.query_positions) {
        const u32 row = static_cast<u32>(relative_row(static_cast<int>(i) - static_cast<int>(j)));
        product += a.query_positions[b.place(a, i) * POSITIONS + row] + a.key_positions[b.place(a, j) * POSITIONS + row];
    }
    return product * a.scale;
}

// Adds the values of a tile's row (32, shared), whose distances are first, first ± 1, …, to sums [64] by their rows of
// positions. A lane has a row of positions, so no two add to the same place.
DEVICE void add_by_position(const float* values, int first, int step, float* sums) {
    const int row = relative_row(first) + step * static_cast<int>(lane_index());
    if (row < 0 || row >= POSITION_ROWS) return;
    const Distances of = distances_of_row(row);
    const int low = step > 0 ? of.low - first : first - of.high, high = step > 0 ? of.high - first : first - of.low;
    const int from = low < 0 ? 0 : low, to = high > static_cast<int>(SIDE) - 1 ? static_cast<int>(SIDE) - 1 : high;
    if (from > to) return;
    float sum = 0.0f;
    for (int x = from; x <= to; x++) sum += values[x];
    sums[row] += sum;
}

// Writes a warp's sums by position, shared [count, 64], to rows first .. first + count of `to` [n, heads, 64].
DEVICE void store_positions(const Attention& a, const Block& b, u32 first, u32 count, const float* sums, float* to) {
    for (u32 r = 0; r < count && first + r < b.length; r++) {
        float* const there = to + b.place(a, first + r) * POSITIONS;
        for (u32 c = lane_index(); c < POSITIONS; c += WARP) there[c] = sums[r * POSITIONS + c];
    }
}

// A score's gradient and the weight after dropout.
struct Weighed {
    float gradient, weight;
};

// From the scaled score of a pair, its dropout factor, go · v, and the row's largest score, 1 / sum and o · go.
DEVICE Weighed weigh(const Attention& a, float score, float factor, float along, float top, float inv, float mean) {
    const float weight = exponential(score - top) * inv;
    return {weight * a.scale * fmaf(factor, along, -mean), weight * factor};
}
