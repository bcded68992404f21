// Softmax and cross-entropy of a tile of logits, and their gradient in place: the part of kernels/classifier.rs that is no
// product.
#include "math.cuh"

// z [rows, vocab] are logits without bias (null for none), nll [rows] becomes -log softmax(z + bias)[target]. With
// `grads`, z becomes the gradient of weight (nll + c lse²), and what it becomes without is nobody's business.
// A block a row. Grid: rows.
KERNEL(512, cross_entropy,
       (u32 vocab, const float* bias, const u32* targets, u32 grads, float weight, float c, float* z, float* nll)) {
    SHARED(float, maxima, WARP);
    SHARED(float, sums, WARP);
    SHARED(double, shared_lse, 1);
    float* const row = z + static_cast<u64>(block_x()) * vocab;
    const u32 target = targets[block_x()];
    const bool has_target = target % threads_in_block() == thread_index();
    float top = of_bits(0xff800000u);
    for (u32 i = thread_index(); i < vocab; i += threads_in_block()) {
        if (bias) row[i] += bias[i];
        if (row[i] > top) top = row[i];
    }
    top = block_max(top, maxima);
    // A thread reads and writes its own columns alone, so what follows needs no barrier.
    const float wanted = has_target ? row[target] : 0.0f;
    float total = 0.0f;
    for (u32 i = thread_index(); i < vocab; i += threads_in_block()) {
        const float e = exponential(row[i] - top);
        row[i] = e;
        total += e;
    }
    total = block_sum(total, sums);
    if (has_target) {
        // Not a number where there is none: the logarithm is for ordinary numbers.
        const bool ordinary = total > 0.0f && total < of_bits(0x7f800000u);
        const double nan = of_bits(0x7ff8000000000000ull);
        const double lse = ordinary ? logarithm(static_cast<double>(total)) + static_cast<double>(top) : nan;
        nll[block_x()] = static_cast<float>(lse - static_cast<double>(wanted));
        *shared_lse = lse;
    }
    if (!grads) return;
    block_barrier();
    const float more = 2.0f * c * static_cast<float>(*shared_lse);
    const float factor = weight * (1.0f + more) / total;
    const float hit = has_target ? row[target] / total : 0.0f;
    for (u32 i = thread_index(); i < vocab; i += threads_in_block()) row[i] *= factor;
    if (!has_target) return;
    // The two terms apart: where the target is nearly certain, their sum would lose the second one's digits.
    row[target] = c == 0.0f ? row[target] - weight : weight * (hit - 1.0f) + weight * more * hit;
}
