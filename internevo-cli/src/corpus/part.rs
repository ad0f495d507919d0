//! One part of a corpus folder (a stage, the tokenizer, the token stores): what it was made from, and whether it is complete.
//!
//! A part's key is a hash of everything it depends on, the keys of the parts before it included. A part that was completed
//! under the same key is reused; one that was begun under the same key goes on; anything else is removed first.

use std::{
    fs,
    path::{Path, PathBuf},
};

use internevo_core::storage::{self, StorageError};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A part of the corpus.
#[derive(Clone, Debug)]
pub struct Part {
    mark: PathBuf,
    outputs: Vec<PathBuf>,
    key: String,
}

#[derive(Debug, Deserialize, Serialize)]
struct Mark {
    key: String,
    /// The outputs that were there when the part was finished; absent while work goes on.
    done: Option<Vec<PathBuf>>,
}

/// Hash of a part's settings and of the part before it.
pub fn key_of(before: &str, settings: &Value) -> String {
    let text = format!("{before}\n{settings}");
    blake3::hash(text.as_bytes()).to_hex().as_str()[..32].to_owned()
}

impl Part {
    /// The part `name` of the corpus in `folder`; `outputs` are its files or folders.
    pub fn new(folder: &Path, name: &str, outputs: Vec<PathBuf>, key: &str) -> Self {
        Self { mark: folder.join(".parts").join(format!("{name}.json")), outputs, key: key.to_owned() }
    }

    /// Whether it is complete.
    pub fn is_done(&self) -> bool {
        let Some(Mark { key, done: Some(made) }) = self.read() else { return false };
        key == self.key && !made.is_empty() && made.iter().all(|p| p.exists())
    }

    /// Notes that work on it begins; removes what was made from something else.
    ///
    /// # Errors
    /// When an old output cannot be removed or the note cannot be written.
    pub fn begin(&self) -> Result<(), StorageError> {
        if self.read().is_none_or(|mark| mark.key != self.key) {
            for path in &self.outputs {
                remove(path)?;
            }
        }
        self.write(None)
    }

    /// Notes that it is complete.
    ///
    /// # Errors
    /// When the note cannot be written.
    pub fn finish(&self) -> Result<(), StorageError> {
        self.write(Some(self.outputs.iter().filter(|p| p.exists()).cloned().collect()))
    }

    fn read(&self) -> Option<Mark> {
        serde_json::from_slice(&storage::read(&self.mark).ok()?).ok()
    }

    fn write(&self, done: Option<Vec<PathBuf>>) -> Result<(), StorageError> {
        let mark = Mark { key: self.key.clone(), done };
        storage::write_atomic(&self.mark, serde_json::to_vec(&mark).expect("a mark is JSON"))
    }
}

fn remove(path: &Path) -> Result<(), StorageError> {
    let outcome = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match outcome {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(StorageError::at("remove", path)(e)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_reused_under_its_key_only_and_old_outputs_never_mix_with_new_ones() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let output = dir.path().join("clean");
        let part = |key: &str| Part::new(dir.path(), "clean", vec![output.clone()], key);
        let make = |file: &str| storage::write_atomic(output.join(file), "x").expect("write");
        part("a").begin().expect("begin");
        make("one");
        assert!(!part("a").is_done(), "not finished yet");
        part("a").begin().expect("begin again after a crash");
        assert!(output.join("one").exists(), "finished files of the same work stay");
        part("a").finish().expect("finish");
        assert!(part("a").is_done() && !part("b").is_done());
        part("b").begin().expect("begin");
        assert!(!output.exists(), "the outputs of other settings are gone");
    }
}
