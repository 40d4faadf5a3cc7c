//! What the `export_…!` macros stand on. Not for use by hand.

use std::sync::OnceLock;

use crate::bindings::routing::oona::policy::host;
use crate::kind::{self, Decides, Kind};
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
struct HostText;

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

    /// Decides on a batch. The list of the answer is all that is allocated here.
    pub fn decide<K: Kind>(
        &self,
        now: u64,
        state: &K::State,
        questions: &[K::Question],
    ) -> Vec<K::Decision>
    where
        P: Decides<K>,
    {
        // The host configures an instance before it asks. Whoever does not gets a trap: there is
        // nobody to read a message, and the code that formats one would be half of the component.
        let Some(policy) = self.0.get() else {
            std::process::abort()
        };
        kind::decisions(policy, now, state, questions, &HostText).collect()
    }
}

/// Exports a policy as a component of its world. `$question` is the record that the world asks
/// about, `state` what a batch has in common, if anything.
#[doc(hidden)]
#[macro_export]
macro_rules! __export {
    ($module:ident, $kind:ident, $policy:ty, $question:ident $(, state: $state:ident)?) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            use $crate::bindings::$module as bindings;
            use bindings::exports::oona::policy::$module as exports;

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

            impl exports::Guest for Component {
                fn decide(
                    now: u64,
                    $($state: exports::BusState,)?
                    questions: Vec<exports::$question>,
                ) -> Vec<exports::Decision> {
                    let state = { $($state)? };
                    INSTANCE.decide::<$crate::kind::$kind>(now, &state, &questions)
                }
            }

            bindings::export!(Component with_types_in $crate::bindings::$module);
        };
    };
}
