//! The machine that runs policies: wasmtime, its bounds, its clock, and its cache.
//!
//! Why bounds: a policy is somebody else's code in our process. Every call has a deadline, every
//! instance a limit of memory, tables and stack, every answer a size, and the pool a number of
//! instances. What passes a bound is stopped, and the caller's fail-safe answers instead.

mod cache;
mod ticker;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use wasmtime::component::{Component, Linker};
use wasmtime::{InstanceAllocationStrategy, PoolingAllocationConfig, Store};

use self::cache::Cache;
use self::ticker::Ticker;
use crate::guest::{self, Guest, Limits};
use crate::symbols::SymbolTable;

/// The length of one epoch: deadlines are counted in these.
pub(crate) const TICK: Duration = Duration::from_millis(1);

/// Core instances in one component: the policy itself, and the shims that its encoder put around
/// it. The encoder of Python uses 38 of them.
const CORE_INSTANCES_PER_COMPONENT_MAX: u32 = 64;

/// Tables in one component, for the same reason.
const TABLES_PER_COMPONENT_MAX: u32 = 8;

/// Memories in one component. A policy has one.
const MEMORIES_PER_COMPONENT_MAX: u32 = 1;

/// The state that wasmtime itself keeps per instance, in bytes.
const INSTANCE_STATE_BYTES_MAX: usize = 1 << 20;

/// What each policy may use. The defaults are generous to policies that compute and strict to those
/// that do anything else: a batch of 64 takes about 2 µs, and a few pages of memory.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EngineConfig {
    /// How long one call may take, in ms. It is measured to the tick of 1 ms, and confirmed by the
    /// time that the calling thread has really run: a thread that had to wait is not punished.
    pub call_ms_max: u64,
    /// How long starting an instance may take, in ms, and how long configuring it, each.
    pub start_ms_max: u64,
    /// How much memory one instance may have, in bytes.
    pub memory_bytes_max: usize,
    /// How many elements a table may have.
    pub table_elements_max: usize,
    /// How much stack one call may use, in bytes. The thread that calls needs as much and some more.
    pub stack_bytes_max: usize,
    /// How large one answer may be, in bytes as the host holds it.
    pub answer_bytes_max: usize,
    /// How large a policy's description may be, in bytes: its name, version and schema.
    pub description_bytes_max: usize,
    /// How many instances live at once. A slot needs up to three for each of its workers: the one
    /// in use, the last good one, and the next one.
    pub instances_max: u32,
    /// How many questions are put in one call. Larger batches are cut.
    pub batch_max: usize,
    /// Where compiled policies are kept; nowhere without it.
    pub cache_directory: Option<PathBuf>,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            call_ms_max: 10,
            start_ms_max: 100,
            memory_bytes_max: 16 << 20,
            table_elements_max: 10_000,
            stack_bytes_max: 512 << 10,
            answer_bytes_max: 64 << 10,
            description_bytes_max: 1 << 20,
            instances_max: 64,
            batch_max: 512,
            cache_directory: None,
        }
    }
}

/// Compiles policies and runs them within bounds. One per process is enough; it owns a thread that
/// counts the milliseconds, and joins it when dropped.
pub struct Engine {
    config: EngineConfig,
    wasmtime: wasmtime::Engine,
    linker: Linker<Guest>,
    ticker: Ticker,
    cache: Option<Cache>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl Engine {
    /// Starts an engine.
    ///
    /// # Errors
    ///
    /// If the machine cannot give what the configuration asks for: address space for the instances
    /// (4 GiB each, of which only what they touch becomes memory), or a thread.
    pub fn new(config: EngineConfig) -> Result<Arc<Self>, EngineError> {
        let unavailable = |error: wasmtime::Error| EngineError::Unavailable(format!("{error:#}"));
        let wasmtime = wasmtime::Engine::new(&settings(&config)).map_err(unavailable)?;
        let linker = guest::linker(&wasmtime).map_err(unavailable)?;
        let ticker = Ticker::start(wasmtime.clone()).map_err(EngineError::Ticker)?;
        let cache = config
            .cache_directory
            .as_deref()
            .and_then(|path| Cache::open(path, &wasmtime));
        Ok(Arc::new(Self {
            config,
            wasmtime,
            linker,
            ticker,
            cache,
        }))
    }

    /// What it was started with.
    #[must_use]
    pub fn config(&self) -> &EngineConfig {
        &self.config
    }

    /// The compiled form of a component: from the cache, or else compiled and cached.
    pub(crate) fn compile(&self, digest: &str, bytes: &[u8]) -> wasmtime::Result<Component> {
        if let Some(found) = self
            .cache
            .as_ref()
            .and_then(|cache| cache.get(digest, &self.wasmtime))
        {
            return Ok(found);
        }
        let component = Component::from_binary(&self.wasmtime, bytes)?;
        if let Some(cache) = &self.cache {
            cache.put(digest, &component);
        }
        Ok(component)
    }

    pub(crate) fn wasmtime(&self) -> &wasmtime::Engine {
        &self.wasmtime
    }

    pub(crate) fn linker(&self) -> &Linker<Guest> {
        &self.linker
    }

    /// An empty store, with every bound in place.
    pub(crate) fn store(&self, symbols: SymbolTable) -> Store<Guest> {
        let limits = Limits {
            memory_bytes_max: self.config.memory_bytes_max,
            table_elements_max: self.config.table_elements_max,
        };
        let mut store = Store::new(&self.wasmtime, Guest::new(symbols, limits));
        store.limiter(|guest| guest.limiter());
        store.epoch_deadline_callback(|mut store| Ok(store.data_mut().deadline_passed()));
        store
    }

    /// Takes a store that nobody needs any more. It is dropped elsewhere, since that takes longer
    /// (13 µs) than a swap.
    pub(crate) fn retire(&self, store: Store<Guest>) {
        self.ticker.retire(store);
    }
}

/// An engine that could not be started.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The sandbox asks for what the machine does not have, or for what makes no sense.
    #[error("the sandbox cannot be set up: {0}")]
    Unavailable(String),
    /// There is no thread for its clock.
    #[error("the clock of the sandbox cannot be started")]
    Ticker(#[source] std::io::Error),
}

/// Everything that influences the outcome of a call is fixed here: a policy is a pure function on
/// every machine.
fn settings(config: &EngineConfig) -> wasmtime::Config {
    let mut settings = wasmtime::Config::new();
    settings
        .epoch_interruption(true)
        .max_wasm_stack(config.stack_bytes_max)
        .concurrency_support(false)
        .wasm_backtrace_max_frames(None)
        .cranelift_nan_canonicalization(true)
        .relaxed_simd_deterministic(true)
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool(config)));
    settings
}

/// Virtual memory is reserved for every instance at once, hence the bound.
fn pool(config: &EngineConfig) -> PoolingAllocationConfig {
    let instances = config.instances_max;
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances)
        .total_core_instances(instances.saturating_mul(CORE_INSTANCES_PER_COMPONENT_MAX))
        .total_memories(instances.saturating_mul(MEMORIES_PER_COMPONENT_MAX))
        .total_tables(instances.saturating_mul(TABLES_PER_COMPONENT_MAX))
        .max_core_instances_per_component(CORE_INSTANCES_PER_COMPONENT_MAX)
        .max_memories_per_component(MEMORIES_PER_COMPONENT_MAX)
        .max_tables_per_component(TABLES_PER_COMPONENT_MAX)
        .max_component_instance_size(INSTANCE_STATE_BYTES_MAX)
        .max_core_instance_size(INSTANCE_STATE_BYTES_MAX)
        .max_memory_size(config.memory_bytes_max)
        .table_elements(config.table_elements_max);
    pool
}

#[cfg(test)]
mod tests {
    use oona_core::policy::Fault;

    use super::*;
    use crate::testing::{self, Guest};
    use crate::{Artifact, StartError, Version};

    #[test]
    fn a_configuration_is_read_strictly() {
        let read = |text: &str| serde_json::from_str::<EngineConfig>(text);
        assert_eq!(read("{}").unwrap(), EngineConfig::default());
        assert_eq!(read(r#"{"call_ms_max": 2}"#).unwrap().call_ms_max, 2);
        assert!(read(r#"{"call_max_ms": 2}"#).is_err());
    }

    #[test]
    fn what_the_machine_does_not_have_is_refused() {
        let config = EngineConfig {
            instances_max: 1 << 20,
            ..EngineConfig::default()
        };
        let error = Engine::new(config).unwrap_err();
        assert!(matches!(error, EngineError::Unavailable(_)), "{error}");
    }

    #[test]
    fn there_are_no_more_instances_than_allowed() {
        let config = EngineConfig {
            instances_max: 2,
            ..testing::config()
        };
        let engine = Engine::new(config).unwrap();
        let names = testing::names();
        let artifact = Artifact::load_any(&engine, &Guest::default().component()).unwrap();
        let version = Version::<oona_core::policy::Routing>::new(&artifact, "{}", names).unwrap();
        // The instance that was asked what it is may still be on its way out.
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        let first = loop {
            match version.instance() {
                Ok(instance) => break instance,
                Err(error) => assert!(std::time::Instant::now() < deadline, "{error:?}"),
            }
        };
        let second = version.instance().unwrap();
        let error = version.instance().unwrap_err();
        assert!(
            matches!(error, StartError::Start(Fault::Trap(_))),
            "{error:?}"
        );
        drop((first, second));
        while let Err(error) = version.instance() {
            assert!(std::time::Instant::now() < deadline, "{error:?}");
            std::thread::yield_now();
        }
    }
}
