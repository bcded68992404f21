//! A card in this machine, by NVIDIA's driver, cuBLASLt and NVRTC, which are loaded when the first card is opened. The
//! kernels are compiled for the card that is found.

use std::collections::HashMap;
use std::ffi::{CStr, CString, c_void};
use std::sync::{Arc, Mutex};

use cudarc::cublaslt::{result as blas, sys as blas_sys};
use cudarc::driver::{CudaContext, CudaStream, result, sys};
use cudarc::nvrtc::sys as nvrtc;

use super::driver::{Argument, Driver, Grid, Matrix, Plus};
use super::{cache, error, lock, out_of_memory};
use crate::Result;

/// Everything that is compiled: one program, whose files include each other by these names.
const SOURCES: [(&CStr, &str); 17] = [
    (c"activation.cu", include_str!("../../../cuda/activation.cu")),
    (c"attention.cu", include_str!("../../../cuda/attention.cu")),
    (c"attention.cuh", include_str!("../../../cuda/attention.cuh")),
    (c"attention_backward.cu", include_str!("../../../cuda/attention_backward.cu")),
    (c"attention_bf16.cu", include_str!("../../../cuda/attention_bf16.cu")),
    (c"attention_bf16.cuh", include_str!("../../../cuda/attention_bf16.cuh")),
    (c"attention_bf16_backward.cu", include_str!("../../../cuda/attention_bf16_backward.cu")),
    (c"columns.cuh", include_str!("../../../cuda/columns.cuh")),
    (c"device.cuh", include_str!("../../../cuda/device.cuh")),
    (c"loss.cu", include_str!("../../../cuda/loss.cu")),
    (c"math.cuh", include_str!("../../../cuda/math.cuh")),
    (c"norm.cu", include_str!("../../../cuda/norm.cu")),
    (c"optim.cu", include_str!("../../../cuda/optim.cu")),
    (c"random.cuh", include_str!("../../../cuda/random.cuh")),
    (c"relative.cuh", include_str!("../../../cuda/relative.cuh")),
    (c"rope.cu", include_str!("../../../cuda/rope.cu")),
    (c"rows.cu", include_str!("../../../cuda/rows.cu")),
];

/// Kernels of the tests alone, in builds that can have both kinds of card.
#[cfg(feature = "cuda-emulation")]
const PROBES: &[(&CStr, &str)] = &[(c"probes.cu", include_str!("../../../tests/cuda/probes.cu"))];
#[cfg(not(feature = "cuda-emulation"))]
const PROBES: &[(&CStr, &str)] = &[];

fn sources() -> impl Iterator<Item = &'static (&'static CStr, &'static str)> {
    SOURCES.iter().chain(PROBES)
}

/// Bytes that cuBLASLt may use for a product: what NVIDIA advises for the newest cards.
const WORKSPACE: usize = 32 << 20;

/// A card.
#[derive(Debug)]
pub struct Nvidia {
    number: usize,
    context: Arc<CudaContext>,
    stream: Arc<CudaStream>,
    module: sys::CUmodule,
    blas: blas_sys::cublasLtHandle_t,
    workspace: u64,
    functions: Mutex<HashMap<&'static str, Function>>,
}

/// A kernel, and how much shared memory it was told that it may have.
#[derive(Clone, Copy, Debug)]
struct Function {
    at: sys::CUfunction,
    shared: usize,
}

// SAFETY: the pointers inside are handles of NVIDIA's libraries, which may be used from any thread, and this type gives
// them away to nobody.
unsafe impl Send for Nvidia {}
// SAFETY: all functions of the driver and of cuBLASLt that are called here may be called by several threads at once; work
// goes to one stream, which orders it.
unsafe impl Sync for Nvidia {}

impl Nvidia {
    /// Opens the card of this number.
    ///
    /// # Errors
    /// [`Error::Card`](crate::Error::Card): no driver, no such card, one of NVIDIA's libraries missing, kernels that it
    /// cannot run.
    pub fn open(number: usize) -> Result<Nvidia> {
        // SAFETY: looking for a library runs its loader only, which these libraries are made for.
        let there = unsafe {
            [
                ("driver (libcuda)", sys::is_culib_present()),
                ("NVRTC (libnvrtc, of the CUDA toolkit)", nvrtc::is_culib_present()),
                ("cuBLASLt (libcublasLt, of the CUDA toolkit)", blas_sys::is_culib_present()),
            ]
        };
        if let Some((missing, _)) = there.iter().find(|(_, there)| !there) {
            let what = format!("cuda:{number}: NVIDIA's {missing} is not found");
            return Err(error(format!("{what}; install it, add its folder to LD_LIBRARY_PATH, or say --device cpu")));
        }
        let failed = |what: &'static str| {
            move |why: result::DriverError| error(format!("cuda:{number}: {what}: {why:?}; say --device cpu"))
        };
        let context = CudaContext::new(number).map_err(failed("cannot be opened"))?;
        let stream = context.new_stream().map_err(failed("has no stream"))?;
        let (major, minor) = context.compute_capability().map_err(failed("does not say what it is"))?;
        if major < 8 {
            let what = format!("cuda:{number} has compute capability {major}.{minor}, and 8.0 (Ampere) is needed");
            return Err(error(format!("{what}; say --device cpu")));
        }
        let image = image(&format!("sm_{major}{minor}"))?;
        // SAFETY: the image is a whole cubin, made above, and lives until it is loaded.
        let module =
            unsafe { result::module::load_data(image.as_ptr().cast()) }.map_err(failed("refuses the kernels"))?;
        let blas = blas::create_handle().map_err(|why| error(format!("cuda:{number}: cuBLASLt: {why:?}")))?;
        // SAFETY: only cuBLASLt uses it, which writes what it reads.
        let workspace = unsafe { result::malloc_sync(WORKSPACE) }.map_err(failed("has no memory for products"))?;
        Ok(Nvidia { number, context, stream, module, blas, workspace, functions: Mutex::default() })
    }

    /// The error of something that the driver refused.
    fn failed(&self, what: &str) -> impl FnOnce(result::DriverError) -> crate::Error {
        let text = format!("cuda:{}: {what}", self.number);
        move |why| error(format!("{text}: {why:?}; the run can go on from its last checkpoint, also with --device cpu"))
    }

    /// Makes the card the calling thread's.
    fn bind(&self) -> Result<()> {
        self.context.bind_to_thread().map_err(self.failed("is lost"))
    }

    fn function(&self, name: &'static str, shared: usize) -> Result<sys::CUfunction> {
        let mut functions = lock(&self.functions);
        let found = match functions.get(name) {
            Some(found) => *found,
            None => {
                // Names are of this crate and hold no zero byte.
                let text = CString::new(name).map_err(|_| error("a kernel's name"))?;
                // SAFETY: the module is loaded and stays so as long as this card.
                let at = unsafe { result::module::get_function(self.module, text) }.map_err(self.failed(name))?;
                Function { at, shared: 48 << 10 }
            }
        };
        let function = Function { shared: found.shared.max(shared), ..found };
        if function.shared > found.shared {
            let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            // SAFETY: the function is of the loaded module.
            let set = unsafe { result::function::set_function_attribute(function.at, attribute, shared as i32) };
            set.map_err(self.failed("has too little shared memory"))?;
        }
        functions.insert(name, function);
        Ok(function.at)
    }
}

/// What the kernels are compiled with, besides the architecture.
const OPTIONS: [&str; 2] = ["-fmad=false", "-std=c++17"];

/// All kernels for an architecture such as `sm_90`, as they were compiled before from the same sources by the same NVRTC,
/// or now.
fn image(architecture: &str) -> Result<Vec<u8>> {
    let (mut major, mut minor) = (0, 0);
    // SAFETY: it writes two numbers, which are there.
    let status = unsafe { nvrtc::nvrtcVersion(&mut major, &mut minor) };
    let known = status == nvrtc::nvrtcResult::NVRTC_SUCCESS;
    let version = format!("{major}.{minor}");
    let mut ingredients = vec![architecture.as_bytes(), version.as_bytes()];
    ingredients.extend(OPTIONS.map(str::as_bytes));
    ingredients.extend(sources().flat_map(|(name, source)| [name.to_bytes(), source.as_bytes()]));
    // What another NVRTC has made is not taken for this one's.
    let folder = cache::folder().filter(|_| known);
    cache::kept(folder.as_deref(), &ingredients, || compile(architecture))
}

/// Compiles all kernels for an architecture.
fn compile(architecture: &str) -> Result<Vec<u8>> {
    let text = |text: &str| CString::new(text).map_err(|_| error("a zero byte in the kernels' source"));
    let all: String = sources()
        .filter_map(|(name, _)| name.to_str().ok().filter(|name| name.ends_with(".cu")))
        .map(|name| format!("#include \"{name}\"\n"))
        .collect();
    let all = text(&all)?;
    let files = sources().map(|(_, source)| text(source)).collect::<Result<Vec<CString>>>()?;
    let contents: Vec<_> = files.iter().map(|file| file.as_ptr()).collect();
    let names: Vec<_> = sources().map(|(name, _)| name.as_ptr()).collect();
    let options = [&format!("--gpu-architecture={architecture}")[..], OPTIONS[0], OPTIONS[1]];
    let options = options.into_iter().map(text).collect::<Result<Vec<CString>>>()?;
    let options: Vec<_> = options.iter().map(|option| option.as_ptr()).collect();
    let mut program = std::ptr::null_mut();
    let check = |what: &str, status: nvrtc::nvrtcResult| match status {
        nvrtc::nvrtcResult::NVRTC_SUCCESS => Ok(()),
        other => Err(error(format!("NVRTC cannot {what} the kernels for {architecture}: {other:?}"))),
    };
    // SAFETY: all pointers are to texts that end with a zero byte and live until the end of this function, in numbers that
    // are those of the arrays; the program is destroyed once, at the end.
    unsafe {
        let (count, name) = (names.len() as i32, c"kernels.cu".as_ptr());
        let (contents, names) = (contents.as_ptr(), names.as_ptr());
        check("read", nvrtc::nvrtcCreateProgram(&mut program, all.as_ptr(), name, count, contents, names))?;
        let compiled = nvrtc::nvrtcCompileProgram(program, options.len() as i32, options.as_ptr());
        let mut image = Vec::new();
        let compiles = check("compile", compiled).map_err(|why| error(format!("{why}; {}", said(program))));
        let made = compiles.and_then(|()| {
            let mut size = 0;
            check("measure", nvrtc::nvrtcGetCUBINSize(program, &mut size))?;
            image = vec![0u8; size];
            check("give", nvrtc::nvrtcGetCUBIN(program, image.as_mut_ptr().cast()))
        });
        nvrtc::nvrtcDestroyProgram(&mut program);
        made.map(|()| image)
    }
}

/// What NVRTC says of a program that it has compiled or not.
///
/// # Safety
/// The program is one of `nvrtcCreateProgram`.
unsafe fn said(program: nvrtc::nvrtcProgram) -> String {
    let mut size = 0;
    // SAFETY: the size is written to a number, and the words to as many bytes as they are.
    let words = unsafe {
        nvrtc::nvrtcGetProgramLogSize(program, &mut size);
        let mut words = vec![0u8; size];
        nvrtc::nvrtcGetProgramLog(program, words.as_mut_ptr().cast());
        words
    };
    String::from_utf8_lossy(&words).trim_end_matches('\0').trim().into()
}

impl Driver for Nvidia {
    fn name(&self) -> String {
        format!("cuda:{}", self.number)
    }

    fn room(&self) -> Result<(u64, u64)> {
        self.bind()?;
        let (free, all) = result::mem_get_info().map_err(self.failed("does not say its memory"))?;
        Ok((free as u64, all as u64))
    }

    fn allocate(&self, bytes: usize) -> Result<u64> {
        self.bind()?;
        // SAFETY: the memory is written before it is read, as every operation does.
        match unsafe { result::malloc_sync(bytes.max(1)) } {
            Ok(at) => Ok(at),
            Err(result::DriverError(sys::cudaError_enum::CUDA_ERROR_OUT_OF_MEMORY)) => {
                Err(error(out_of_memory(&self.name(), bytes as u64, self.room()?.1)))
            }
            Err(why) => Err(self.failed("gives no memory")(why)),
        }
    }

    fn free(&self, at: u64) {
        // A card that is lost has no memory to give back. `cuMemFree` waits for the work that uses it.
        if self.bind().is_ok() {
            // SAFETY: it came from `allocate`, and whoever frees it does so once, when nobody will use it any more.
            let _ = unsafe { result::free_sync(at) };
        }
    }

    fn write(&self, at: u64, bytes: &[u8]) -> Result<()> {
        self.bind()?;
        // SAFETY: the memory there is of `allocate` and as large. From pageable memory the bytes are taken before the call
        // returns.
        unsafe { result::memcpy_htod_async(at, bytes, self.stream.cu_stream()) }.map_err(self.failed("takes no data"))
    }

    fn read(&self, at: u64, bytes: &mut [u8]) -> Result<()> {
        self.bind()?;
        let stream = self.stream.cu_stream();
        // SAFETY: the memory there is of `allocate` and as large; `bytes` outlives the copy, which is waited for.
        unsafe { result::memcpy_dtoh_async(bytes, at, stream).and_then(|()| result::stream::synchronize(stream)) }
            .map_err(self.failed("gives no data"))
    }

    fn clear(&self, at: u64, bytes: usize) -> Result<()> {
        self.bind()?;
        // SAFETY: the memory there is of `allocate` and as large.
        unsafe { result::memset_d8_async(at, 0, bytes, self.stream.cu_stream()) }.map_err(self.failed("does not clear"))
    }

    fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<()> {
        self.bind()?;
        // SAFETY: both are of `allocate` and as large, and apart from each other.
        unsafe { result::memcpy_dtod_async(to, from, bytes, self.stream.cu_stream()) }
            .map_err(self.failed("does not copy"))
    }

    fn launch(&self, name: &'static str, grid: Grid, arguments: &[Argument]) -> Result<()> {
        self.bind()?;
        let function = self.function(name, grid.shared)?;
        // Arguments are aligned to 8 bytes here, as the driver reads them by their types.
        let mut words: Vec<Vec<u64>> = arguments.iter().map(|argument| aligned(&argument.0)).collect();
        let mut pointers: Vec<*mut c_void> = words.iter_mut().map(|words| words.as_mut_ptr().cast()).collect();
        let (blocks, threads) = ((grid.x as u32, grid.y as u32, 1), (grid.threads as u32, 1, 1));
        // SAFETY: the arguments are those of the kernel, in number, order and size (the emulated card refuses others), and
        // live until the call returns, by which time the driver has copied them; addresses are of memory that is there.
        unsafe {
            let stream = self.stream.cu_stream();
            result::launch_kernel(function, blocks, threads, grid.shared as u32, stream, &mut pointers)
        }
        .map_err(self.failed(name))
    }

    fn product(&self, c: Matrix, plus: Plus, a: Matrix, b: Matrix, batch: usize) -> Result<()> {
        self.bind()?;
        Product::new(c, plus, a, b, batch).and_then(|product| product.run(self, plus, [a.at, b.at, c.at])).map_err(
            |why| {
                let shape = format!("[{}, {}] x [{}, {}]", a.rows, a.cols, b.rows, b.cols);
                error(format!("cuda:{}: cuBLASLt refuses a product {shape}: {why:?}", self.number))
            },
        )
    }
}

/// Bytes as words, with zeros behind them.
fn aligned(bytes: &[u8]) -> Vec<u64> {
    let word = |bytes: &[u8]| {
        let mut word = [0; 8];
        word[..bytes.len()].copy_from_slice(bytes);
        u64::from_le_bytes(word)
    };
    bytes.chunks(8).map(word).collect()
}

type Blas<T> = std::result::Result<T, blas::CublasError>;

/// What cuBLASLt has to know of a product. It thinks in columns: rows there are columns here, so it is told c' = b' a'.
struct Product {
    description: blas_sys::cublasLtMatmulDesc_t,
    preference: blas_sys::cublasLtMatmulPreference_t,
    /// Of a, b and c.
    layouts: [blas_sys::cublasLtMatrixLayout_t; 3],
}

impl Product {
    fn new(c: Matrix, plus: Plus, a: Matrix, b: Matrix, batch: usize) -> Blas<Product> {
        use blas_sys::cublasLtMatmulDescAttributes_t as Of;
        use blas_sys::cublasLtMatmulPreferenceAttributes_t as Wish;
        let float = blas_sys::cudaDataType::CUDA_R_32F;
        let description = blas::create_matmul_desc(blas_sys::cublasComputeType_t::CUBLAS_COMPUTE_32F, float)?;
        let preference = blas::create_matmul_pref()?;
        let layouts = [layout(a, batch)?, layout(b, batch)?, layout(c, batch)?];
        let product = Product { description, preference, layouts };
        // 1 is "transposed", 0 "not"; the left operand there is b.
        for (attribute, of) in [(Of::CUBLASLT_MATMUL_DESC_TRANSA, b), (Of::CUBLASLT_MATMUL_DESC_TRANSB, a)] {
            let transposed = i32::from(of.transposed);
            // SAFETY: the attribute is an i32, and is copied.
            unsafe { blas::set_matmul_desc_attribute(description, attribute, (&raw const transposed).cast(), 4)? };
        }
        if let Some(row) = plus.row {
            // A row here is a column there, which this epilogue adds to all columns.
            let epilogue = blas_sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS;
            // SAFETY: the attributes are an enumeration and an address, and are copied; the row lies in memory of `allocate`
            // and is as long as the result's rows.
            unsafe {
                let (value, size) = ((&raw const epilogue).cast(), size_of_val(&epilogue));
                blas::set_matmul_desc_attribute(description, Of::CUBLASLT_MATMUL_DESC_EPILOGUE, value, size)?;
                let value = (&raw const row).cast();
                blas::set_matmul_desc_attribute(description, Of::CUBLASLT_MATMUL_DESC_BIAS_POINTER, value, 8)?;
            }
        }
        let workspace = WORKSPACE as u64;
        // SAFETY: the attribute is a u64, and is copied.
        unsafe {
            let wish = Wish::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES;
            blas::set_matmul_pref_attribute(preference, wish, (&raw const workspace).cast(), 8)?;
        }
        // What the addresses are multiples of; without it the library takes them to be multiples of 256. The bias has no
        // wish of its own: the library may read it as it writes the result.
        for (wish, at) in [
            (Wish::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, b.at),
            (Wish::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, a.at),
            (Wish::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, plus.matrix.unwrap_or(c.at)),
            (Wish::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, c.at | plus.row.unwrap_or(0)),
        ] {
            let alignment: u32 = 1 << at.trailing_zeros().min(8);
            // SAFETY: the attribute is a u32, and is copied.
            unsafe { blas::set_matmul_pref_attribute(preference, wish, (&raw const alignment).cast(), 4)? };
        }
        Ok(product)
    }

    fn run(&self, card: &Nvidia, plus: Plus, [a, b, c]: [u64; 3]) -> Blas<()> {
        let (alpha, beta) = (1.0f32, if plus.matrix.is_some() { 1.0f32 } else { 0.0 });
        let [of_a, of_b, of_c] = self.layouts;
        // SAFETY: handle, description and layouts are there; the matrices lie in memory of `allocate` as they say, c apart
        // from a and b; alpha and beta are f32 and read before the call returns; the workspace is as large as was said, and
        // the stream lets one product use it at a time.
        unsafe {
            let description = self.description;
            let found =
                blas::get_matmul_algo_heuristic(card.blas, description, of_b, of_a, of_c, of_c, self.preference)?;
            blas::matmul(
                card.blas,
                description,
                (&raw const alpha).cast(),
                (&raw const beta).cast(),
                b as *const c_void,
                of_b,
                a as *const c_void,
                of_a,
                plus.matrix.unwrap_or(c) as *const c_void,
                of_c,
                c as *mut c_void,
                of_c,
                &raw const found.algo,
                card.workspace as *mut c_void,
                WORKSPACE,
                card.stream.cu_stream().cast(),
            )
        }
    }
}

impl Drop for Product {
    fn drop(&mut self) {
        // SAFETY: each was made once and is destroyed once.
        unsafe {
            for layout in self.layouts {
                let _ = blas::destroy_matrix_layout(layout);
            }
            let _ = blas::destroy_matmul_pref(self.preference);
            let _ = blas::destroy_matmul_desc(self.description);
        }
    }
}

/// A matrix as it lies in memory, in columns.
fn layout(of: Matrix, batch: usize) -> Blas<blas_sys::cublasLtMatrixLayout_t> {
    use blas_sys::cublasLtMatrixLayoutAttribute_t as Of;
    let kind = if of.bf16 { blas_sys::cudaDataType::CUDA_R_16BF } else { blas_sys::cudaDataType::CUDA_R_32F };
    let (rows, cols) = if of.transposed { (of.cols, of.rows) } else { (of.rows, of.cols) };
    let layout = blas::create_matrix_layout(kind, cols as u64, rows as u64, of.stride as i64)?;
    let (count, step) = (batch as i32, of.step as i64);
    // SAFETY: the attributes are an i32 and an i64, and are copied.
    unsafe {
        blas::set_matrix_layout_attribute(
            layout,
            Of::CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT,
            (&raw const count).cast(),
            4,
        )?;
        let attribute = Of::CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET;
        blas::set_matrix_layout_attribute(layout, attribute, (&raw const step).cast(), 8)?;
    }
    Ok(layout)
}

impl Drop for Nvidia {
    fn drop(&mut self) {
        if self.bind().is_ok() {
            self.free(self.workspace);
            // SAFETY: both were made once, in `open`, and nothing uses them any more.
            unsafe {
                let _ = blas::destroy_handle(self.blas);
                let _ = result::module::unload(self.module);
            }
        }
    }
}
