//! Which errors are the user's: they end with exit code 2, all others with 1. Printing is in `lib.rs`.

use std::fmt;

use internevo_core::{config::ConfigErrors, layout::LayoutErrors, plugin::PluginError};
use internevo_data::{DataError, loader::LoaderError, store::StoreError, tokenizer::TokenizerError};
use internevo_parallel::ParallelError;

/// Exit code of a mistake in flags, configuration, paths or input.
pub const EXIT_USER: u8 = 2;
/// Exit code of everything else that went wrong.
pub const EXIT_FAILURE: u8 = 1;

/// A mistake that the user can correct: wrong flag, path or input. The message says which and how.
#[derive(Debug)]
pub struct UserError(String);

impl UserError {
    /// An error with this message.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

impl fmt::Display for UserError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UserError {}

/// A failure that the command has already shown; only the exit code is left to give.
#[derive(Debug)]
pub struct Silent;

impl fmt::Display for Silent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("failed")
    }
}

impl std::error::Error for Silent {}

/// Returns early with a [`UserError`] made from format arguments.
#[macro_export]
#[doc(hidden)]
macro_rules! user_bail {
    ($($arg:tt)*) => { return Err($crate::error::UserError::new(format!($($arg)*)).into()) };
}

/// Marks a failure as caused by the user's input.
pub trait OrUser<T> {
    /// Turns the error, whatever it is, into a [`UserError`] with the same text.
    ///
    /// # Errors
    /// The marked error.
    fn or_user(self) -> anyhow::Result<T>;
}

impl<T, E: Into<anyhow::Error>> OrUser<T> for Result<T, E> {
    fn or_user(self) -> anyhow::Result<T> {
        self.map_err(|e| UserError::new(chain(&e.into())).into())
    }
}

/// The exit code of a failed command.
pub fn exit_code(error: &anyhow::Error) -> u8 {
    if error.chain().any(is_users) { EXIT_USER } else { EXIT_FAILURE }
}

/// Whether this cause is a mistake in what the user gave: configuration, plugin settings, or data that is not what it should be.
fn is_users(cause: &(dyn std::error::Error + 'static)) -> bool {
    let settings = cause.is::<UserError>()
        || cause.is::<ConfigErrors>()
        || cause.is::<LayoutErrors>()
        || matches!(
            cause.downcast_ref(),
            Some(PluginError::Unknown { .. } | PluginError::Config { .. } | PluginError::Duplicate { .. })
        );
    let data = match cause.downcast_ref::<DataError>() {
        Some(DataError::Storage(_) | DataError::Threads { .. } | DataError::Interrupted { .. }) | None => false,
        Some(_) => true,
    };
    let tokenizer = match cause.downcast_ref::<TokenizerError>() {
        Some(TokenizerError::Store(StoreError::Plugin(_))) => true,
        Some(TokenizerError::Storage(_) | TokenizerError::Store(_)) | None => false,
        Some(_) => true,
    };
    let loader = match cause.downcast_ref::<LoaderError>() {
        Some(LoaderError::Store(_) | LoaderError::Thread(_)) | None => false,
        Some(_) => true,
    };
    let store = matches!(cause.downcast_ref(), Some(StoreError::Corrupt { .. } | StoreError::Folder { .. }));
    let parallel = matches!(cause.downcast_ref(), Some(ParallelError::UnknownReduction { .. }));
    settings || data || tokenizer || loader || store || parallel
}

/// An error and its causes in one text, without repeating a cause that the message above it already contains.
pub fn chain(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let part = cause.to_string();
        if text.is_empty() {
            text = part;
        } else if !text.contains(&part) {
            text = format!("{text}: {part}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn a_users_mistake_keeps_its_exit_code_under_any_context() {
        let error = anyhow::Error::from(UserError::new("no such preset")).context("reading the configuration");
        assert_eq!(exit_code(&error), EXIT_USER);
        assert_eq!(exit_code(&anyhow::anyhow!("a rank vanished")), EXIT_FAILURE);
    }

    #[test]
    fn a_cause_is_not_printed_twice() {
        let io =
            std::fs::read("/no/such/file").context("cannot read /no/such/file: No such file or directory (os error 2)");
        assert_eq!(chain(&io.expect_err("absent")).matches("No such file").count(), 1);
    }
}
