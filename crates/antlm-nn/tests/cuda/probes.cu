// Kernels of the tests alone: what device.cuh has, one thing a kernel, and mistakes that the emulator must notice.
#include "device.cuh"

// out [5, threads]: the lane's partner by xor, a lane of the warp that all ask for, who is odd in the block's own memory,
// a vote, the leading zeros.
KERNEL(64, probe_exchanges, (const float* x, u32 mask, u32 from, float* out)) {
    const u32 t = thread_index();
    SHARED(float, mirror, 64);
    mirror[63 - t] = x[t];
    out[t] = shuffle_xor(x[t], mask);
    out[64 + t] = shuffle(x[t], from);
    block_barrier();
    out[128 + t] = mirror[t];
    out[192 + t] = of_bits(vote(x[t] > 0.0f));
    out[256 + t] = static_cast<float>(leading_zeros(t));
}

// d [16, 8] = a [16, 16] b [16, 8], rounded to bf16 first.
KERNEL(32, probe_mma, (const float* a, const float* b, float* d)) {
    const u32 g = lane_index() / 4, t = lane_index() % 4;
    u32 left[4], right[2];
    for (u32 r = 0; r < 4; r++) {
        const u32 row = g + 8 * (r % 2), column = 2 * t + 8 * (r / 2);
        left[r] = bf16_pair(a[16 * row + column], a[16 * row + column + 1]);
    }
    for (u32 r = 0; r < 2; r++) {
        const u32 row = 2 * t + 8 * r;
        right[r] = bf16_pair(b[8 * row + g], b[8 * (row + 1) + g]);
    }
    float sums[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    mma_16x8x16(sums, left, right);
    for (u32 r = 0; r < 4; r++) d[8 * (g + 8 * (r / 2)) + 2 * t + r % 2] = sums[r];
}

// Reverses 4 numbers a thread by way of shared memory, which the launch gives.
KERNEL(32, probe_copies, (const float* x, float* y)) {
    SHARED_AT_LAUNCH(bytes);
    float* const staged = reinterpret_cast<float*>(bytes);
    copy_16(staged + 4 * thread_index(), x + 4 * thread_index());
    copies_done();
    block_barrier();
    for (u32 i = 0; i < 4; i++) y[4 * thread_index() + i] = staged[127 - 4 * thread_index() - i];
}

// Rounds to bf16 and back.
KERNEL(32, probe_bf16, (u32 n, const float* x, float* y)) {
    for (u32 i = thread_index(); i < n; i += WARP) {
        const u32 pair = bf16_pair(x[i], -x[i]);
        y[2 * i] = bf16_value(static_cast<u16>(pair & 0xffff));
        y[2 * i + 1] = bf16_value(static_cast<u16>(pair >> 16));
    }
}

// One thread leaves before the barrier.
KERNEL(64, probe_leaves_early, (float* out)) {
    if (thread_index() == 7) return;
    block_barrier();
    out[thread_index()] = 0.0f;
}

// Two halves of a block meet at two barriers.
KERNEL(64, probe_two_places, (float* out)) {
    if (thread_index() < 32) {
        block_barrier();
    } else {
        block_barrier();
    }
    out[thread_index()] = 0.0f;
}

// Half a warp exchanges.
KERNEL(32, probe_half_a_warp, (float* out)) {
    float x = 1.0f;
    if (thread_index() < 16) x = shuffle_xor(x, 1);
    out[thread_index()] = x;
}

// A barrier is missing between writing and reading.
KERNEL(64, probe_no_barrier, (float* out)) {
    SHARED(float, mirror, 64);
    mirror[63 - thread_index()] = 1.0f;
    shuffle(1.0f, 0);
    out[thread_index()] = mirror[thread_index()];
}

// Reads behind the end: of what the launch gave, or of an array of its own.
KERNEL(32, probe_outside, (u32 which, const float* x, float* out)) {
    SHARED_AT_LAUNCH(bytes);
    SHARED(float, own, 32);
    own[thread_index()] = 0.0f;
    float* const given = reinterpret_cast<float*>(bytes);
    given[thread_index()] = 0.0f;
    const u32 at = thread_index() + 1;
    out[thread_index()] = which == 0 ? x[at] : which == 1 ? own[at] : given[at];
}

// Copies that nobody waits for.
KERNEL(32, probe_no_wait, (const float* x)) {
    SHARED_AT_LAUNCH(bytes);
    copy_16(bytes + 16 * thread_index(), x + 4 * thread_index());
}
