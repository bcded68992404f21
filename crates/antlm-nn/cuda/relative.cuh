// The buckets of relative positions: relative.rs. Row 31 is distance 0; up to 16 every distance has a row of its own.
#pragma once
#include "device.cuh"

constexpr int POSITION_ROWS = 63;
// Row length of tables with a column for each row of positions.
constexpr u32 POSITIONS = 64;

// The distances from which on buckets 17, 18, … 31 begin, and one that no segment has.
TABLE int BEGINS[16] = {17, 21, 26, 32, 41, 51, 64, 81, 102, 128, 162, 203, 256, 322, 406, 1 << 30};

// The row for distance `r` = position of the query - position of the key.
DEVICE int relative_row(int r) {
    const int distance = r < 0 ? -r : r;
    int bucket = distance;
    if (distance > 16) {
        // By halves: how many buckets begin at this distance or before.
        bucket = 16;
        for (int step = 8; step > 0; step /= 2) {
            if (BEGINS[bucket - 16 + step - 1] <= distance) bucket += step;
        }
    }
    return r < 0 ? 31 - bucket : 31 + bucket;
}

// Distances low ..= high.
struct Distances {
    int low, high;
};

// The distances of a row, 0 to 62.
DEVICE Distances distances_of_row(int row) {
    const int bucket = row < 31 ? 31 - row : row - 31;
    const int low = bucket <= 16 ? bucket : BEGINS[bucket - 17];
    const int high = bucket <= 16 ? bucket : BEGINS[bucket - 16] - 1;
    return row < 31 ? Distances{-high, -low} : Distances{low, high};
}
