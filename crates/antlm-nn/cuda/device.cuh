// What is not plain C++: places of threads, shared memory, barriers, exchanges inside a warp, bf16, tensor cores, copies
// beside the arithmetic. Each has a twin for the host (emulate.hpp); the kernels use nothing of CUDA but this file.
//
// Rules for kernels: blocks are one-dimensional and made of whole warps; every thread of a block comes to every barrier,
// every lane of a warp to every exchange. Float sums have a fixed order: no atomics. Compiled with -fmad=false (nvrtc) or
// -ffp-contract=off (host): multiply-adds are fused where the source says fmaf, so the card and the host round alike.
#pragma once

using u16 = unsigned short;
using u32 = unsigned int;
using u64 = unsigned long long;
using i64 = long long;

constexpr u32 WARP = 32;

#if defined(__CUDACC_RTC__) || defined(__CUDACC__)

#define DEVICE static __device__ __forceinline__
#define DEVICE_MEMBER __device__ __forceinline__
// A table that never changes, at the top of a file.
#define TABLE static __device__ const
// A kernel of blocks of `threads` threads; `parameters` stand in parentheses.
#define KERNEL(threads, name, parameters) extern "C" __global__ void __launch_bounds__(threads) name parameters
// A block's own array.
#define SHARED(type, name, count) __shared__ type name[count]
// The shared memory whose size is given at the launch, in bytes; aligned to 16.
#define SHARED_AT_LAUNCH(name) extern __shared__ __align__(16) unsigned char name[]

DEVICE u32 thread_index() { return threadIdx.x; }
DEVICE u32 threads_in_block() { return blockDim.x; }
DEVICE u32 block_x() { return blockIdx.x; }
DEVICE u32 block_y() { return blockIdx.y; }
DEVICE u32 blocks_x() { return gridDim.x; }

// Waits for all threads of the block.
DEVICE void block_barrier() { __syncthreads(); }
// Waits for all lanes of the warp.
DEVICE void warp_barrier() { __syncwarp(0xffffffffu); }
// The value of lane `lane ^ mask`.
DEVICE float shuffle_xor(float x, u32 mask) { return __shfl_xor_sync(0xffffffffu, x, mask); }
DEVICE double shuffle_xor(double x, u32 mask) { return __shfl_xor_sync(0xffffffffu, x, mask); }
// The value of lane `from`, below 32.
DEVICE float shuffle(float x, u32 from) { return __shfl_sync(0xffffffffu, x, from); }
DEVICE u32 shuffle(u32 x, u32 from) { return __shfl_sync(0xffffffffu, x, from); }
// The largest of all lanes.
DEVICE int largest_of_warp(int x) { return __reduce_max_sync(0xffffffffu, x); }
// Bit l: whether lane l said yes.
DEVICE u32 vote(bool yes) { return __ballot_sync(0xffffffffu, yes); }

DEVICE u32 bits_of(float x) { return __float_as_uint(x); }
DEVICE float of_bits(u32 x) { return __uint_as_float(x); }
DEVICE u64 bits_of(double x) { return static_cast<u64>(__double_as_longlong(x)); }
DEVICE double of_bits(u64 x) { return __longlong_as_double(static_cast<i64>(x)); }
// The upper half of the product.
DEVICE u32 multiply_high(u32 a, u32 b) { return __umulhi(a, b); }
// Number of zeros before the first one; 32 for 0.
DEVICE u32 leading_zeros(u32 x) { return static_cast<u32>(__clz(static_cast<int>(x))); }

// Two floats as bf16, rounded to nearest, ties to even: `low` in the lower half.
DEVICE u32 bf16_pair(float low, float high) {
    u32 pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}

// Two bf16 numbers that lie side by side, at a multiple of 4 bytes.
DEVICE u32 pair_at(const u16* x) { return *reinterpret_cast<const u32*>(x); }

// d += a b of one warp, bf16 operands, f32 sums: a [16, 16], b [16, 8], d [16, 8]. With g = lane / 4 and t = lane % 4:
// a[0..4] holds rows g, g + 8, g, g + 8 and columns 2 t + {0, 1} (+ 8 in a[2], a[3]); b[0..2] rows 2 t + {0, 1} (+ 8 in
// b[1]) of column g; d[0..4] rows g, g, g + 8, g + 8 and columns 2 t, 2 t + 1, 2 t, 2 t + 1.
DEVICE void mma_16x8x16(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// Begins to copy 16 bytes from global to shared memory (both aligned to 16); they are there after `copies_done`.
DEVICE void copy_16(void* shared, const void* global) {
    const u32 to = static_cast<u32>(__cvta_generic_to_shared(shared));
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(global) : "memory");
}
// Waits for this thread's copies.
DEVICE void copies_done() { asm volatile("cp.async.wait_all;" ::: "memory"); }

#else

#include "emulate.hpp"

#endif

DEVICE u32 lane_index() { return thread_index() % WARP; }
DEVICE u32 warp_index() { return thread_index() / WARP; }

// A float as a bf16 number, rounded as in bf16_pair.
DEVICE u16 to_bf16_number(float x) { return static_cast<u16>(bf16_pair(x, 0.0f) & 0xffff); }
// The bf16 number in the upper half of a float's bits.
DEVICE float bf16_value(u16 x) { return of_bits(static_cast<u32>(x) << 16); }

// Four floats that are loaded and stored at once; aligned to 16 bytes.
struct alignas(16) Four {
    float x[4];
};
