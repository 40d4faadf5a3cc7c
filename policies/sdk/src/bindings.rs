//! What `wit-bindgen` makes of the contract in `wit/`. Policies use the friendlier names of the
//! other modules.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::mem_forget,
    clippy::semicolon_if_nothing_returned,
    clippy::needless_pass_by_value,
    clippy::uninlined_format_args,
    reason = "generated; documented in wit/"
)]

/// The world `routing-policy`.
pub mod routing {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "routing-policy",
        pub_export_macro: true,
        additional_derives: [PartialEq],
    });
}

macro_rules! world {
    ($(#[$doc:meta])* $module:ident, $world:literal) => {
        $(#[$doc])*
        pub mod $module {
            wit_bindgen::generate!({
                path: "../../wit",
                world: $world,
                pub_export_macro: true,
                additional_derives: [PartialEq],
                with: {
                    "oona:policy/types@0.1.0": super::routing::oona::policy::types,
                    "oona:policy/host@0.1.0": super::routing::oona::policy::host,
                },
            });
        }
    };
}

world!(
    /// The world `backpressure-policy`.
    backpressure,
    "backpressure-policy"
);
world!(
    /// The world `freshness-policy`.
    freshness,
    "freshness-policy"
);
world!(
    /// The world `dead-letter-policy`.
    dead_letter,
    "dead-letter-policy"
);
