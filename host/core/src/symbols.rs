//! Interned names: what crosses the policy boundary instead of strings.

use std::collections::BTreeMap;
use std::sync::Arc;

/// How many names the table of a process holds. Each costs its own length and about 100 bytes.
pub const SYMBOLS_MAX: usize = 65_536;

/// The longest name that is interned, in bytes.
pub const SYMBOL_BYTES_MAX: usize = 256;

/// An interned name. Only the table that made it knows what it means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Symbol(pub u32);

impl Symbol {
    /// No name: what the table had no room for, or what does not apply.
    pub const NONE: Self = Self(0);

    /// Whether this is [`Symbol::NONE`].
    #[must_use]
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }
}

/// A bounded table of names. Names are never forgotten, so a symbol stays true; a full table
/// answers [`Symbol::NONE`] for what is new.
#[derive(Debug)]
pub struct Symbols {
    names: Vec<Arc<str>>,
    numbers: BTreeMap<Arc<str>, Symbol>,
    count_max: usize,
}

impl Default for Symbols {
    fn default() -> Self {
        Self::with_capacity(SYMBOLS_MAX)
    }
}

impl Symbols {
    /// An empty table that holds at most `count_max` names.
    #[must_use]
    pub fn with_capacity(count_max: usize) -> Self {
        Self {
            names: Vec::new(),
            numbers: BTreeMap::new(),
            count_max,
        }
    }

    /// The symbol of `name`, if it has one.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Symbol> {
        self.numbers.get(name).copied()
    }

    /// The symbol of `name`, made if it is new. [`Symbol::NONE`] if the name is empty, too long,
    /// or new while the table is full.
    pub fn intern(&mut self, name: &str) -> Symbol {
        if let Some(symbol) = self.get(name) {
            return symbol;
        }
        let full = self.names.len() >= self.count_max;
        if full || name.is_empty() || name.len() > SYMBOL_BYTES_MAX {
            return Symbol::NONE;
        }
        let name: Arc<str> = name.into();
        self.names.push(Arc::clone(&name));
        let number = u32::try_from(self.names.len()).map_or(Symbol::NONE, Symbol);
        self.numbers.insert(name, number);
        number
    }

    /// The name of `symbol`; `None` for [`Symbol::NONE`] and for what this table did not make.
    #[must_use]
    pub fn name(&self, symbol: Symbol) -> Option<&Arc<str>> {
        let index = usize::try_from(symbol.0).ok()?.checked_sub(1)?;
        self.names.get(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_keeps_its_symbol() {
        let mut symbols = Symbols::default();
        let first = symbols.intern("oona.normal");
        let second = symbols.intern("oona.emergency");
        assert_ne!(first, second);
        assert_eq!(symbols.intern("oona.normal"), first);
        assert_eq!(
            symbols.name(second).map(AsRef::as_ref),
            Some("oona.emergency")
        );
    }

    #[test]
    fn the_table_is_bounded() {
        let mut symbols = Symbols::with_capacity(1);
        let kept = symbols.intern("kept");
        assert_eq!(symbols.intern("late"), Symbol::NONE);
        assert_eq!(symbols.intern("kept"), kept);
        assert_eq!(symbols.intern(""), Symbol::NONE);
        let mut roomy = Symbols::default();
        assert_eq!(
            roomy.intern(&"x".repeat(SYMBOL_BYTES_MAX + 1)),
            Symbol::NONE
        );
        assert!(!roomy.intern(&"x".repeat(SYMBOL_BYTES_MAX)).is_none());
    }

    #[test]
    fn none_and_strangers_have_no_name() {
        let symbols = Symbols::default();
        assert_eq!(symbols.name(Symbol::NONE), None);
        assert_eq!(symbols.name(Symbol(7)), None);
    }
}
