//! Packages of a `Cargo.lock`, found in cargo's registry folders: extracted sources first, `.crate` archives otherwise.
//!
//! Both forms give the same files, byte for byte: what cargo adds when it extracts is hidden and skipped.

use std::{
    fs,
    io::Read,
    path::{Component, Path, PathBuf},
};

use internevo_core::storage::StorageError;

use super::{
    MAX_FILE_BYTES,
    kinds::{Kind, is_hidden, kind_of},
    manifest::Skipped,
};
use crate::DataError;

/// One `[[package]]` of a lock file that comes from a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockedPackage {
    /// Package name.
    pub name: String,
    /// Exact version.
    pub version: String,
}

impl LockedPackage {
    /// `name-version`, as folders and archives are called.
    pub fn folder(&self) -> String {
        format!("{}-{}", self.name, self.version)
    }
}

/// Registry packages of a lock file, in the order of the hash of their `name-version`: a cap then takes an even sample,
/// and the order depends on nothing but the lock file. Workspace members and git packages are left out.
///
/// # Errors
/// [`DataError::Invalid`] with file and line when it is not a lock file.
pub fn read_lock(path: &Path, text: &str) -> Result<Vec<LockedPackage>, DataError> {
    #[derive(serde::Deserialize)]
    struct Lock {
        #[serde(default)]
        package: Vec<Package>,
    }
    #[derive(serde::Deserialize)]
    struct Package {
        name: String,
        version: String,
        source: Option<String>,
    }
    let lock: Lock = toml::from_str(text).map_err(|e| {
        let line = e.span().map_or(1, |span| 1 + text[..span.start].matches('\n').count() as u64);
        DataError::invalid(path, line, format!("not a Cargo.lock: {}", e.message()))
    })?;
    let mut packages: Vec<LockedPackage> = lock
        .package
        .into_iter()
        .filter(|package| {
            package.source.as_deref().is_some_and(|s| s.starts_with("registry+") || s.starts_with("sparse+"))
        })
        .map(|package| LockedPackage { name: package.name, version: package.version })
        .collect();
    packages.sort_by_cached_key(|package| *blake3::hash(package.folder().as_bytes()).as_bytes());
    packages.dedup();
    Ok(packages)
}

/// Where a package's files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PackageSource {
    /// An extracted folder.
    Folder(PathBuf),
    /// A gzipped tar archive.
    Archive(PathBuf),
}

/// Finds `package` below `cargo_home`; the first registry in the order of names wins.
pub fn locate(cargo_home: &Path, package: &LockedPackage) -> Option<PackageSource> {
    let registries = |kind: &str| {
        let mut folders: Vec<PathBuf> = fs::read_dir(cargo_home.join("registry").join(kind))
            .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
            .unwrap_or_default();
        folders.sort();
        folders
    };
    let folder = registries("src").into_iter().map(|r| r.join(package.folder())).find(|path| path.is_dir());
    let archive = || {
        let name = format!("{}.crate", package.folder());
        registries("cache").into_iter().map(|r| r.join(&name)).find(|path| path.is_file())
    };
    folder.map(PackageSource::Folder).or_else(|| archive().map(PackageSource::Archive))
}

/// A text file of a package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackageFile {
    /// Path inside the package, `/`-separated.
    pub path: String,
    /// What it is.
    pub kind: Kind,
    /// Its content.
    pub text: String,
}

/// The text files of a package (READMEs first, then other prose, licences, sources; by path within each) and its SPDX
/// licence expression, empty when `Cargo.toml` names none.
///
/// # Errors
/// When the folder or archive cannot be read.
pub fn read_package(source: &PackageSource, skipped: &mut Skipped) -> Result<(Vec<PackageFile>, String), DataError> {
    let raw = match source {
        PackageSource::Folder(path) => read_folder(path, skipped)?,
        PackageSource::Archive(path) => read_archive(path, skipped)?,
    };
    let mut files = Vec::new();
    let mut license = String::new();
    for (path, bytes) in raw {
        if path == "Cargo.toml" {
            license = license_of(&bytes);
        } else if let (Some(kind), Some(text)) = (kind_of(&path), text_of(bytes, skipped)) {
            files.push(PackageFile { path, kind, text });
        }
    }
    files.sort_by(|a, b| (a.kind.class, &a.path).cmp(&(b.kind.class, &b.path)));
    Ok((files, license))
}

/// The text of a file, unless it is binary (has a NUL byte) or not UTF-8.
pub fn text_of(bytes: Vec<u8>, skipped: &mut Skipped) -> Option<String> {
    if bytes.contains(&0) {
        skipped.binary += 1;
        return None;
    }
    match String::from_utf8(bytes) {
        Ok(text) if text.trim().is_empty() => {
            skipped.empty += 1;
            None
        }
        Ok(text) => Some(text),
        Err(_) => {
            skipped.invalid_utf8 += 1;
            None
        }
    }
}

/// All files below `root` as `/`-separated paths with their sizes, in the order of their paths. Hidden ones, links and
/// names that are not UTF-8 are left out.
///
/// # Errors
/// When a folder cannot be listed.
pub fn list_files(root: &Path, skipped: &mut Skipped) -> Result<Vec<(String, u64)>, DataError> {
    let mut found = Vec::new();
    let mut pending = vec![(root.to_owned(), String::new())];
    while let Some((folder, prefix)) = pending.pop() {
        for entry in fs::read_dir(&folder).map_err(StorageError::at("list", &folder))? {
            let entry = entry.map_err(StorageError::at("list", &folder))?;
            let Some(name) = entry.file_name().to_str().map(str::to_owned) else {
                skipped.invalid_utf8 += 1;
                continue;
            };
            if name.starts_with('.') {
                skipped.hidden += 1;
                continue;
            }
            let path = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
            let metadata = entry.metadata().map_err(StorageError::at("inspect", entry.path()))?;
            if metadata.is_dir() {
                pending.push((entry.path(), path));
            } else if metadata.is_file() {
                found.push((path, metadata.len()));
            }
        }
    }
    found.sort();
    Ok(found)
}

fn read_folder(root: &Path, skipped: &mut Skipped) -> Result<Vec<(String, Vec<u8>)>, DataError> {
    let mut files = Vec::new();
    for (path, size) in list_files(root, skipped)? {
        if wanted(&path, size, skipped) {
            let bytes = internevo_core::storage::read(root.join(&path))?;
            files.push((path, bytes));
        }
    }
    Ok(files)
}

fn read_archive(archive: &Path, skipped: &mut Skipped) -> Result<Vec<(String, Vec<u8>)>, DataError> {
    let file = fs::File::open(archive).map_err(StorageError::at("read", archive))?;
    let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(std::io::BufReader::new(file)));
    let mut files = Vec::new();
    for entry in tar.entries().map_err(StorageError::at("read", archive))? {
        let mut entry = entry.map_err(StorageError::at("read", archive))?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let Some(path) = entry.path().ok().and_then(|path| path_inside_package(&path)) else {
            skipped.unsafe_path += 1;
            continue;
        };
        if is_hidden(&path) {
            skipped.hidden += 1;
        } else if wanted(&path, entry.size(), skipped) {
            let mut bytes = Vec::with_capacity(entry.size() as usize);
            entry.read_to_end(&mut bytes).map_err(StorageError::at("read", archive))?;
            files.push((path, bytes));
        }
    }
    Ok(files)
}

/// `name-version/src/lib.rs` → `src/lib.rs`; `None` for anything that would leave the package's folder. Files are only
/// read into memory, so such a path could do no harm, but its document would carry a misleading id.
fn path_inside_package(path: &Path) -> Option<String> {
    let mut parts = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => parts.push(part.to_str()?),
            _ => return None,
        }
    }
    (parts.len() > 1).then(|| parts[1..].join("/"))
}

/// Is the file text by its name, and small enough? `Cargo.toml` is wanted for its licence.
fn wanted(path: &str, size: u64, skipped: &mut Skipped) -> bool {
    if path == "Cargo.toml" {
        return size <= MAX_FILE_BYTES;
    }
    if kind_of(path).is_none() {
        skipped.other_type += 1;
        return false;
    }
    if size > MAX_FILE_BYTES {
        skipped.too_large += 1;
        return false;
    }
    true
}

fn license_of(manifest: &[u8]) -> String {
    std::str::from_utf8(manifest)
        .ok()
        .and_then(|text| text.parse::<toml::Table>().ok())
        .and_then(|table| table.get("package")?.get("license")?.as_str().map(str::to_owned))
        .unwrap_or_default()
}
