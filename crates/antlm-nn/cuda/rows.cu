// What moves, rounds or adds whole rows: embedding and gather, their backward without atomics, column sums, sums of
// buffers, bf16.
#include "columns.cuh"

// y [m, d] = rows ids [m] of table [_, d]. Grid: (m, ceil(d / 128)).
KERNEL(128, gather_rows, (u32 d, const float* table, const u32* ids, float* y)) {
    const u32 c = block_y() * threads_in_block() + thread_index();
    if (c < d) y[static_cast<u64>(block_x()) * d + c] = table[static_cast<u64>(ids[block_x()]) * d + c];
}

// Adds rows of gy [m, d] to the rows of gtable [_, d] that they were taken from. The places of `ids` are sorted by id, and
// for equal ids in their order: `order` [m]; different ids stand in `unique` [k], and those of number i begin at
// starts[i] of `order`, starts [k + 1]. Grid: (k, ceil(d / 128)).
KERNEL(128, scatter_rows,
       (u32 d, const u32* unique, const u32* starts, const u32* order, const float* gy, float* gtable)) {
    const u32 c = block_y() * threads_in_block() + thread_index();
    if (c >= d) return;
    float* to = gtable + static_cast<u64>(unique[block_x()]) * d + c;
    float sum = *to;
    for (u32 i = starts[block_x()]; i < starts[block_x() + 1]; i++) sum += gy[static_cast<u64>(order[i]) * d + c];
    *to = sum;
}

// Column sums of x [n, cols] in blocks of 64 rows: partials [ceil(n / 64), cols]. Grid: (ceil(cols / 128), ceil(n / 64)).
KERNEL(128, column_sums, (u32 n, u32 cols, const float* x, float* partials)) {
    float sum = 0.0f;
    const u32 c = down_columns(n, [&](u32 row, u32, u32 c) {
        if (c < cols) sum += x[static_cast<u64>(row) * cols + c];
    });
    if (c < cols) partials[static_cast<u64>(block_y()) * cols + c] = sum;
}

// Adds the rows of partials [count, cols] to sums [cols], in order. Grid: ceil(cols / 128).
KERNEL(128, add_partials, (u32 count, u32 cols, const float* partials, float* sums)) {
    const u32 c = block_x() * threads_in_block() + thread_index();
    if (c >= cols) return;
    float sum = sums[c];
    for (u32 i = 0; i < count; i++) sum += partials[static_cast<u64>(i) * cols + c];
    sums[c] = sum;
}

// y += x, n values. Grid: any.
KERNEL(256, add_assign, (u64 n, const float* x, float* y)) {
    for (u64 i = first_value(); i < n; i += all_threads()) y[i] += x[i];
}

// y = x in bf16, n values, rounded to nearest even: operands of products. A thread has two. Grid: any.
KERNEL(256, to_bf16, (u64 n, const float* x, u16* y)) {
    const u64 pairs = n / 2;
    for (u64 i = first_value(); i < pairs; i += all_threads()) {
        reinterpret_cast<u32*>(y)[i] = bf16_pair(x[2 * i], x[2 * i + 1]);
    }
    if (n % 2 == 1 && first_value() == 0) y[n - 1] = to_bf16_number(x[n - 1]);
}
