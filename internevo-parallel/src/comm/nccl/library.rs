//! Finding `libnccl` and the functions in it. Nothing here panics, and nothing needs a GPU.

use std::{
    ffi::{CStr, c_char, c_int, c_uint, c_void},
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use cudarc::nccl::sys::{cudaStream_t, ncclComm_t, ncclConfig_t, ncclDataType_t, ncclRedOp_t, ncclUniqueId};
use libloading::Library;

use super::NcclError;

/// Environment variable that says where NCCL is: the library, its folder, or the `site-packages` with NVIDIA's wheel.
pub const LIBRARY_VARIABLE: &str = "NCCL_SO_PATH";

/// The names under which NCCL is installed: by distributions' development packages, and by everything else.
const NAMES: [&str; 2] = ["libnccl.so", "libnccl.so.2"];

/// Where NVIDIA's wheel keeps the library, below `site-packages`.
const IN_WHEEL: &str = "nvidia/nccl/lib";

/// The oldest version with all functions used here (`ncclCommSplit` came with 2.18).
const OLDEST: (c_int, c_int) = (2, 18);

/// `NCCL_UNIQUE_ID_BYTES`.
const ID_BYTES: usize = 128;

/// Why there is no usable NCCL, with everything that was tried.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "no usable NCCL:{}\n  install it (for example `pip install nvidia-nccl-cu12`) and set {LIBRARY_VARIABLE} to libnccl.so.2, its \
         folder or the site-packages folder",
    list(tried)
)]
pub struct MissingLibrary {
    /// What was tried, and why it is of no use.
    pub tried: Vec<(PathBuf, String)>,
}

fn list(tried: &[(PathBuf, String)]) -> String {
    tried.iter().map(|(path, reason)| format!("\n  {}: {reason}", path.display())).collect()
}

/// What identifies a world that is being formed: rank 0 makes it, all ranks need the same one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct NcclId(pub(super) ncclUniqueId);

impl NcclId {
    /// The bytes to hand to the other ranks.
    pub fn to_bytes(self) -> [u8; ID_BYTES] {
        self.0.internal.map(|byte| byte as u8)
    }

    /// The id that rank 0 made.
    ///
    /// # Errors
    /// [`NcclError::Argument`] unless there are exactly 128 bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, NcclError> {
        let reason = || format!("an NCCL id has {ID_BYTES} bytes, these are {}", bytes.len());
        let wrong = |_| NcclError::Argument { call: "NcclId::from_bytes", reason: reason() };
        let bytes: [u8; ID_BYTES] = bytes.try_into().map_err(wrong)?;
        Ok(Self(ncclUniqueId { internal: bytes.map(|byte| byte as c_char) }))
    }
}

impl fmt::Debug for NcclId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let start = self.to_bytes()[..8].iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        write!(f, "NcclId({start}...)")
    }
}

/// Declares the table of functions. Results are plain integers: a later NCCL may return codes that an enum does not know.
macro_rules! functions {
    ($($field:ident = $symbol:literal ($($argument:ty),*) -> $result:ty;)*) => {
        pub(super) struct Functions {
            $(pub(super) $field: unsafe extern "C" fn($($argument),*) -> $result,)*
        }

        impl Functions {
            fn of(library: &Library) -> Result<Self, libloading::Error> {
                // SAFETY: the signatures are those of nccl.h, which keeps them within major version 2. The pointers live as
                // long as the library, which `Nccl` keeps beside them.
                unsafe { Ok(Self { $($field: *library.get(concat!($symbol, "\0").as_bytes())?,)* }) }
            }
        }
    };
}

functions! {
    get_version = "ncclGetVersion"(*mut c_int) -> c_uint;
    get_unique_id = "ncclGetUniqueId"(*mut ncclUniqueId) -> c_uint;
    get_error_string = "ncclGetErrorString"(c_uint) -> *const c_char;
    comm_init_rank = "ncclCommInitRank"(*mut ncclComm_t, c_int, ncclUniqueId, c_int) -> c_uint;
    comm_split = "ncclCommSplit"(ncclComm_t, c_int, c_int, *mut ncclComm_t, *mut ncclConfig_t) -> c_uint;
    comm_count = "ncclCommCount"(ncclComm_t, *mut c_int) -> c_uint;
    comm_user_rank = "ncclCommUserRank"(ncclComm_t, *mut c_int) -> c_uint;
    comm_async_error = "ncclCommGetAsyncError"(ncclComm_t, *mut c_uint) -> c_uint;
    comm_abort = "ncclCommAbort"(ncclComm_t) -> c_uint;
    comm_destroy = "ncclCommDestroy"(ncclComm_t) -> c_uint;
    all_reduce = "ncclAllReduce"(*const c_void, *mut c_void, usize, ncclDataType_t, ncclRedOp_t, ncclComm_t, cudaStream_t) -> c_uint;
    reduce_scatter = "ncclReduceScatter"(*const c_void, *mut c_void, usize, ncclDataType_t, ncclRedOp_t, ncclComm_t, cudaStream_t) -> c_uint;
    all_gather = "ncclAllGather"(*const c_void, *mut c_void, usize, ncclDataType_t, ncclComm_t, cudaStream_t) -> c_uint;
    broadcast = "ncclBroadcast"(*const c_void, *mut c_void, usize, ncclDataType_t, c_int, ncclComm_t, cudaStream_t) -> c_uint;
    send = "ncclSend"(*const c_void, usize, ncclDataType_t, c_int, ncclComm_t, cudaStream_t) -> c_uint;
    recv = "ncclRecv"(*mut c_void, usize, ncclDataType_t, c_int, ncclComm_t, cudaStream_t) -> c_uint;
    group_start = "ncclGroupStart"() -> c_uint;
    group_end = "ncclGroupEnd"() -> c_uint;
}

/// A loaded NCCL. Cloning shares it.
#[derive(Clone)]
pub struct Nccl(Arc<Loaded>);

struct Loaded {
    functions: Functions,
    path: PathBuf,
    version: (c_int, c_int, c_int),
    /// Last: the functions point into it.
    _library: Library,
}

impl fmt::Debug for Nccl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nccl").field("path", &self.path()).field("version", &self.version()).finish()
    }
}

impl Nccl {
    /// Loads the library at `path`, or of that name on the system's search path.
    fn load(path: &Path) -> Result<Self, String> {
        // SAFETY: loading runs the library's initialisers; those of NCCL set up its own state and nothing else.
        let library = unsafe { Library::new(path) }.map_err(|e| loader_text(&e))?;
        let functions = Functions::of(&library).map_err(|e| loader_text(&e))?;
        let mut number = 0;
        // SAFETY: `number` is valid for writing.
        let code = unsafe { (functions.get_version)(&mut number) };
        if code != 0 {
            return Err(format!("ncclGetVersion failed with {code}"));
        }
        // NCCL_VERSION_CODE: 2.9 and later count 10 000 per major version, earlier ones 1000.
        let (major, minor, patch) = match number {
            10_000.. => (number / 10_000, number / 100 % 100, number % 100),
            _ => (number / 1000, number / 100 % 10, number % 100),
        };
        if major != 2 || (major, minor) < OLDEST {
            return Err(format!("version {major}.{minor}.{patch}, but 2.{} or a later 2.x is needed", OLDEST.1));
        }
        let loaded = Loaded { functions, path: path.into(), version: (major, minor, patch), _library: library };
        Ok(Self(Arc::new(loaded)))
    }

    /// Path or name it was loaded by.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Major, minor and patch version.
    pub fn version(&self) -> (i32, i32, i32) {
        self.0.version
    }

    /// A new id, for rank 0 of a world. Needs a network interface, but no GPU.
    ///
    /// # Errors
    /// [`NcclError::Call`].
    pub fn unique_id(&self) -> Result<NcclId, NcclError> {
        let mut id = ncclUniqueId { internal: [0; ID_BYTES] };
        // SAFETY: `id` is valid for writing.
        self.check("ncclGetUniqueId", unsafe { (self.functions().get_unique_id)(&mut id) })?;
        Ok(NcclId(id))
    }

    pub(super) fn functions(&self) -> &Functions {
        &self.0.functions
    }

    /// A result other than `ncclSuccess` as an error with NCCL's words for it.
    pub(super) fn check(&self, function: &'static str, code: c_uint) -> Result<(), NcclError> {
        if code == 0 {
            return Ok(());
        }
        // SAFETY: NCCL answers every code, known or not, with a static string.
        let text = unsafe {
            let text = (self.functions().get_error_string)(code);
            if text.is_null() { "unknown".into() } else { CStr::from_ptr(text).to_string_lossy().into_owned() }
        };
        Err(NcclError::Call { function, code, text })
    }
}

/// What the loader said: the error itself only names the call that failed.
fn loader_text(error: &libloading::Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}

/// Loads NCCL from where [`LIBRARY_VARIABLE`] says, otherwise from the system's search path.
///
/// # Errors
/// [`MissingLibrary`] with every place that was tried.
pub fn locate() -> Result<Nccl, MissingLibrary> {
    locate_at(std::env::var_os(LIBRARY_VARIABLE).as_deref().map(Path::new))
}

/// [`locate`] with the variable's value.
pub(super) fn locate_at(place: Option<&Path>) -> Result<Nccl, MissingLibrary> {
    let mut tried = Vec::new();
    for path in candidates(place) {
        match Nccl::load(&path) {
            Ok(nccl) => return Ok(nccl),
            Err(reason) => tried.push((path, reason)),
        }
    }
    Err(MissingLibrary { tried })
}

/// Where the library may be. A place that was named is the only one: another version than the wanted one helps nobody.
fn candidates(place: Option<&Path>) -> Vec<PathBuf> {
    let Some(place) = place else { return NAMES.map(PathBuf::from).into() };
    if !place.is_dir() {
        return vec![place.into()];
    }
    let folders = [place.into(), place.join(IN_WHEEL)];
    let all = folders.iter().flat_map(|folder| NAMES.map(|name| folder.join(name)));
    let present: Vec<PathBuf> = all.clone().filter(|path| path.exists()).collect();
    if present.is_empty() { all.collect() } else { present }
}

/// One line of [`diagnose`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnosis {
    /// What was looked at.
    pub what: &'static str,
    /// Whether it will do.
    pub usable: bool,
    /// What was found, or what to do.
    pub detail: String,
}

/// What this machine has and lacks for the backend: CUDA driver, GPUs, NCCL, and NCCL under the name that other users look for.
pub fn diagnose() -> Vec<Diagnosis> {
    let gpus = gpus();
    let driver = Diagnosis {
        what: "CUDA driver",
        usable: !matches!(gpus, Err(NcclError::NoDriver)),
        detail: if matches!(gpus, Err(NcclError::NoDriver)) { NcclError::NoDriver.to_string() } else { "found".into() },
    };
    let gpu = Diagnosis {
        what: "GPUs",
        usable: gpus.as_ref().is_ok_and(|count| *count > 0),
        detail: gpus.map_or_else(|error| error.to_string(), |count| format!("{count} found")),
    };
    let nccl = locate();
    let library = Diagnosis {
        what: "NCCL",
        usable: nccl.is_ok(),
        detail: match &nccl {
            Ok(nccl) => {
                let (major, minor, patch) = nccl.version();
                format!("{} {major}.{minor}.{patch}", nccl.path().display())
            }
            Err(missing) => missing.to_string(),
        },
    };
    let lines = [driver, gpu, library];
    lines.into_iter().chain(nccl.is_ok().then(plain_name)).collect()
}

/// Whether the tensor engine's own multi-GPU support finds NCCL: it asks for `libnccl.so` alone.
fn plain_name() -> Diagnosis {
    let found = Nccl::load(Path::new(NAMES[0]));
    let detail = match &found {
        Ok(_) => "found".to_owned(),
        Err(_) => {
            "not on the search path; make a symlink of that name to libnccl.so.2 and put its folder on LD_LIBRARY_PATH"
                .into()
        }
    };
    Diagnosis { what: "libnccl.so for the tensor engine", usable: found.is_ok(), detail }
}

/// GPUs that the driver shows.
pub(super) fn gpus() -> Result<usize, NcclError> {
    // SAFETY: tries to load the driver's library, whose initialisers touch nothing of ours.
    if !unsafe { cudarc::driver::sys::is_culib_present() } {
        return Err(NcclError::NoDriver);
    }
    let count = cudarc::driver::CudaContext::device_count().map_err(super::error::driver("count the devices"))?;
    Ok(usize::try_from(count).unwrap_or(0))
}
