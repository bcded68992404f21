//! Ctrl-C and SIGTERM: the first asks the library to save and stop, the second ends the process at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// Takes over both signals. The answer of the returned check is the signal that came, once one has.
pub fn install() -> std::io::Result<impl Fn() -> Option<i32>> {
    let came = Arc::new(AtomicUsize::new(0));
    let again = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // In this order: the shutdown looks at the flag before this same signal sets it.
        flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&again))?;
        flag::register(signal, Arc::clone(&again))?;
        flag::register_usize(signal, Arc::clone(&came), signal as usize)?;
    }
    Ok(move || match came.load(Ordering::Relaxed) {
        0 => None,
        signal => Some(signal as i32),
    })
}
