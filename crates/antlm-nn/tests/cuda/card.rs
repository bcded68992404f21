//! An emulated card: the kernels' program as another process, which gets memory, data and launches through a pipe.

use std::io::{BufReader, Read, Write};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::OnceLock;

/// How the program was compiled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Compiled {
    Plain,
    /// With AddressSanitizer and UndefinedBehaviorSanitizer.
    Sanitized,
}

/// Compiles the kernels, once for all tests of this process.
fn program(compiled: Compiled) -> &'static Path {
    static PROGRAMS: [OnceLock<PathBuf>; 2] = [OnceLock::new(), OnceLock::new()];
    let (place, name, flags): (_, _, &[&str]) = match compiled {
        Compiled::Plain => (&PROGRAMS[0], "card", &["-O2"]),
        Compiled::Sanitized => {
            (&PROGRAMS[1], "card-sanitized", &["-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"])
        }
    };
    place.get_or_init(|| {
        let package = Path::new(env!("CARGO_MANIFEST_DIR"));
        // Made beside its place and moved there: two runs of the tests may meet.
        let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let made = program.with_extension(std::process::id().to_string());
        let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
        let probes = format!("-DPROBES=\"{}\"", package.join("tests/cuda/probes.cu").display());
        let output = Command::new(&compiler)
            .args(["-std=c++17", "-g1", "-ffp-contract=off", "-Wall", "-Wextra", "-Wno-unknown-pragmas", &probes])
            .args(flags)
            .arg("-I")
            .arg(package.join("cuda"))
            .arg(package.join("cuda/emulate.cpp"))
            .arg("-o")
            .arg(&made)
            .output();
        let output = output.unwrap_or_else(|error| {
            panic!(
                "these tests compile the CUDA kernels for this machine: {compiler} cannot be started ({error}); \
                    install a C++ compiler, or name one in CXX"
            )
        });
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{compiler} does not compile the kernels:\n{errors}");
        assert!(errors.is_empty(), "{compiler} warns:\n{errors}");
        std::fs::rename(&made, &program).unwrap();
        program
    })
}

/// An argument of a kernel, as its bytes.
pub struct Argument(pub Vec<u8>);

/// Memory of the card, `len` values.
pub struct Buffer<T> {
    address: u64,
    len: usize,
    of: PhantomData<T>,
}

impl<T> Buffer<T> {
    pub fn address(&self) -> u64 {
        self.address
    }
}

impl<T> From<&Buffer<T>> for Argument {
    fn from(buffer: &Buffer<T>) -> Argument {
        buffer.address.into()
    }
}

/// Null for none.
impl<T> From<Option<&Buffer<T>>> for Argument {
    fn from(buffer: Option<&Buffer<T>>) -> Argument {
        buffer.map_or(0, Buffer::address).into()
    }
}

macro_rules! numbers {
    ($($number:ty),*) => { $(
        impl From<$number> for Argument {
            fn from(number: $number) -> Argument {
                Argument(number.to_le_bytes().to_vec())
            }
        }
    )* };
}
numbers!(u32, u64, f32, f64);

/// Sizes are u32 in the kernels.
impl From<usize> for Argument {
    fn from(size: usize) -> Argument {
        (size as u32).into()
    }
}

/// The arguments of a launch: anything that is one.
#[macro_export]
macro_rules! arguments {
    ($($argument:expr),* $(,)?) => { [$($crate::card::Argument::from($argument)),*] };
}

/// How a kernel is launched: blocks (x, y), threads of a block.
#[derive(Clone, Copy, Debug)]
pub struct Grid {
    pub x: usize,
    pub y: usize,
    pub threads: usize,
    /// Bytes of shared memory given at the launch.
    pub shared: usize,
}

/// `x` times `y` blocks of `threads`.
pub fn grid(x: usize, y: usize, threads: usize) -> Grid {
    Grid { x, y, threads, shared: 0 }
}

/// A running card.
pub struct Card {
    child: Child,
    to: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
    /// Seed of the next launch's order of threads.
    seed: u64,
}

impl Card {
    pub fn start(compiled: Compiled, seed: u64) -> Card {
        let mut command = Command::new(program(compiled));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (to, from) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        Card { child, to, from, seed }
    }

    fn send(&mut self, bytes: &[u8]) {
        // A card that has ended is noticed when its answer is missing.
        let _ = self.to.as_mut().unwrap().write_all(bytes);
    }

    fn ask(&mut self, letter: u8, numbers: &[u64]) {
        let bytes: Vec<u8> = [letter].into_iter().chain(numbers.iter().flat_map(|n| n.to_le_bytes())).collect();
        self.send(&bytes);
    }

    fn answer(&mut self, len: usize) -> Result<Vec<u8>, String> {
        let mut bytes = vec![0; len];
        match self.from.read_exact(&mut bytes) {
            Ok(()) => Ok(bytes),
            Err(_) => Err(self.last_words()),
        }
    }

    fn number(&mut self) -> Result<u64, String> {
        Ok(u64::from_le_bytes(self.answer(8)?.try_into().unwrap()))
    }

    /// Memory for `len` values, full of NaN.
    pub fn room<T>(&mut self, len: usize) -> Buffer<T> {
        self.ask(b'A', &[(len * size_of::<T>()) as u64]);
        Buffer { address: self.number().unwrap(), len, of: PhantomData }
    }

    /// Memory with these values.
    pub fn put<T: bytemuck::Pod>(&mut self, values: &[T]) -> Buffer<T> {
        let buffer = self.room(values.len());
        let bytes: &[u8] = bytemuck::cast_slice(values);
        self.ask(b'W', &[buffer.address, bytes.len() as u64]);
        self.send(bytes);
        buffer
    }

    /// What is in it now.
    pub fn get<T: bytemuck::Pod>(&mut self, buffer: &Buffer<T>) -> Vec<T> {
        let bytes = buffer.len * size_of::<T>();
        self.ask(b'R', &[buffer.address, bytes as u64]);
        let mut values = vec![T::zeroed(); buffer.len];
        self.from.read_exact(bytemuck::cast_slice_mut(&mut values)).unwrap();
        values
    }

    /// Runs a kernel, each time with threads in another order; an error says what went wrong on the card.
    pub fn try_launch(&mut self, name: &str, grid: Grid, arguments: &[Argument]) -> Result<(), String> {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let numbers = [self.seed, grid.x as u64, grid.y as u64, grid.threads as u64, grid.shared as u64];
        self.ask(b'L', &numbers);
        let texts = arguments.iter().map(|argument| &argument.0[..]);
        let mut bytes = (name.len() as u64).to_le_bytes().to_vec();
        bytes.extend(name.as_bytes());
        bytes.extend((arguments.len() as u64).to_le_bytes());
        for text in texts {
            bytes.extend((text.len() as u64).to_le_bytes());
            bytes.extend(text);
        }
        self.send(&bytes);
        let length = self.number()? as usize;
        let message = String::from_utf8(self.answer(length)?).unwrap();
        if message.is_empty() { Ok(()) } else { Err(message) }
    }

    /// Runs a kernel that has to go well.
    pub fn launch(&mut self, name: &str, grid: Grid, arguments: impl AsRef<[Argument]>) {
        self.try_launch(name, grid, arguments.as_ref()).unwrap_or_else(|error| panic!("{error}"));
    }

    /// What a program that has ended said on standard error.
    fn last_words(&mut self) -> String {
        let mut words = String::new();
        let _ = self.child.stderr.take().map(|mut errors| errors.read_to_string(&mut words));
        format!("the card's program has ended: {words}")
    }
}

impl Drop for Card {
    fn drop(&mut self) {
        drop(self.to.take());
        let _ = self.child.wait();
    }
}
