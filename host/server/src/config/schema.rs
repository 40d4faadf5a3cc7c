//! The schema of the configuration: the embedded default file itself.
//!
//! A key exists because it has a default, its type is the default's type, and its range or choices
//! are what its comment begins with. There is no second list that could say otherwise.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use toml::{Table, Value};

/// The embedded default file.
pub const DEFAULT: &str = include_str!("default.toml");

/// How alike an unknown name and a known one must be, from 0 to 1, for a suggestion.
const ALIKE_MIN: f64 = 0.6;

/// From the top of a file to a key.
pub(super) type Path = Vec<String>;

/// What the schema knows about one key.
#[derive(Clone, Debug)]
pub(super) struct Known {
    /// Its value unless something else is said. An empty table is opaque: whatever it will hold
    /// is checked by whoever it is for.
    pub(super) default: Value,
    pub(super) range: Option<RangeInclusive<i64>>,
    pub(super) choices: Vec<String>,
}

impl Known {
    pub(super) fn is_opaque(&self) -> bool {
        self.default.is_table()
    }
}

/// Every key there is.
#[derive(Debug)]
pub(super) struct Schema {
    pub(super) keys: BTreeMap<Path, Known>,
}

impl Schema {
    pub(super) fn embedded() -> Self {
        let table: Table = DEFAULT
            .parse()
            .expect("the embedded defaults are valid TOML");
        let mut keys = BTreeMap::new();
        flatten(table, &mut Vec::new(), &mut keys);
        annotate(&mut keys);
        Self { keys }
    }

    pub(super) fn known(&self, path: &[String]) -> Option<&Known> {
        self.keys.get(path)
    }

    /// The opaque table that holds `path`, by the length of its own path.
    pub(super) fn opaque_above(&self, path: &[String]) -> Option<usize> {
        (1..path.len()).find(|&n| self.known(&path[..n]).is_some_and(Known::is_opaque))
    }

    pub(super) fn is_section(&self, path: &[String]) -> bool {
        self.keys
            .keys()
            .any(|key| key.len() > path.len() && key.starts_with(path))
    }

    /// The name that was probably meant: the most similar one in the same section, else a key of
    /// exactly this name in another one.
    pub(super) fn nearest(&self, path: &[String]) -> Option<String> {
        let (name, section) = path.split_last()?;
        let siblings = self.keys.keys().filter(|key| key.starts_with(section));
        let siblings = siblings.filter_map(|key| key.get(section.len()).map(String::as_str));
        most_alike(name, siblings).map(str::to_owned).or_else(|| {
            let elsewhere = self.keys.keys().find(|key| key.last() == Some(name));
            elsewhere.map(|key| show(key))
        })
    }

    /// The names in the section of `path`, for an error that has no better idea.
    pub(super) fn siblings(&self, path: &[String]) -> String {
        let section = path.split_last().map_or(path, |(_, section)| section);
        let keys = self.keys.keys().filter(|key| key.starts_with(section));
        let mut names: Vec<_> = keys.filter_map(|key| key.get(section.len())).collect();
        names.dedup();
        names
            .iter()
            .map(|name| format!("`{name}`"))
            .collect::<Vec<_>>()
            .join(", ")
    }

    /// The key that an environment variable stands for.
    pub(super) fn by_variable(&self, name: &str) -> Option<&Path> {
        self.keys.keys().find(|key| variable(key) == name)
    }

    /// The variable that was probably meant.
    pub(super) fn nearest_variable(&self, name: &str) -> Option<String> {
        let names: Vec<_> = self.keys.keys().map(|key| variable(key)).collect();
        most_alike(name, names.iter().map(String::as_str)).map(str::to_owned)
    }
}

/// The environment variable of a key.
pub(super) fn variable(path: &[String]) -> String {
    let name = path.join("_").to_uppercase().replace(['-', '.'], "_");
    format!("OONA_{name}")
}

/// A path as one writes it.
pub(super) fn show(path: &[String]) -> String {
    let quoted = path.iter().map(|part| {
        let bare = part
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
        if bare && !part.is_empty() {
            part.clone()
        } else {
            format!("\"{part}\"")
        }
    });
    quoted.collect::<Vec<_>>().join(".")
}

fn most_alike<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let scored = known.map(|known| (alike(name, known), known));
    let best = scored.max_by(|a, b| a.0.total_cmp(&b.0))?;
    (best.0 >= ALIKE_MIN).then_some(best.1)
}

/// Alike by letters (`nromal`), or by words in another order (`max_payload_bytes`).
fn alike(one: &str, other: &str) -> f64 {
    let letters = strsim::normalized_damerau_levenshtein(one, other);
    letters.max(strsim::sorensen_dice(one, other))
}

fn flatten(table: Table, path: &mut Path, keys: &mut BTreeMap<Path, Known>) {
    for (name, value) in table {
        path.push(name);
        match value {
            Value::Table(table) if !table.is_empty() => flatten(table, path, keys),
            default => {
                let known = Known {
                    default,
                    range: None,
                    choices: Vec::new(),
                };
                keys.insert(path.clone(), known);
            }
        }
        path.pop();
    }
}

/// Reads ranges and choices from the comments above the keys.
fn annotate(keys: &mut BTreeMap<Path, Known>) {
    let mut section = String::new();
    let mut comment: Option<&str> = None;
    for line in DEFAULT.lines() {
        if let Some(text) = line.strip_prefix("# ") {
            comment = comment.or(Some(text));
            continue;
        }
        if let Some(name) = line
            .strip_prefix('[')
            .and_then(|line| line.strip_suffix(']'))
        {
            name.clone_into(&mut section);
        } else if let (Some(text), Some((name, _))) = (comment, line.split_once(" = ")) {
            let path: Path = section
                .split('.')
                .chain([name])
                .map(str::to_owned)
                .collect();
            if let Some(known) = keys.get_mut(&path) {
                known.range = range(text);
                known.choices = choices(text);
            }
        }
        comment = None;
    }
}

/// `1..=10 messages. …`
fn range(comment: &str) -> Option<RangeInclusive<i64>> {
    let (low, rest) = comment.split_once("..=")?;
    let high = rest.split([' ', '.']).next()?;
    let number = |text: &str| text.replace('_', "").parse::<i64>().ok();
    Some(number(low)?..=number(high)?)
}

/// `redis | memory. …`
fn choices(comment: &str) -> Vec<String> {
    let first = comment.split('.').next().unwrap_or_default();
    if !first.contains(" | ") {
        return Vec::new();
    }
    first.split(" | ").map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_a_range_that_holds_its_default() {
        for (path, known) in Schema::embedded().keys {
            let Some(default) = known.default.as_integer() else {
                continue;
            };
            let range = known
                .range
                .unwrap_or_else(|| panic!("{} has no range", show(&path)));
            assert!(range.contains(&default), "{}: {default}", show(&path));
        }
    }

    #[test]
    fn every_key_is_described_and_says_its_unit() {
        let mut above = "";
        for line in DEFAULT
            .lines()
            .filter(|line| !line.starts_with(' ') && *line != "]")
        {
            if let Some((name, _)) = line.split_once(" = ") {
                let file = name == "file";
                assert!(file || above.starts_with("# "), "{name} is not described");
                let ms = name.ends_with("_ms") || name.contains("_ms_");
                assert!(!ms || DEFAULT.contains(&format!("{name} = ")), "{name}");
            }
            above = line;
        }
    }

    #[test]
    fn comments_become_rules() {
        assert_eq!(range("1..=65_536 messages. How many"), Some(1..=65_536));
        assert_eq!(range("How many"), None);
        assert_eq!(
            choices("redis | memory. Memory is not durable."),
            ["redis", "memory"]
        );
        assert!(choices("Where Redis is.").is_empty());
    }

    #[test]
    fn the_nearest_name_is_found() {
        let schema = Schema::embedded();
        let table = [
            ("streams.nromal", Some("normal")),
            ("sever.listen", Some("server.listen")),
            ("stroe", Some("store")),
            ("publish.payload_max_bytes", Some("payload_bytes_max")),
            ("high_water", Some("conservative.high_water")),
            ("streams.zzzzz", None),
        ];
        for (key, nearest) in table {
            let path: Path = key.split('.').map(str::to_owned).collect();
            assert_eq!(schema.nearest(&path).as_deref(), nearest, "{key}");
        }
        let variable = schema.nearest_variable("OONA_SERVER_LISTENS");
        assert_eq!(variable.as_deref(), Some("OONA_SERVER_LISTEN"));
    }

    #[test]
    fn no_two_keys_share_a_variable() {
        let schema = Schema::embedded();
        let mut names: Vec<_> = schema.keys.keys().map(|key| variable(key)).collect();
        names.sort();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
