// Who does what where a matrix is gone through row by row, or column by column in blocks of rows.
#pragma once
#include "device.cuh"

// Rows of a block of column sums; as on the CPU (kernels/mod.rs), whose partial sums these are.
constexpr u32 COLUMN_ROWS = 64;

// A warp a row: the row of this one.
DEVICE u32 row_of_warp() { return block_x() * (threads_in_block() / WARP) + warp_index(); }

// A thread a column, block_y a block of rows: calls each(row, its number in the block, column) from the first row to the
// last, also with columns that are too large (so that a warp stays together). Gives the column.
template <class Each>
DEVICE u32 down_columns(u32 n, Each each) {
    const u32 column = block_x() * threads_in_block() + thread_index();
    const u32 first = block_y() * COLUMN_ROWS;
    const u32 rows = n - first < COLUMN_ROWS ? n - first : COLUMN_ROWS;
    for (u32 i = 0; i < rows; i++) each(first + i, i, column);
    return column;
}

// Every thread takes values first_value(), first_value() + all_threads(), …
DEVICE u64 first_value() { return static_cast<u64>(block_x()) * threads_in_block() + thread_index(); }
DEVICE u64 all_threads() { return static_cast<u64>(blocks_x()) * threads_in_block(); }
