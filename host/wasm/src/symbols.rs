//! The table of names that the host and every policy of the process share.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use oona_core::symbols::{Symbol, Symbols};

/// A shared [`Symbols`]: cheap to clone, and every clone is the same table.
#[derive(Clone, Debug, Default)]
pub struct SymbolTable {
    inner: Arc<Inner>,
    /// Whether nothing is added through this clone.
    read_only: bool,
}

#[derive(Debug, Default)]
struct Inner {
    symbols: RwLock<Symbols>,
    /// The highest symbol given out. Symbols are numbered from one and never forgotten, so this
    /// tells without a lock whether a number is one of ours.
    highest: AtomicU32,
}

impl SymbolTable {
    /// An empty table that holds at most `count_max` names.
    #[must_use]
    pub fn with_capacity(count_max: usize) -> Self {
        let symbols = RwLock::new(Symbols::with_capacity(count_max));
        let highest = AtomicU32::default();
        Self {
            inner: Arc::new(Inner { symbols, highest }),
            read_only: false,
        }
    }

    /// The same table, to which nothing can be added this way: a name that is new has no symbol.
    #[must_use]
    pub fn read_only(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
            read_only: true,
        }
    }

    /// The symbol of `name`, made if it is new; [`Symbol::NONE`] if the table has no room for it.
    #[must_use]
    pub fn intern(&self, name: &str) -> Symbol {
        if let Some(symbol) = self.get(name) {
            return symbol;
        }
        if self.read_only {
            return Symbol::NONE;
        }
        let mut symbols = self.write();
        let symbol = symbols.intern(name);
        self.inner.highest.fetch_max(symbol.0, Ordering::Release);
        symbol
    }

    /// The symbol of `name`, if it has one.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Symbol> {
        self.read().get(name)
    }

    /// The name of `symbol`; `None` for [`Symbol::NONE`] and for what this table did not make.
    #[must_use]
    pub fn name(&self, symbol: Symbol) -> Option<Arc<str>> {
        self.read().name(symbol).cloned()
    }

    /// Whether this table made `symbol`. Takes no lock.
    #[must_use]
    pub fn contains(&self, symbol: Symbol) -> bool {
        !symbol.is_none() && symbol.0 <= self.inner.highest.load(Ordering::Acquire)
    }

    fn read(&self) -> RwLockReadGuard<'_, Symbols> {
        self.inner
            .symbols
            .read()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Symbols> {
        self.inner
            .symbols
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_are_one_table() {
        let table = SymbolTable::default();
        let other = table.clone();
        let symbol = table.intern("oona.normal");
        assert_eq!(other.get("oona.normal"), Some(symbol));
        assert_eq!(other.name(symbol).as_deref(), Some("oona.normal"));
        assert!(other.contains(symbol));
    }

    #[test]
    fn strangers_are_known_as_such() {
        let table = SymbolTable::default();
        assert!(!table.contains(Symbol::NONE));
        assert!(!table.contains(Symbol(1)));
        let symbol = table.intern("a");
        assert!(table.contains(symbol));
        assert!(!table.contains(Symbol(symbol.0 + 1)));
    }

    #[test]
    fn nothing_is_added_to_a_table_that_is_only_read() {
        let table = SymbolTable::default();
        let known = table.intern("known");
        let reader = table.read_only();
        assert_eq!(reader.intern("known"), known);
        assert!(reader.intern("new").is_none());
        assert_eq!(table.get("new"), None);
        let added = table.intern("new");
        assert_eq!(reader.intern("new"), added, "it is the same table");
    }

    #[test]
    fn a_full_table_gives_none() {
        let table = SymbolTable::with_capacity(1);
        assert!(!table.intern("kept").is_none());
        assert!(table.intern("late").is_none());
        assert!(!table.contains(Symbol(2)));
    }
}
