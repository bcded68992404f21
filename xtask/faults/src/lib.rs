//! Faults below the file layer: a library that is loaded before the C library (`LD_PRELOAD`) and lets the k-th write,
//! fsync or rename below a folder fail, or ends the process there as a power cut would. Linux only; nothing elsewhere.
//!
//! | variable | meaning |
//! |---|---|
//! | `FAULT_CALL` | `write`, `fsync` or `rename` |
//! | `FAULT_AT` | which of these calls, from 1 on |
//! | `FAULT_HOW` | `error` (EIO), `full` (ENOSPC, from then on), `short` (a part is written), `cut` (a part is done, then SIGKILL), `after` (done, then SIGKILL) |
//! | `FAULT_BELOW` | only files below this absolute path count |
//! | `FAULT_MARK` | a file that is made when the fault happens |
#![cfg(target_os = "linux")]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use libc::{size_t, ssize_t};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Call {
    Write,
    Fsync,
    Rename,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    Error,
    Full,
    Short,
    Cut,
    After,
}

struct Plan {
    call: Call,
    at: u64,
    how: How,
    below: Vec<u8>,
    mark: CString,
}

static CALLS: AtomicU64 = AtomicU64::new(0);
static FULL: AtomicBool = AtomicBool::new(false);

fn plan() -> Option<&'static Plan> {
    static PLAN: OnceLock<Option<Plan>> = OnceLock::new();
    PLAN.get_or_init(|| {
        let var = |name: &str| std::env::var(name).ok();
        Some(Plan {
            call: match &var("FAULT_CALL")?[..] {
                "write" => Call::Write,
                "fsync" => Call::Fsync,
                "rename" => Call::Rename,
                _ => return None,
            },
            at: var("FAULT_AT")?.parse().ok()?,
            how: match &var("FAULT_HOW")?[..] {
                "error" => How::Error,
                "full" => How::Full,
                "short" => How::Short,
                "cut" => How::Cut,
                "after" => How::After,
                _ => return None,
            },
            below: var("FAULT_BELOW")?.into_bytes(),
            mark: CString::new(var("FAULT_MARK")?).ok()?,
        })
    })
    .as_ref()
}

/// What is to happen to this call, if anything.
fn fault(call: Call, path: &[u8]) -> Option<How> {
    let plan = plan()?;
    if !path.starts_with(&plan.below) {
        return None;
    }
    if call == Call::Write && FULL.load(Ordering::SeqCst) {
        return Some(How::Full);
    }
    if call != plan.call || CALLS.fetch_add(1, Ordering::SeqCst) + 1 != plan.at {
        return None;
    }
    if plan.how == How::Full {
        FULL.store(true, Ordering::SeqCst);
    }
    // SAFETY: the path is a C string; the descriptor is this call's own.
    unsafe {
        let mark = libc::open(plan.mark.as_ptr(), libc::O_CREAT | libc::O_WRONLY, 0o600);
        libc::close(mark);
    }
    Some(plan.how)
}

/// The path behind a descriptor.
fn path_of(fd: c_int, buffer: &mut [u8; 4096]) -> &[u8] {
    let link = format!("/proc/self/fd/{fd}\0");
    // SAFETY: a C string, and a buffer with its length.
    let n = unsafe { libc::readlink(link.as_ptr().cast(), buffer.as_mut_ptr().cast(), buffer.len()) };
    &buffer[..usize::try_from(n).unwrap_or(0)]
}

fn fails(error: c_int) -> c_int {
    // SAFETY: errno of this thread.
    unsafe { *libc::__errno_location() = error };
    -1
}

fn dies() -> ! {
    // SAFETY: no memory is touched.
    unsafe {
        libc::kill(libc::getpid(), libc::SIGKILL);
        // The signal may need a moment.
        loop {
            libc::pause();
        }
    }
}

/// The function of this name that would be called without this library.
fn next(name: &CStr) -> *mut c_void {
    // SAFETY: a C string; the result is checked.
    let found = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) };
    assert!(!found.is_null(), "no {name:?} in the C library");
    found
}

macro_rules! real {
    ($name:literal, $type:ty) => {{
        static REAL: OnceLock<usize> = OnceLock::new();
        let found = *REAL.get_or_init(|| next($name) as usize);
        // SAFETY: the C library's function of this name has this type.
        unsafe { std::mem::transmute::<usize, $type>(found) }
    }};
}

/// As the C library's.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn write(fd: c_int, bytes: *const c_void, n: size_t) -> ssize_t {
    let real = real!(c"write", unsafe extern "C" fn(c_int, *const c_void, size_t) -> ssize_t);
    let mut buffer = [0; 4096];
    let how = if plan().is_some() { fault(Call::Write, path_of(fd, &mut buffer)) } else { None };
    // SAFETY: the caller's promise, for the whole or a part of its bytes.
    let part = |n| unsafe { real(fd, bytes, n) };
    match how {
        None => part(n),
        Some(How::Error) => fails(libc::EIO) as ssize_t,
        Some(How::Full) => fails(libc::ENOSPC) as ssize_t,
        Some(How::Short) => part(n.div_ceil(2)),
        Some(How::Cut) => {
            part(n / 2);
            dies()
        }
        Some(How::After) => {
            part(n);
            dies()
        }
    }
}

fn synced(fd: c_int, real: unsafe extern "C" fn(c_int) -> c_int) -> c_int {
    let mut buffer = [0; 4096];
    let how = if plan().is_some() { fault(Call::Fsync, path_of(fd, &mut buffer)) } else { None };
    match how {
        Some(How::Error | How::Short) => fails(libc::EIO),
        Some(How::Full) => fails(libc::ENOSPC),
        Some(How::Cut) => dies(),
        // SAFETY: any number is allowed; a wrong one is an error.
        None => unsafe { real(fd) },
        Some(How::After) => {
            // SAFETY: as above.
            unsafe { real(fd) };
            dies()
        }
    }
}

/// As the C library's.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fsync(fd: c_int) -> c_int {
    synced(fd, real!(c"fsync", unsafe extern "C" fn(c_int) -> c_int))
}

/// As the C library's.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fdatasync(fd: c_int) -> c_int {
    synced(fd, real!(c"fdatasync", unsafe extern "C" fn(c_int) -> c_int))
}

/// As the C library's.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rename(from: *const c_char, to: *const c_char) -> c_int {
    let real = real!(c"rename", unsafe extern "C" fn(*const c_char, *const c_char) -> c_int);
    // SAFETY: the caller gives C strings.
    let path = unsafe { CStr::from_ptr(to) }.to_bytes();
    let how = if plan().is_some() { fault(Call::Rename, path) } else { None };
    // SAFETY: the caller's promise.
    let done = || unsafe { real(from, to) };
    match how {
        None => done(),
        Some(How::Error | How::Short) => fails(libc::EIO),
        Some(How::Full) => fails(libc::ENOSPC),
        Some(How::Cut) => dies(),
        Some(How::After) => {
            done();
            dies()
        }
    }
}
