//! What a file is, by its name: the extension table and the rules for licences and READMEs.

/// The `type` of a document, and the order in which a package's files are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kind {
    /// 0 README, 1 other prose, 2 licence, 3 source code.
    pub class: u8,
    /// The document's `type`.
    pub name: &'static str,
}

/// Extensions of source code and their `type`.
const SOURCES: &[(&str, &str)] = &[
    ("rs", "rust"),
    ("c", "c"),
    ("h", "c"),
    ("cc", "cpp"),
    ("cpp", "cpp"),
    ("cxx", "cpp"),
    ("hh", "cpp"),
    ("hpp", "cpp"),
    ("cu", "cuda"),
    ("go", "go"),
    ("java", "java"),
    ("js", "javascript"),
    ("mjs", "javascript"),
    ("jl", "julia"),
    ("kt", "kotlin"),
    ("lua", "lua"),
    ("pl", "perl"),
    ("py", "python"),
    ("rb", "ruby"),
    ("scala", "scala"),
    ("sh", "shell"),
    ("bash", "shell"),
    ("sql", "sql"),
    ("swift", "swift"),
    ("ts", "typescript"),
    ("wgsl", "wgsl"),
    ("zig", "zig"),
];

/// Extensions of prose and their `type`.
const PROSE: &[(&str, &str)] = &[
    ("md", "markdown"),
    ("markdown", "markdown"),
    ("html", "html"),
    ("htm", "html"),
    ("xhtml", "html"),
    ("rst", "text"),
    ("txt", "text"),
];

/// Beginnings of the names of licence files, in capitals.
const LICENCE_NAMES: &[&str] = &["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "UNLICENSE", "NOTICE"];

/// The kind of the file at `path` (`/`-separated, relative); `None` for files that are not text for a corpus.
pub fn kind_of(path: &str) -> Option<Kind> {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    let extension = name.rsplit_once('.').map_or(String::new(), |(_, ext)| ext.to_ascii_lowercase());
    let find = |table: &[(&str, &'static str)]| table.iter().find(|(ext, _)| *ext == extension).map(|(_, kind)| *kind);
    let source = find(SOURCES);
    let upper = name.to_ascii_uppercase();
    if source.is_none() && (LICENCE_NAMES.iter().any(|n| upper.starts_with(n)) || folder.ends_with("LICENSES")) {
        return Some(Kind { class: 2, name: "licence" });
    }
    if let Some(name) = source {
        return Some(Kind { class: 3, name });
    }
    let is_readme = upper.starts_with("README");
    match find(PROSE) {
        Some(name) => Some(Kind { class: u8::from(!is_readme), name }),
        None if is_readme && !name.contains('.') => Some(Kind { class: 0, name: "text" }),
        None => None,
    }
}

/// Is `name` the `type` of source code?
pub fn is_source_type(name: &str) -> bool {
    SOURCES.iter().any(|(_, kind)| *kind == name)
}

/// Is any component of `path` hidden (begins with a dot)?
pub fn is_hidden(path: &str) -> bool {
    path.split('/').any(|part| part.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn licences_are_recognised_by_name_but_source_files_are_not_licences() {
        for path in ["LICENSE", "LICENSE-MIT", "license.txt", "COPYING", "LICENSES/MIT.txt", "a/b/UNLICENSE"] {
            assert_eq!(kind_of(path).map(|k| k.name), Some("licence"), "{path}");
        }
        assert_eq!(kind_of("src/license.rs").map(|k| k.name), Some("rust"));
    }

    #[test]
    fn a_readme_comes_before_other_prose_and_prose_before_code() {
        let mut files = ["src/lib.rs", "LICENSE", "CHANGELOG.md", "README.md"];
        files.sort_by_key(|path| kind_of(path));
        assert_eq!(files, ["README.md", "CHANGELOG.md", "LICENSE", "src/lib.rs"]);
        assert_eq!(kind_of("logo.png"), None);
        assert_eq!(kind_of("Cargo.toml"), None);
    }
}
