//! One stream of events: the loop tells what happens, listeners write, draw or print it.
