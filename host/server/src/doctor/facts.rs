//! What is known of a host's surroundings before anybody judges it. Secrets are not among it: only whether
//! they are there, and how long they are.

use std::net::SocketAddr;
use std::path::PathBuf;

use oona_core::policy::Kind;

use crate::alerts::IdleRule;
use crate::store::redis::Refusal;

/// Something that could not be found out in time is `None`.
pub type Gathered<T> = Option<T>;

/// Everything that is judged.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Where the configuration came from.
    pub configuration: ConfigurationFacts,
    /// Where messages are to be kept.
    pub store: StoreFacts,
    /// How many replicas must have an entry (`store.replicas_min`).
    pub replicas_min: u32,
    /// How far clocks may differ before messages are judged wrongly, in ms.
    pub clock_skew_ms: u64,
    /// What signs and verifies messages.
    pub signing: SigningFacts,
    /// Whose signatures of policies count.
    pub trust: Gathered<TrustFacts>,
    /// The policies to start with.
    pub policies: Gathered<PoliciesFacts>,
    /// The file of tokens, if there is to be one.
    pub tokens: Gathered<Option<TokensFacts>>,
    /// The port.
    pub address: AddressFacts,
    /// How many files may be open.
    pub descriptors: DescriptorFacts,
    /// Alerts on error budgets that can never fire.
    pub idle_rules: Vec<IdleRule>,
    /// The file of decisions, if there is to be one.
    pub records: Gathered<Option<RecordFacts>>,
}

/// Where the configuration came from.
#[derive(Clone, Debug, Default)]
pub struct ConfigurationFacts {
    /// The file, if one was read.
    pub file: Option<PathBuf>,
    /// Whether that file holds user or password of the store.
    pub holds_password: bool,
    /// Whether others than its owner and group may read it.
    pub readable_by_all: bool,
}

/// The store.
#[derive(Clone, Debug)]
pub enum StoreFacts {
    /// In the process.
    Memory,
    /// In a server that answers.
    Redis(Box<RedisFacts>),
    /// In a server that could not be looked at.
    Trouble {
        /// Where, without secrets.
        address: String,
        /// Why not.
        trouble: StoreTrouble,
    },
}

/// Why a store could not be looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreTrouble {
    /// It does not answer.
    Silent(String),
    /// It does not let this host in.
    LockedOut(String),
    /// It lets it in, and refuses to say how it is.
    Refuses {
        /// Its own word for why.
        code: String,
        /// What else it says.
        detail: String,
    },
}

/// How a server of Redis or Valkey is.
#[derive(Clone, Debug, Default)]
pub struct RedisFacts {
    /// Where, without secrets.
    pub address: String,
    /// Its version.
    pub version: String,
    /// `standalone`, `cluster` or `sentinel`.
    pub mode: String,
    /// Whether it is still reading its data.
    pub loading: bool,
    /// How many clients it has.
    pub clients: u64,
    /// How many of them wait for something.
    pub clients_waiting: u64,
    /// How many it may have, if it says so.
    pub clients_max: Option<u64>,
    /// Who writes to it.
    pub role: Role,
    /// How it keeps what it was given.
    pub persistence: PersistenceFacts,
    /// Its memory.
    pub memory: MemoryFacts,
    /// How fast it answers.
    pub latency: Option<Latency>,
    /// How far the clock of this machine is ahead of its, in ms. Negative if it is behind.
    pub clock_ahead_ms: Option<i64>,
    /// As whom it knows this host, if it may be asked.
    pub user: Option<String>,
    /// What it would refuse of what a host asks.
    pub refusals: Option<Vec<Refusal>>,
}

/// Who writes to a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// Whoever may.
    Master {
        /// How many replicas follow it.
        replicas: u64,
    },
    /// Another server.
    Replica {
        /// Where that is.
        master: String,
    },
}

impl Default for Role {
    fn default() -> Self {
        Self::Master { replicas: 0 }
    }
}

/// How a server keeps what it was given.
#[derive(Clone, Debug, Default)]
pub struct PersistenceFacts {
    /// Whether each write goes to a file (`appendonly`).
    pub append_only: bool,
    /// When that file goes to disk: `always`, `everysec` or `no`. `None` if it may not be asked.
    pub append_fsync: Option<String>,
    /// When snapshots are made, such as `3600 1 300 100`; empty for never. `None` if it may not be asked.
    pub save: Option<String>,
    /// Whether the last write to the file succeeded.
    pub append_ok: bool,
    /// Whether the file was last rewritten with success.
    pub rewrite_ok: bool,
    /// Whether the last snapshot succeeded.
    pub snapshot_ok: bool,
}

/// The memory of a server, in bytes.
#[derive(Clone, Debug, Default)]
pub struct MemoryFacts {
    /// How much is in use.
    pub used_bytes: u64,
    /// How much may be; 0 for as much as there is.
    pub max_bytes: u64,
    /// What happens then (`maxmemory-policy`).
    pub eviction: String,
}

/// How long a server takes to answer, round trip included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    /// How often it was asked.
    pub pings: usize,
    /// Half of the answers took no longer, in µs.
    pub p50_us: u64,
    /// 99 of 100 took no longer, in µs.
    pub p99_us: u64,
}

/// What signs and verifies messages.
#[derive(Clone, Debug, Default)]
pub struct SigningFacts {
    /// The environment variable that holds the secret. Empty if nothing is to be signed.
    pub variable: String,
    /// What it holds.
    pub secret: SecretFacts,
    /// Further variables, accepted for rotation, and what they hold.
    pub accepted: Vec<(String, SecretFacts)>,
}

/// What an environment variable holds, as far as it may be told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SecretFacts {
    /// It is not set.
    #[default]
    Unset,
    /// It is empty.
    Empty,
    /// It is no UTF-8.
    NotText,
    /// A secret.
    Set {
        /// How long it is, in bytes.
        bytes: usize,
        /// Whether it begins or ends with white space.
        padded: bool,
        /// Whether it is the one that signs.
        signs: bool,
    },
}

/// Whose signatures of policies count.
#[derive(Clone, Debug, Default)]
pub struct TrustFacts {
    /// Whether policies without a signature may be used (`policies.allow_unsigned`).
    pub allow_unsigned: bool,
    /// Each file with a public key.
    pub keys: Vec<FileFacts>,
}

/// A file that is read at start.
#[derive(Clone, Debug, Default)]
pub struct FileFacts {
    /// Which.
    pub path: PathBuf,
    /// Why it cannot be used, if it cannot.
    pub problem: Option<String>,
    /// Whether others than its owner may write it.
    pub writable_by_others: bool,
}

/// The file of tokens.
#[derive(Clone, Debug, Default)]
pub struct TokensFacts {
    /// The file.
    pub file: FileFacts,
    /// How many tokens it holds.
    pub count: usize,
}

/// The policies to start with.
#[derive(Clone, Debug)]
pub struct PoliciesFacts {
    /// Where they are looked for.
    pub directory: DirectoryFacts,
    /// One of each kind; or why a host would not start.
    pub loaded: Result<Vec<PolicyFacts>, String>,
}

/// Where policies are looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DirectoryFacts {
    /// There.
    Found(PathBuf),
    /// There, and it is none.
    Missing(PathBuf),
    /// Nowhere: none was named, and none is in the usual places.
    Nowhere,
}

/// The policy of one kind.
#[derive(Clone, Debug)]
pub struct PolicyFacts {
    /// Its kind.
    pub kind: Kind,
    /// Who decides: name and version.
    pub version: String,
    /// What came of its component.
    pub component: ComponentFacts,
}

/// What came of a component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ComponentFacts {
    /// There is none: the built-in policy decides.
    None,
    /// It would decide.
    Loaded {
        /// Its file.
        file: PathBuf,
        /// Who vouches for it.
        vouched: String,
    },
    /// It is not signed as configured.
    Unsigned {
        /// Its file.
        file: PathBuf,
        /// Why not.
        reason: String,
    },
    /// It cannot be used.
    Refused {
        /// Its file.
        file: PathBuf,
        /// Why not.
        reason: String,
    },
}

/// The port.
#[derive(Clone, Debug)]
pub struct AddressFacts {
    /// Where a host would listen.
    pub listen: SocketAddr,
    /// Who has it.
    pub state: AddressState,
}

/// Who has a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AddressState {
    /// Nobody.
    Free,
    /// A host of this bus.
    Host {
        /// Why it does not do its work; empty if it does.
        reasons: Vec<String>,
    },
    /// Somebody else.
    Taken,
    /// It cannot be had, for this reason.
    Refused(String),
}

/// How many files may be open, and what that is needed for.
#[derive(Clone, Copy, Debug, Default)]
pub struct DescriptorFacts {
    /// How many may be; `None` for as many as there are.
    pub limit: Option<u64>,
    /// How many connections may be served at once (`server.connections_max`).
    pub connections_max: usize,
    /// How many subscribers may be connected at once (`server.subscribers_max`).
    pub subscribers_max: usize,
}

/// The file of decisions.
#[derive(Clone, Debug, Default)]
pub struct RecordFacts {
    /// The file.
    pub path: PathBuf,
    /// Why it cannot be written, if it cannot.
    pub problem: Option<String>,
    /// How much it and the one before it may yet grow, in bytes.
    pub growth_bytes: u64,
    /// How much room there is, in bytes, if that is known.
    pub free_bytes: Option<u64>,
}
