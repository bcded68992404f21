//! LTG-BERT's logarithmic distance buckets as an integer table (models.md 2.2 of the specification).

/// Number of position vectors: 2 · 32 - 1.
pub const RELATIVE_ROWS: usize = 63;

/// Distances from which the bucket number grows by one beyond 16. A table and not the float formula, which is
/// fragile at its edges.
const EDGES: [u32; 15] = [17, 21, 26, 32, 41, 51, 64, 81, 102, 128, 162, 203, 256, 322, 406];

/// The position row, 0..63, of the distance query minus key.
///
/// ```
/// use antlm_nn::relative::relative_row;
/// assert_eq!((relative_row(0), relative_row(-16), relative_row(17), relative_row(5000)), (31, 15, 48, 62));
/// ```
pub fn relative_row(distance: i32) -> usize {
    let size = distance.unsigned_abs();
    let bucket = if size <= 16 { size as usize } else { 16 + EDGES.iter().filter(|&&edge| edge <= size).count() };
    if distance >= 0 { 31 + bucket } else { 31 - bucket }
}
