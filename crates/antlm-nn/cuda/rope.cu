// Rotary positions (half-split): kernels/rope.rs, bit for bit.
#include "device.cuh"

// Turns the q and k parts of qkv [n, 3 d] in place, back when `inverse`. cosines and sines [_, half] are a table for
// heads of width 2 half; positions [n] are places in it. Grid: n.
KERNEL(128, rope,
       (u32 d, u32 half, const u32* positions, const float* cosines, const float* sines, u32 inverse, float* qkv)) {
    const u64 at = static_cast<u64>(positions[block_x()]) * half;
    float* const row = qkv + static_cast<u64>(block_x()) * 3 * d;
    // q's heads and k's heads lie behind each other: d pairs.
    for (u32 pair = thread_index(); pair < d; pair += threads_in_block()) {
        const u32 head = pair / half, c = pair % half;
        float* const a = row + 2 * half * head + c;
        float* const b = a + half;
        const float cosine = cosines[at + c], sine = inverse ? -sines[at + c] : sines[at + c];
        const float x = *a, y = *b;
        *a = x * cosine - y * sine;
        *b = y * cosine + x * sine;
    }
}
