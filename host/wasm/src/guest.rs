//! What a policy finds around itself: its bounds, and the one import it may use.

use std::sync::Arc;
use std::time::Duration;

use oona_core::policy::Lookup;
use oona_core::symbols::Symbol;
use rustix::time::{ClockId, clock_gettime};
use wasmtime::component::{Linker, WasmStr};
use wasmtime::{Engine, ResourceLimiter, Result, StoreContextMut, UpdateDeadline, bail};

use crate::symbols::SymbolTable;
use crate::wire::{HOST, TYPES};

/// A call that is over its deadline must burn this much time of its thread before it is stopped.
/// On a busy machine a thread may be put aside in the middle of a call for longer than the deadline.
const CONFIRM: Duration = Duration::from_millis(2);

/// How many names a policy may add to the table of the process while it is configured. Names are
/// never forgotten, so without a limit one policy could take the room of all others.
const NEW_NAMES_MAX: u32 = 4_096;

/// How much an instance may have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) memory_bytes_max: usize,
    pub(crate) table_elements_max: usize,
}

/// What a policy is doing, which decides what it may import.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// It starts, or says what it is.
    Starting,
    /// It takes its configuration, and may intern names.
    Configuring,
    /// It decides, and may read the text of its batch.
    Deciding,
}

/// The host's side of an instance.
pub(crate) struct Guest {
    pub(crate) symbols: SymbolTable,
    pub(crate) phase: Phase,
    /// The text of the batch that is being decided on.
    pub(crate) batch: Option<Batch>,
    /// A name found no room in the table.
    pub(crate) table_full: bool,
    /// The first bound that the instance ran against, in words.
    pub(crate) denied: Option<String>,
    /// How much memory it has, in bytes.
    pub(crate) memory_bytes: usize,
    limits: Limits,
    /// How many names it has added.
    new_names: u32,
    /// When the deadline passed, by the clock of the calling thread.
    late_since: Option<Duration>,
    /// On trial: by the same clock, when the call has had its time.
    time_is_up: Option<Duration>,
}

/// The part of a batch that one call is about.
pub(crate) struct Batch {
    pub(crate) text: Arc<dyn Lookup>,
    /// Where the part begins in the batch.
    pub(crate) offset: usize,
    /// How many questions it has.
    pub(crate) count: usize,
}

impl Guest {
    pub(crate) fn new(symbols: SymbolTable, limits: Limits) -> Self {
        Self {
            symbols,
            phase: Phase::Starting,
            batch: None,
            table_full: false,
            denied: None,
            memory_bytes: 0,
            limits,
            new_names: 0,
            late_since: None,
            time_is_up: None,
        }
    }

    /// Before each call.
    pub(crate) fn begin(&mut self, phase: Phase, batch: Option<Batch>) {
        self.phase = phase;
        self.batch = batch;
        self.late_since = None;
        self.time_is_up = None;
    }

    /// Judges the call that begins by the time of its thread alone. For a trial, which may wait: on
    /// live traffic that would let a loop run for as long as others have the core.
    pub(crate) fn grant(&mut self, limit_ms: u64) {
        self.time_is_up = Some(thread_time() + Duration::from_millis(limit_ms));
    }

    pub(crate) fn limiter(&mut self) -> &mut dyn ResourceLimiter {
        self
    }

    /// Whether a call that is past its deadline is stopped, or was only kept waiting.
    pub(crate) fn deadline_passed(&mut self) -> UpdateDeadline {
        let now = thread_time();
        let time_is_up = self
            .time_is_up
            .unwrap_or_else(|| *self.late_since.get_or_insert(now) + CONFIRM);
        if now >= time_is_up {
            UpdateDeadline::Interrupt
        } else {
            UpdateDeadline::Continue(1)
        }
    }

    fn intern(&mut self, name: &str) -> Result<Symbol> {
        if self.phase != Phase::Configuring {
            bail!("it called `intern` outside of `configure`");
        }
        if let Some(known) = self.symbols.get(name) {
            return Ok(known);
        }
        if self.new_names >= NEW_NAMES_MAX {
            self.denied = Some(format!("it wanted more than {NEW_NAMES_MAX} new names"));
            bail!("it wanted more than {NEW_NAMES_MAX} new names");
        }
        self.new_names += 1;
        let symbol = self.symbols.intern(name);
        self.table_full |= symbol.is_none();
        Ok(symbol)
    }

    fn attribute(&self, index: u32, name: Symbol) -> Result<Option<String>> {
        let (text, index) = self.message(index)?;
        let Some(name) = self.symbols.name(name) else {
            bail!(
                "it asked for the attribute of a name that is no symbol ({})",
                name.0
            );
        };
        Ok(text.attribute(index, &name).map(str::to_owned))
    }

    fn payload(&self, index: u32, offset: u32, length: u32) -> Result<Vec<u8>> {
        let (text, index) = self.message(index)?;
        let payload = text.payload(index).unwrap_or_default();
        let rest = payload.get(offset as usize..).unwrap_or_default();
        Ok(rest[..rest.len().min(length as usize)].to_vec())
    }

    /// The text of the batch, and where the message stands in it.
    fn message(&self, index: u32) -> Result<(&dyn Lookup, usize)> {
        match &self.batch {
            Some(batch) if (index as usize) < batch.count => {
                Ok((batch.text.as_ref(), batch.offset + index as usize))
            }
            Some(batch) => bail!("it asked for message {index} of a batch of {}", batch.count),
            None => bail!("it asked for message {index} outside of `decide`"),
        }
    }
}

impl ResourceLimiter for Guest {
    fn memory_growing(&mut self, now: usize, desired: usize, _: Option<usize>) -> Result<bool> {
        let max = self.limits.memory_bytes_max;
        if desired > max {
            self.denied = Some(format!("it wanted {desired} bytes of memory, of {max}"));
        } else {
            self.memory_bytes += desired.saturating_sub(now);
        }
        Ok(desired <= max)
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> Result<bool> {
        let max = self.limits.table_elements_max;
        if desired > max {
            self.denied = Some(format!("it wanted {desired} elements in a table, of {max}"));
        }
        Ok(desired <= max)
    }
}

/// How long the calling thread has run, as opposed to how long it has existed.
fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
    Duration::new(seconds, nanos)
}

/// The world of a policy: `oona:policy/host`, and nothing else.
pub(crate) fn linker(engine: &Engine) -> Result<Linker<Guest>> {
    let mut linker = Linker::new(engine);
    linker.instance(TYPES)?;
    let mut host = linker.instance(HOST)?;
    host.func_wrap(
        "intern",
        |mut store: StoreContextMut<'_, Guest>, (name,): (WasmStr,)| {
            let name = name.to_str(&store)?.into_owned();
            Ok((store.data_mut().intern(&name)?.0,))
        },
    )?;
    host.func_wrap(
        "attribute",
        |store: StoreContextMut<'_, Guest>, (index, name): (u32, u32)| {
            Ok((store.data().attribute(index, Symbol(name))?,))
        },
    )?;
    host.func_wrap(
        "payload",
        |store: StoreContextMut<'_, Guest>, (index, offset, length): (u32, u32, u32)| {
            Ok((store.data().payload(index, offset, length)?,))
        },
    )?;
    Ok(linker)
}
