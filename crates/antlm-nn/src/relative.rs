//! The buckets of relative positions: exact up to 16, then ever coarser, the same for everything from 406 on.
//!
//! LTG-BERT (Samuel et al., 2023) defines them with a logarithm, which is fragile in floats (at 511 one bit too much
//! leaves the table), so here they are a table of whole numbers.

/// Number of rows of the table of relative positions.
pub const RELATIVE_ROWS: usize = 63;

/// The distances from which on buckets 17, 18, … 31 begin.
const BEGINS: [u32; 15] = [17, 21, 26, 32, 41, 51, 64, 81, 102, 128, 162, 203, 256, 322, 406];

/// The row, 0 to 62, for the distance `r` = position of the query - position of the key; 31 is the query's own.
///
/// ```
/// use antlm_nn::relative::relative_row;
/// assert_eq!([-1000, -16, -1, 0, 1, 16, 17, 1000].map(relative_row), [0, 15, 30, 31, 32, 47, 48, 62]);
/// ```
pub fn relative_row(r: i32) -> usize {
    let distance = r.unsigned_abs();
    let bucket =
        if distance <= 16 { distance as usize } else { 16 + BEGINS.partition_point(|&begin| begin <= distance) };
    if r < 0 { 31 - bucket } else { 31 + bucket }
}

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::SafeTensors;

    #[test]
    fn as_the_golden_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../antlm/tests/golden/relative.safetensors");
        let bytes = std::fs::read(path).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let numbers = |name| file.tensor(name).unwrap().data().as_chunks().0.iter().map(|&b| i32::from_le_bytes(b));
        assert!(numbers("r").eq(-700..=700));
        for (r, row) in numbers("r").zip(numbers("row")) {
            assert_eq!(relative_row(r), row as usize, "{r}");
        }
        assert_eq!([i32::MIN, i32::MAX].map(relative_row), [0, RELATIVE_ROWS - 1]);
    }
}
