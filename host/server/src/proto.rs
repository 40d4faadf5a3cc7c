//! What both sides of `oona.v1` share: the types of `proto/oona.proto`, generated, and the limits
//! that server and client agree on. Used at the edges, and nowhere else.

use oona_core::policy;

pub use generated::*;

/// How large a request of administration may be: a component, and room for its configuration.
pub const ADMIN_REQUEST_BYTES_MAX: usize = oona_wasm::COMPONENT_BYTES_MAX + 1024 * 1024;

/// What a client of `Subscribe` must be ready to receive as one message: a batch of deliveries
/// aims at 1 MiB and holds at least one, whatever its size.
pub const RESPONSE_BYTES_MAX: usize = 64 * 1024 * 1024;

#[expect(clippy::all, reason = "generated code")]
mod generated {
    tonic::include_proto!("oona.v1");
}

impl From<policy::Priority> for Priority {
    fn from(priority: policy::Priority) -> Self {
        match priority {
            policy::Priority::Low => Self::Low,
            policy::Priority::Normal => Self::Normal,
            policy::Priority::High => Self::High,
            policy::Priority::Critical => Self::Critical,
            policy::Priority::Emergency => Self::Emergency,
        }
    }
}

impl Priority {
    /// The priority that was said, if one was.
    #[must_use]
    pub const fn said(self) -> Option<policy::Priority> {
        match self {
            Self::Unspecified => None,
            Self::Low => Some(policy::Priority::Low),
            Self::Normal => Some(policy::Priority::Normal),
            Self::High => Some(policy::Priority::High),
            Self::Critical => Some(policy::Priority::Critical),
            Self::Emergency => Some(policy::Priority::Emergency),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Priority, policy};

    #[test]
    fn every_priority_comes_back_as_it_went() {
        for known in policy::Priority::ALL {
            assert_eq!(Priority::from(known).said(), Some(known));
        }
        assert_eq!(Priority::Unspecified.said(), None);
    }
}
