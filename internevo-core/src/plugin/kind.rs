//! What the entries of all kinds have in common that are built from a table and a context. Not here: the kinds.

use std::borrow::Cow;

use super::PluginError;

/// The table of plugin `name` among `settings`, which hold one for each plugin by its name. Empty where there is none.
///
/// # Errors
/// [`PluginError::Config`] when it is no table.
pub fn settings_of<'a>(settings: &'a toml::Table, name: &'static str) -> Result<Cow<'a, toml::Table>, PluginError> {
    match settings.get(name) {
        None => Ok(Cow::default()),
        Some(toml::Value::Table(table)) => Ok(Cow::Borrowed(table)),
        Some(other) => {
            let reason = format!("expected a table, found {}", other.type_str());
            Err(PluginError::Config { plugin: name, key: ".".into(), reason })
        }
    }
}

/// Declares a kind of plugins: its entry, which builds a plugin from its table, and a function that lists what is registered. The
/// trait and the `register_*!` macro of the kind are written by hand beside it:
///
/// ```
/// use internevo_core::plugin::{NoSettings, Plugin, PluginError, Registry};
///
/// /// What greeters do.
/// pub trait Greeter {
///     fn greet(&self, name: &str) -> String;
/// }
///
/// /// A greeter that can be named in a configuration.
/// pub trait GreeterPlugin: Plugin {
///     fn build(config: Self::Config, language: &str) -> Result<Box<dyn Greeter>, PluginError>;
/// }
///
/// internevo_core::plugin_kind! {
///     /// A registered greeter.
///     pub struct GreeterEntry("greeter"): GreeterPlugin::build(&str) -> Result<Box<dyn Greeter>, PluginError>;
///     /// All greeters, by name.
///     pub fn greeters;
/// }
///
/// struct Plain;
/// impl Plugin for Plain {
///     const NAME: &'static str = "plain";
///     const ABOUT: &'static str = "A name and a mark.";
///     type Config = NoSettings;
/// }
/// impl Greeter for Plain {
///     fn greet(&self, name: &str) -> String {
///         format!("{name}!")
///     }
/// }
/// impl GreeterPlugin for Plain {
///     fn build(_: NoSettings, _: &str) -> Result<Box<dyn Greeter>, PluginError> {
///         Ok(Box::new(Plain))
///     }
/// }
/// internevo_core::submit_plugin!(GreeterEntry, Plain);
///
/// let entry = Registry::<GreeterEntry>::collect()?.get("plain")?;
/// assert_eq!(entry.build(&toml::Table::new(), "en")?.greet("Ada"), "Ada!");
/// assert_eq!(greeters()?[0].kind, "greeter");
/// # Ok::<(), PluginError>(())
/// ```
#[macro_export]
macro_rules! plugin_kind {
    (
        $(#[$entry_doc:meta])*
        $vis:vis struct $entry:ident($kind:literal):
            $plugin:ident::$build:ident($cx:ty) -> Result<$product:ty, $error:ty>;
        $(#[$list_doc:meta])*
        pub fn $list:ident;
    ) => {
        $(#[$entry_doc])*
        $vis struct $entry {
            descriptor: $crate::plugin::Descriptor,
            build: fn(&$crate::plugin::__Table, $cx) -> Result<$product, $error>,
        }

        impl $entry {
            /// The entry of plugin `P`.
            pub const fn of<P: $plugin>(origin: $crate::plugin::Origin) -> Self {
                let descriptor = $crate::plugin::Descriptor::of::<P>($kind, origin);
                Self { descriptor, build: |table, cx| P::$build($crate::plugin::parse_config::<P>(table)?, cx) }
            }

            /// Builds the plugin from its table.
            ///
            /// # Errors
            /// A table that does not fit, or what the plugin refuses.
            pub fn build(&self, table: &$crate::plugin::__Table, cx: $cx) -> Result<$product, $error> {
                (self.build)(table, cx)
            }
        }

        impl $crate::plugin::Entry for $entry {
            const KIND: &'static str = $kind;
            fn descriptor(&self) -> &$crate::plugin::Descriptor {
                &self.descriptor
            }
        }

        impl std::fmt::Debug for $entry {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Debug::fmt(&self.descriptor, f)
            }
        }

        impl PartialEq for $entry {
            fn eq(&self, other: &Self) -> bool {
                std::ptr::eq(self, other)
            }
        }

        impl Eq for $entry {}

        $crate::plugin::__inventory::collect!($entry);

        $(#[$list_doc])*
        ///
        /// # Errors
        /// When two share a name.
        pub fn $list() -> Result<Vec<$crate::plugin::PluginInfo>, $crate::plugin::PluginError> {
            Ok($crate::plugin::Registry::<$entry>::collect()?.list())
        }
    };
}

/// Puts the entry of a plugin, with the place where this is written, among those that a binary offers: the body of a `register_*!`
/// macro.
#[macro_export]
macro_rules! submit_plugin {
    ($entry:path, $plugin:ty) => {
        $crate::plugin::__inventory::submit! { <$entry>::of::<$plugin>($crate::origin!()) }
    };
}
