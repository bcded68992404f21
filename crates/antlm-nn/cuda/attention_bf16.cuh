// What the kernels of attention on tensor cores share. A warp has 16 own rows, a block 64, of one head of one segment; the
// other side comes in tiles of 32 rows, the next while the present one is worked on. Operands are bf16, sums f32.
#pragma once
#include "attention.cuh"

constexpr u32 TILE = 32;   // rows of a tile
constexpr u32 ROWS = 16;   // own rows of a warp
constexpr u32 WARPS = 4;   // of a block

// A warp's product with a tile, [16, 32], as mma has it: with g = lane / 4 and t = lane % 4, place [k][2 half + e] is row
// g + 8 half, column 8 k + 2 t + e.
using Product = float[TILE / 8][4];

// Columns c and c + 1 of a row of bf16 numbers; zeros where there is no row or column.
DEVICE u32 pair_of(const u16* row, u32 c, u32 width, bool there) {
    const u32 low = there && c < width ? row[c] : 0, high = there && c + 1 < width ? row[c + 1] : 0;
    return low | high << 16;
}

// Two tiles of shared memory, [32, WIDTH + 8] each, and the same for the next: where those of this tile are.
template <u32 WIDTH>
DEVICE u16* pair_of_tiles(unsigned char* bytes, u32 tile) {
    return reinterpret_cast<u16*>(bytes) + tile / TILE % 2 * 2 * TILE * (WIDTH + 8);
}

// Begins to copy rows first .. first + 32 of the segment, this head's columns of `from` [n, length], to shared memory.
template <u32 WIDTH>
DEVICE void load_tile(const Block& b, const u16* from, u32 length, u32 first, u16* to) {
    for (u32 e = thread_index(); e < TILE * WIDTH / 8; e += threads_in_block()) {
        const u32 i = e / (WIDTH / 8), c = 8 * (e % (WIDTH / 8));
        const bool there = first + i < b.length;
        const u16* const row = from + static_cast<u64>(b.start + first + i) * length + b.head * b.width;
        u16* const place = to + i * (WIDTH + 8) + c;
        if (there && b.width % 8 == 0 && c < b.width) {
            copy_16(place, row + c);
        } else {
            for (u32 k = 0; k < 8; k++) place[k] = there && c + k < b.width ? row[c + k] : 0;
        }
    }
}

// This warp's own rows from `first` on, this head's columns of `from` [n, length], as left operands.
template <u32 STEPS>
DEVICE void load_own(const Block& b, const u16* from, u32 length, u32 first, u32 (&own)[STEPS][4]) {
    const u32 g = lane_index() / 4, t = lane_index() % 4;
#pragma unroll
    for (u32 step = 0; step < STEPS; step++) {
#pragma unroll
        for (u32 r = 0; r < 4; r++) {
            const u32 i = first + g + 8 * (r % 2);
            const u16* const row = from + static_cast<u64>(b.start + i) * length + b.head * b.width;
            own[step][r] = pair_of(row, 16 * step + 2 * t + 8 * (r / 2), b.width, i < b.length);
        }
    }
}

// s = own rows times the tile's rows.
template <u32 STEPS>
DEVICE void multiply(const u32 (&own)[STEPS][4], const u16* tile, Product& s) {
    const u32 g = lane_index() / 4, t = lane_index() % 4;
#pragma unroll
    for (u32 k = 0; k < TILE / 8; k++) {
        for (u32 r = 0; r < 4; r++) s[k][r] = 0.0f;
#pragma unroll
        for (u32 step = 0; step < STEPS; step++) {
            const u16* const row = tile + (8 * k + g) * (16 * STEPS + 8) + 16 * step + 2 * t;
            const u32 right[2] = {pair_at(row), pair_at(row + 8)};
            mma_16x8x16(s[k], own[step], right);
        }
    }
}

// sums += weights, rounded to bf16, times the tile. Their places are those of a left operand, two blocks of eight columns
// side by side.
template <u32 WIDTH>
DEVICE void multiply_add(const Product& weights, const u16* tile, float (&sums)[WIDTH / 8][4]) {
    constexpr u32 STRIDE = WIDTH + 8;
    const u32 g = lane_index() / 4, t = lane_index() % 4;
#pragma unroll
    for (u32 step = 0; step < TILE / 16; step++) {
        u32 left[4];
#pragma unroll
        for (u32 r = 0; r < 4; r++) {
            const float* const two = weights[2 * step + r / 2] + 2 * (r % 2);
            left[r] = bf16_pair(two[0], two[1]);
        }
#pragma unroll
        for (u32 c = 0; c < WIDTH / 8; c++) {
            const u16* const row = tile + (16 * step + 2 * t) * STRIDE + 8 * c + g;
            const u32 right[2] = {row[0] | static_cast<u32>(row[STRIDE]) << 16,
                                  row[8 * STRIDE] | static_cast<u32>(row[9 * STRIDE]) << 16};
            mma_16x8x16(sums[c], left, right);
        }
    }
}

// Writes sums to this warp's rows of `to` [n, length], from `first` on, this head's columns.
template <u32 WIDTH>
DEVICE void store_sums(const Block& b, const float (&sums)[WIDTH / 8][4], u32 first, float* to, u32 length) {
    const u32 g = lane_index() / 4, t = lane_index() % 4;
#pragma unroll
    for (u32 half = 0; half < 2; half++) {
        const u32 i = first + g + 8 * half;
        if (i >= b.length) continue;
        float* const row = to + static_cast<u64>(b.start + i) * length + b.head * b.width;
#pragma unroll
        for (u32 e = 0; e < WIDTH / 4; e++) {
            const u32 c = 8 * (e / 2) + 2 * t + e % 2;
            if (c < b.width) row[c] = sums[e / 2][2 * half + e % 2];
        }
    }
}

// Over the four lanes that share a row.
DEVICE float row_sum(float x) {
    for (u32 mask = 1; mask < 4; mask *= 2) x += shuffle_xor(x, mask);
    return x;
}

DEVICE float row_max(float x) {
    for (u32 mask = 1; mask < 4; mask *= 2) {
        const float other = shuffle_xor(x, mask);
        if (other > x) x = other;
    }
    return x;
}

// What row g + 8 half drops of the tile's columns 8 t ..: of the four lanes that share two rows, each makes one block.
DEVICE void drop_of_rows(const Attention& a, const Block& b, u32 first, u32 tile, u32 (&dropped)[2]) {
    for (u32 half = 0; half < 2; half++) {
        const u32 row = a.drop.first + b.start + first + lane_index() / 4 + 8 * half;
        dropped[half] = a.drop.threshold == 0
                            ? 0
                            : dropped_of_8(a.drop, row, b.head * HEAD_BLOCKS + tile / 8 + lane_index() % 4);
    }
}
