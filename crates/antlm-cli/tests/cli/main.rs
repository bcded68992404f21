//! Tests of the built `antlm` binary, from outside: what it prints, what it leaves on disk, how it ends.

mod bad_input;
mod command_line;
mod common;
mod compare;
mod docs;
mod eval;
mod finetune;
mod hub;
mod reading;
mod resume;
mod signals;
mod sources;
mod train;
