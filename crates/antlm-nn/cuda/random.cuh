// Counter-based random numbers and dropout factors: those of rng.rs and kernels/dropout.rs, bit for bit.
#pragma once
#include "device.cuh"

struct Quad {
    u32 x[4];
};

// One Philox4x32-10 block (Salmon et al., SC 2011).
DEVICE Quad philox(u32 key0, u32 key1, u32 c0, u32 c1, u32 c2, u32 c3) {
    for (int round = 0; round < 10; round++) {
        const u32 high0 = multiply_high(0xD2511F53u, c0), low0 = 0xD2511F53u * c0;
        const u32 high1 = multiply_high(0xCD9E8D57u, c2), low1 = 0xCD9E8D57u * c2;
        c0 = high1 ^ c1 ^ key0;
        c1 = low1;
        c2 = high0 ^ c3 ^ key1;
        c3 = low0;
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
    return {{c0, c1, c2, c3}};
}

// Dropout at one place of one step. With threshold 0 and scale 1 nothing is dropped.
struct Dropout {
    u32 key0, key1;  // the seed's halves
    u32 stream, step;
    u32 threshold;  // values whose 16-bit number is below this are dropped
    float scale;    // 65536 / (65536 - threshold): the factor of the others
    u32 first;      // the row of the step that local row 0 is
    u32 unused;
    const u32* rows;  // where not null: the local rows' places after `first`
};

// The row of the step behind local row `r`.
DEVICE u32 dropout_row(const Dropout& drop, u32 r) { return drop.first + (drop.rows ? drop.rows[r] : r); }

// Whether column `8 block + i` of the row is dropped: bit i.
DEVICE u32 dropped_of_8(const Dropout& drop, u32 row, u32 block) {
    const Quad words = philox(drop.key0, drop.key1, block, row, drop.step, drop.stream);
    u32 dropped = 0;
    for (int w = 0; w < 4; w++) {
        if ((words.x[w] & 0xffff) < drop.threshold) dropped |= 1u << (2 * w);
        if ((words.x[w] >> 16) < drop.threshold) dropped |= 2u << (2 * w);
    }
    return dropped;
}

// A warp goes over a row in strides of 32 columns, one a lane, and asks for each stride's factor. Eight strides need 32
// blocks of random numbers: every lane makes one of them.
struct RowDropout {
    const Dropout& drop;
    u32 row;
    u32 made = 0;

    // The factor of column `32 stride + lane`. All lanes call it with the strides 0, 1, 2, … in order.
    DEVICE_MEMBER float next(u32 stride) {
        if (drop.threshold == 0) return 1.0f;
        if (stride % 8 == 0) made = dropped_of_8(drop, row, 4 * stride + lane_index());
        const u32 bits = shuffle(made, 4 * (stride % 8) + lane_index() / 8);
        return bits >> (lane_index() % 8) & 1 ? 0.0f : drop.scale;
    }
};

// A warp goes down 32 columns, one a lane, and asks for each row's factor. Eight rows need 32 blocks of random numbers.
struct ColumnDropout {
    const Dropout& drop;
    u32 n;       // rows that there are
    u32 stride;  // the columns are 32 stride + lane
    u32 made = 0;

    // The factor in row `first + i`. All lanes call it with i = 0, 1, 2, … in order.
    DEVICE_MEMBER float next(u32 first, u32 i) {
        if (drop.threshold == 0) return 1.0f;
        if (i % 8 == 0) {
            const u32 row = first + i + lane_index() / 4;
            made = row < n ? dropped_of_8(drop, dropout_row(drop, row), 4 * stride + lane_index() % 4) : 0;
        }
        const u32 bits = shuffle(made, 4 * (i % 8) + lane_index() / 8);
        return bits >> (lane_index() % 8) & 1 ? 0.0f : drop.scale;
    }
};
