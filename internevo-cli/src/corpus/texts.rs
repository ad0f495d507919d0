//! Documents of the files and folders that a user names, for commands that read them as they are.

use std::path::{Path, PathBuf};

use internevo_data::{Document, document, stage};

use crate::{error::OrUser, user_bail};

/// These commands write nothing among their inputs.
const NO_OUTPUT: &str = "";

/// The JSONL files (plain, `.gz`, `.zst`) that `paths` mean: files themselves, folders with all below them, and a stage's
/// output folder its `kept/`.
///
/// # Errors
/// When a path does not exist or holds no JSONL file.
pub fn files(paths: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    for path in paths {
        let found = stage::find_inputs(path, NO_OUTPUT.as_ref()).or_user()?;
        let before = all.len();
        all.extend(found.into_iter().filter(stage::InputFile::is_jsonl).map(|file| file.path));
        if all.len() == before {
            user_bail!(
                "{} holds no .jsonl, .jsonl.gz or .jsonl.zst file; `internevo data format` turns other files into documents",
                path.display()
            );
        }
    }
    Ok(all)
}

/// The documents of `files`, one after the other. A broken line is an error that names file and line.
pub fn documents(files: &[PathBuf]) -> impl Iterator<Item = anyhow::Result<Document>> {
    files.iter().flat_map(|file| one_file(file))
}

fn one_file(file: &Path) -> Box<dyn Iterator<Item = anyhow::Result<Document>>> {
    match document::read_jsonl(file) {
        Ok(documents) => Box::new(documents.map(OrUser::or_user)),
        Err(error) => Box::new(std::iter::once(Err(error.into()))),
    }
}
