//! An emulated card: the kernels' program (`cuda/emulate.cpp`), compiled for this machine, as another process. Products
//! are the CPU's. For tests in the repository: it needs its sources and a C++ compiler, the environment's CXX or c++.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, OnceLock};

use super::driver::{Argument, Driver, Grid, Matrix, Plus};
use super::{error, lock};
use crate::Result;
use crate::kernels::matmul::{Into, Mat, MatMut, Precision, Threads, matmul};

/// How the program is compiled.
#[derive(Clone, Copy, Debug)]
pub enum Compiled {
    /// To be fast.
    Plain,
    /// With AddressSanitizer and UndefinedBehaviorSanitizer.
    Sanitized,
}

impl Compiled {
    fn flags(self) -> &'static [&'static str] {
        match self {
            Compiled::Plain => &["-O2"],
            Compiled::Sanitized => &["-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
        }
    }
}

/// An emulated card.
#[derive(Debug)]
pub struct Emulated {
    process: Mutex<Process>,
}

#[derive(Debug)]
struct Process {
    child: Child,
    to: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
    /// Seed of the next launch's order of threads.
    seed: u64,
    /// Bytes in use.
    used: u64,
    /// The most that were in use at one time.
    peak: u64,
    sizes: std::collections::HashMap<u64, u64>,
    /// Bytes that there are.
    all: u64,
}

impl Emulated {
    /// A card with so many bytes of memory, whose threads run in an order of this seed.
    ///
    /// # Errors
    /// The kernels cannot be compiled, or not started.
    pub fn start(seed: u64, memory: u64) -> Result<Emulated> {
        Emulated::compiled(Compiled::Plain, seed, memory)
    }

    /// The most bytes that were in use at one time.
    pub fn peak(&self) -> u64 {
        lock(&self.process).peak
    }

    /// The same, compiled so.
    ///
    /// # Errors
    /// As of `start`.
    pub fn compiled(compiled: Compiled, seed: u64, memory: u64) -> Result<Emulated> {
        let program = program(compiled)?;
        let mut command = Command::new(&program);
        let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = spawned.map_err(|e| error(format!("{}: {e}", program.display())))?;
        let Some(output) = child.stdout.take() else { return Err(error("the emulated card has no output")) };
        let (to, from) = (child.stdin.take(), BufReader::new(output));
        let process = Process { child, to, from, seed, used: 0, peak: 0, sizes: Default::default(), all: memory };
        Ok(Emulated { process: Mutex::new(process) })
    }
}

/// The compiled program; it is made once for the same sources.
fn program(compiled: Compiled) -> Result<PathBuf> {
    static MADE: [OnceLock<std::result::Result<PathBuf, String>>; 2] = [OnceLock::new(), OnceLock::new()];
    MADE[compiled as usize].get_or_init(|| compile(compiled)).clone().map_err(error)
}

fn compile(compiled: Compiled) -> std::result::Result<PathBuf, String> {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (folder, probes) = (package.join("cuda"), package.join("tests/cuda/probes.cu"));
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
    let mut hash = DefaultHasher::new();
    (&compiler, compiled.flags()).hash(&mut hash);
    let read = |path: &Path| std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()));
    let listed = std::fs::read_dir(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let mut files: Vec<PathBuf> = listed.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.push(probes.clone());
    files.sort();
    for file in &files {
        read(file)?.hash(&mut hash);
    }
    let program = std::env::temp_dir().join(format!("antlm-card-{:016x}", hash.finish()));
    if program.exists() {
        return Ok(program);
    }
    // Made beside its place and moved there: two tests may meet.
    let made = program.with_extension(std::process::id().to_string());
    let mut command = Command::new(&compiler);
    command.args(["-std=c++17", "-g1", "-ffp-contract=off", "-Wall", "-Wextra", "-Wno-unknown-pragmas"]);
    // Where it is on by itself, it takes a jump from one fibre to another for a mistake.
    command.arg("-U_FORTIFY_SOURCE");
    command.args(compiled.flags()).arg(format!("-DPROBES=\"{}\"", probes.display())).arg("-I").arg(&folder);
    let output = command.arg(folder.join("emulate.cpp")).arg("-o").arg(&made).output();
    let output = output.map_err(|e| format!("{compiler}: {e}; install a C++ compiler, or name one in CXX"))?;
    let words = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() || !words.is_empty() {
        return Err(format!("{compiler} does not compile the kernels, or warns:\n{words}"));
    }
    std::fs::rename(&made, &program).map_err(|e| format!("{}: {e}", program.display()))?;
    Ok(program)
}

impl Process {
    fn send(&mut self, bytes: &[u8]) -> Result<()> {
        let sent = self.to.as_mut().map(|to| to.write_all(bytes));
        if matches!(sent, Some(Ok(()))) { Ok(()) } else { Err(self.ended()) }
    }

    fn ask(&mut self, letter: u8, numbers: &[u64]) -> Result<()> {
        let bytes: Vec<u8> = [letter].into_iter().chain(numbers.iter().flat_map(|n| n.to_le_bytes())).collect();
        self.send(&bytes)
    }

    fn answer(&mut self, bytes: &mut [u8]) -> Result<()> {
        self.from.read_exact(bytes).map_err(|_| self.ended())
    }

    fn number(&mut self) -> Result<u64> {
        let mut bytes = [0; 8];
        self.answer(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn ended(&mut self) -> crate::Error {
        let mut words = String::new();
        let _ = self.child.stderr.take().map(|mut errors| errors.read_to_string(&mut words));
        error(format!("the emulated card's program has ended: {words}"))
    }

    fn write(&mut self, at: u64, bytes: &[u8]) -> Result<()> {
        self.ask(b'W', &[at, bytes.len() as u64])?;
        self.send(bytes)
    }

    fn read(&mut self, at: u64, bytes: &mut [u8]) -> Result<()> {
        self.ask(b'R', &[at, bytes.len() as u64])?;
        self.answer(bytes)
    }

    /// The numbers of one of several matrices as f32, as they lie in memory from its first to its last.
    fn matrix(&mut self, of: Matrix, which: usize) -> Result<Vec<f32>> {
        let (rows, cols) = if of.transposed { (of.cols, of.rows) } else { (of.rows, of.cols) };
        let size = if of.bf16 { 2 } else { 4 };
        let mut bytes = vec![0; size * if rows == 0 { 0 } else { (rows - 1) * of.stride + cols }];
        self.read(of.at + (size * which * of.step) as u64, &mut bytes)?;
        Ok(match of.bf16 {
            true => {
                bytes.as_chunks().0.iter().map(|x| f32::from_bits(u32::from(u16::from_le_bytes(*x)) << 16)).collect()
            }
            false => bytes.as_chunks().0.iter().map(|x| f32::from_le_bytes(*x)).collect(),
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.to.take());
        let _ = self.child.wait();
    }
}

fn operand(of: Matrix, values: &[f32]) -> Mat<'_> {
    match of.transposed {
        true => Mat::strided(values, of.cols, of.rows, of.stride).t(),
        false => Mat::strided(values, of.rows, of.cols, of.stride),
    }
}

impl Driver for Emulated {
    fn name(&self) -> String {
        "cuda:0".into()
    }

    fn room(&self) -> Result<(u64, u64)> {
        let process = lock(&self.process);
        Ok((process.all.saturating_sub(process.used), process.all))
    }

    fn allocate(&self, bytes: usize) -> Result<u64> {
        let mut process = lock(&self.process);
        if process.used + bytes as u64 > process.all {
            return Err(error(super::out_of_memory(&self.name(), bytes as u64, process.all)));
        }
        process.ask(b'A', &[bytes as u64])?;
        let at = process.number()?;
        process.used += bytes as u64;
        process.peak = process.peak.max(process.used);
        process.sizes.insert(at, bytes as u64);
        Ok(at)
    }

    fn free(&self, at: u64) {
        let mut process = lock(&self.process);
        let size = process.sizes.remove(&at).unwrap_or(0);
        process.used -= size;
        // A card that has ended is noticed when its answer is missing.
        let _ = process.ask(b'F', &[at]);
    }

    fn write(&self, at: u64, bytes: &[u8]) -> Result<()> {
        lock(&self.process).write(at, bytes)
    }

    fn read(&self, at: u64, bytes: &mut [u8]) -> Result<()> {
        lock(&self.process).read(at, bytes)
    }

    fn clear(&self, at: u64, bytes: usize) -> Result<()> {
        lock(&self.process).write(at, &vec![0; bytes])
    }

    fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<()> {
        let mut process = lock(&self.process);
        let mut values = vec![0; bytes];
        process.read(from, &mut values)?;
        process.write(to, &values)
    }

    fn launch(&self, name: &'static str, grid: Grid, arguments: &[Argument]) -> Result<()> {
        let mut process = lock(&self.process);
        process.seed = process.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let numbers = [process.seed, grid.x as u64, grid.y as u64, grid.threads as u64, grid.shared as u64];
        process.ask(b'L', &numbers)?;
        let mut bytes = (name.len() as u64).to_le_bytes().to_vec();
        bytes.extend(name.as_bytes());
        bytes.extend((arguments.len() as u64).to_le_bytes());
        for argument in arguments {
            bytes.extend((argument.0.len() as u64).to_le_bytes());
            bytes.extend(&argument.0);
        }
        process.send(&bytes)?;
        let mut message = vec![0; process.number()? as usize];
        process.answer(&mut message)?;
        if message.is_empty() { Ok(()) } else { Err(error(String::from_utf8_lossy(&message))) }
    }

    fn product(&self, c: Matrix, plus: Plus, a: Matrix, b: Matrix, batch: usize) -> Result<()> {
        let mut process = lock(&self.process);
        let mut row = vec![0.0; c.cols];
        if let Some(at) = plus.row {
            process.read(at, bytemuck::cast_slice_mut(&mut row))?;
        }
        let into = if plus.matrix.is_some() { Into::Add } else { Into::Write };
        for which in 0..batch {
            let (left, right) = (process.matrix(a, which)?, process.matrix(b, which)?);
            let mut to = process.matrix(Matrix { at: plus.matrix.unwrap_or(c.at), ..c }, which)?;
            let result = MatMut::strided(&mut to, c.rows, c.cols, c.stride);
            matmul(result, into, Precision::F32, operand(a, &left), operand(b, &right), Threads::One);
            for to in to.chunks_mut(c.stride).filter(|_| plus.row.is_some()) {
                to.iter_mut().zip(&row).for_each(|(to, x)| *to += x);
            }
            process.write(c.at + (4 * which * c.step) as u64, bytemuck::cast_slice(&to))?;
        }
        Ok(())
    }
}
