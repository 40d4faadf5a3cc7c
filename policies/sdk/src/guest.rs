//! What the `export_…!` macros stand on. Not for use by hand.

use std::sync::OnceLock;

use crate::bindings::routing::oona::policy::host;
use crate::{Names, Policy, Symbol, Text};

/// The host's names.
struct HostNames;

impl Names for HostNames {
    fn intern(&mut self, name: &str) -> Result<Symbol, String> {
        match host::intern(name) {
            0 => Err(format!("the host has no room for the name `{name}`")),
            symbol => Ok(symbol),
        }
    }
}

/// The host's text.
pub struct HostText;

impl Text for HostText {
    fn attribute(&self, index: u32, name: Symbol) -> Option<String> {
        host::attribute(index, name)
    }

    fn payload(&self, index: u32, offset: u32, length: u32) -> Vec<u8> {
        host::payload(index, offset, length)
    }
}

/// The one policy of an instance.
pub struct Instance<P>(OnceLock<P>);

impl<P: Policy> Instance<P> {
    /// Not configured yet.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "it is made in a constant")]
    pub const fn new() -> Self {
        Self(OnceLock::new())
    }

    /// Configures it.
    ///
    /// # Errors
    ///
    /// What the policy says, or that it was configured before.
    pub fn configure(&self, config: &str) -> Result<(), String> {
        let policy = crate::configure::<P>(config, &mut HostNames)?;
        self.0
            .set(policy)
            .map_err(|_| "an instance is configured once".to_owned())
    }

    /// The policy.
    ///
    /// # Panics
    ///
    /// If it has not been configured: the host never asks before.
    #[must_use]
    pub fn get(&self) -> &P {
        self.0
            .get()
            .expect("the host configures an instance before it asks")
    }
}

/// The position of a message in its batch.
#[must_use]
pub fn index(position: usize) -> u32 {
    u32::try_from(position).unwrap_or(u32::MAX)
}

/// Exports a policy as a component of its world. `$record` is where the message stands in a
/// question, `$state` what a batch has in common.
#[doc(hidden)]
#[macro_export]
macro_rules! __export {
    ($module:ident, $trait:ident, $policy:ty, $question:ident $(, state: $state:ident)?) => {
        #[cfg(target_arch = "wasm32")]
        mod oona_policy_export {
            use $crate::bindings::$module as bindings;
            use bindings::exports::oona::policy as exports;

            use super::*;

            static INSTANCE: $crate::guest::Instance<$policy> = $crate::guest::Instance::new();

            struct Component;

            impl bindings::Guest for Component {
                fn describe() -> bindings::Description {
                    bindings::Description {
                        name: <$policy as $crate::Policy>::NAME.to_owned(),
                        version: <$policy as $crate::Policy>::VERSION.to_owned(),
                        config_schema: <$policy as $crate::Policy>::CONFIG_SCHEMA.to_owned(),
                    }
                }

                fn configure(config: String) -> Result<(), String> {
                    INSTANCE.configure(&config)
                }
            }

            impl exports::$module::Guest for Component {
                fn decide(
                    now: u64,
                    $($state: exports::$module::BusState,)?
                    questions: Vec<exports::$module::$question>,
                ) -> Vec<exports::$module::Decision> {
                    let policy = INSTANCE.get();
                    let decide = |(position, question)| {
                        let index = $crate::guest::index(position);
                        let asked = $crate::$module::asked(question, index, &$crate::guest::HostText);
                        $crate::$module::$trait::decide(policy, now, $(&$state,)? &asked)
                    };
                    questions.iter().enumerate().map(decide).collect()
                }
            }

            bindings::export!(Component with_types_in $crate::bindings::$module);
        }
    };
}
