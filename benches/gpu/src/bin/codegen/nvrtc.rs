//! NVIDIA's run-time compiler, loaded from its shared library: CUDA C++ to PTX, with the options of cubecl's CUDA runtime.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use libloading::Library;

/// `nvrtcProgram`.
type Program = *mut c_void;
type Size = unsafe extern "C" fn(Program, *mut usize) -> c_int;
type Text = unsafe extern "C" fn(Program, *mut c_char) -> c_int;
type Create = unsafe extern "C" fn(
    *mut Program,
    *const c_char,
    *const c_char,
    c_int,
    *const *const c_char,
    *const *const c_char,
) -> c_int;
type Compile = unsafe extern "C" fn(Program, c_int, *const *const c_char) -> c_int;
type Destroy = unsafe extern "C" fn(*mut Program) -> c_int;
type Version = unsafe extern "C" fn(*mut c_int, *mut c_int) -> c_int;

/// The functions that are used of `libnvrtc`, which stays loaded.
pub struct Nvrtc {
    create: Create,
    compile: Compile,
    destroy: Destroy,
    log: (Size, Text),
    ptx: (Size, Text),
    include: PathBuf,
    /// Major and minor version.
    pub version: (i32, i32),
    _library: Library,
}

impl Nvrtc {
    /// Loads the library of a toolkit laid out as the wheels do: `lib/libnvrtc.so.13`, `include`.
    pub fn open(toolkit: &Path) -> anyhow::Result<Self> {
        let file = toolkit.join("lib").join("libnvrtc.so.13");
        // SAFETY: the library has no initialisers with preconditions, and each symbol has the type NVRTC's header declares.
        unsafe {
            let library = Library::new(&file).with_context(|| format!("cannot load {}", file.display()))?;
            let version: Version = *library.get(b"nvrtcVersion\0")?;
            let (mut major, mut minor) = (0, 0);
            version(&mut major, &mut minor);
            Ok(Self {
                create: *library.get(b"nvrtcCreateProgram\0")?,
                compile: *library.get(b"nvrtcCompileProgram\0")?,
                destroy: *library.get(b"nvrtcDestroyProgram\0")?,
                log: (*library.get(b"nvrtcGetProgramLogSize\0")?, *library.get(b"nvrtcGetProgramLog\0")?),
                ptx: (*library.get(b"nvrtcGetPTXSize\0")?, *library.get(b"nvrtcGetPTX\0")?),
                include: toolkit.join("include"),
                version: (major, minor),
                _library: library,
            })
        }
    }

    /// PTX of `source` for `target` (`sm_90a`).
    ///
    /// # Errors
    /// With the compiler's own log if it refuses the source.
    pub fn ptx(&self, source: &str, target: &str) -> anyhow::Result<String> {
        let source = CString::new(source)?;
        let include = self.include.display();
        let options = [
            format!("--gpu-architecture={target}"),
            format!("--include-path={include}"),
            "-lineinfo".to_owned(),
            format!("--include-path={include}/cccl"),
        ];
        let options = options.map(|option| CString::new(option).expect("a path has no zero byte"));
        let pointers = options.each_ref().map(|option| option.as_ptr());
        let mut program: Program = std::ptr::null_mut();
        let none = std::ptr::null();
        // SAFETY: `source`, the options and their pointers outlive the program, which is destroyed once, below.
        unsafe {
            if (self.create)(&mut program, source.as_ptr(), none, 0, std::ptr::null(), std::ptr::null()) != 0 {
                bail!("NVRTC makes no program");
            }
            let failed = (self.compile)(program, pointers.len() as c_int, pointers.as_ptr()) != 0;
            let text = self.text(program, if failed { self.log } else { self.ptx });
            (self.destroy)(&mut program);
            if failed { bail!("NVRTC refuses the source for {target}:\n{}", text?) } else { text }
        }
    }

    /// A text of a program: its size is asked for first.
    ///
    /// # Safety
    /// `program` is alive.
    unsafe fn text(&self, program: Program, (size, text): (Size, Text)) -> anyhow::Result<String> {
        let mut bytes = 0;
        // SAFETY: the program is alive, and the text is written into as many bytes as NVRTC says it has, the final zero included.
        let buffer = unsafe {
            if size(program, &mut bytes) != 0 {
                bail!("NVRTC has no text");
            }
            let mut buffer = vec![0u8; bytes + 1];
            if text(program, buffer.as_mut_ptr().cast()) != 0 {
                bail!("NVRTC has no text");
            }
            buffer
        };
        let text = CStr::from_bytes_until_nul(&buffer).context("NVRTC ends its texts with a zero")?;
        Ok(text.to_string_lossy().into_owned())
    }
}
