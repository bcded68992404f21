//! Ctrl-C and SIGTERM ask the library to stop, SIGUSR1 asks it to save and go on; a second Ctrl-C or SIGTERM ends the
//! process at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// What has been asked for by signals.
#[derive(Clone)]
pub struct Signals {
    came: Arc<AtomicUsize>,
    save: Arc<AtomicBool>,
}

/// Takes over the signals. Where nothing is to be saved, SIGUSR1 changes nothing.
pub fn install() -> std::io::Result<Signals> {
    let signals = Signals { came: Arc::default(), save: Arc::default() };
    let again = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // In this order: the shutdown looks at the flag before this same signal sets it.
        flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&again))?;
        flag::register(signal, Arc::clone(&again))?;
        flag::register_usize(signal, Arc::clone(&signals.came), signal as usize)?;
    }
    #[cfg(unix)]
    flag::register(signal_hook::consts::SIGUSR1, Arc::clone(&signals.save))?;
    Ok(signals)
}

impl Signals {
    /// The signal that asks to stop, once one has come.
    pub fn stop(&self) -> Option<i32> {
        match self.came.load(Ordering::Relaxed) {
            0 => None,
            signal => Some(signal as i32),
        }
    }

    /// Whether SIGUSR1 has come since this was asked last.
    pub fn save(&self) -> bool {
        self.save.swap(false, Ordering::Relaxed)
    }
}
