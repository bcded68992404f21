//! Whole runs through the library: resumed bit for bit; damaged files are errors.

mod hostile;
mod resume;
mod toy;
