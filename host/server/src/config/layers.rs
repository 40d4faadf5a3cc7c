//! The layers of a configuration, one over the other: defaults, file, environment, flags. Each
//! setting remembers where it came from.

use std::collections::BTreeMap;
use std::path::Path as FilePath;

use toml::de::{DeTable, DeValue};
use toml::{Spanned, Table, Value};

use super::error::{ConfigError, Origin, Problem};
use super::schema::{Known, Path, Schema, show};

/// Environment variables that begin like settings and are read by others: the address that the
/// client commands talk to, and the way to a compiler of policies.
pub(super) const RESERVED_VARIABLES: [&str; 2] = ["OONA_ADDRESS", "OONA_WASM_TOOLCHAIN"];

/// A value and where it came from.
#[derive(Clone)]
pub(super) struct Setting {
    pub(super) value: Value,
    pub(super) origin: Origin,
}

/// All settings, the highest layer that said something winning.
pub(super) struct Layers {
    pub(super) schema: Schema,
    settings: BTreeMap<Path, Setting>,
    /// Where each key of an opaque table was said.
    places: BTreeMap<Path, Origin>,
}

impl Layers {
    pub(super) fn new() -> Self {
        let schema = Schema::embedded();
        let default = |known: &Known| Setting {
            value: known.default.clone(),
            origin: Origin::Default,
        };
        let settings = schema
            .keys
            .iter()
            .map(|(path, known)| (path.clone(), default(known)));
        Self {
            settings: settings.collect(),
            schema,
            places: BTreeMap::new(),
        }
    }

    /// The setting of a key that the embedded defaults have, as all below.
    pub(super) fn setting(&self, key: &str) -> &Setting {
        let path: Path = key.split('.').map(str::to_owned).collect();
        self.settings
            .get(&path)
            .expect("a key of the embedded defaults")
    }

    pub(super) fn is_default(&self, key: &str) -> bool {
        self.setting(key).origin == Origin::Default
    }

    pub(super) fn text(&self, key: &str) -> &str {
        self.setting(key)
            .value
            .as_str()
            .expect("checked when it was set")
    }

    pub(super) fn number(&self, key: &str) -> i64 {
        self.setting(key)
            .value
            .as_integer()
            .expect("checked when it was set")
    }

    pub(super) fn flag(&self, key: &str) -> bool {
        self.setting(key)
            .value
            .as_bool()
            .expect("checked when it was set")
    }

    pub(super) fn list(&self, key: &str) -> Vec<&str> {
        let items = self
            .setting(key)
            .value
            .as_array()
            .expect("checked when it was set");
        items.iter().filter_map(Value::as_str).collect()
    }

    /// Where a key was said, or the nearest table around it.
    pub(super) fn locate(&self, path: &[String]) -> Option<&Origin> {
        (1..=path.len()).rev().find_map(|n| {
            let place = self.places.get(&path[..n]);
            place.or_else(|| self.settings.get(&path[..n]).map(|setting| &setting.origin))
        })
    }

    /// Lays a file over what there is.
    pub(super) fn apply_file(&mut self, file: &FilePath, text: &str) -> Result<(), ConfigError> {
        let at = |offset: usize| Origin::File {
            path: file.to_owned(),
            line: line_of(text, offset),
        };
        let syntax = |error: &toml::de::Error| ConfigError {
            origin: at(error.span().map_or(0, |span| span.start)),
            key: String::new(),
            problem: Problem::Syntax(error.message().replace('\n', ", ")),
        };
        let spans = DeTable::parse(text).map_err(|error| syntax(&error))?;
        let values: Table = toml::from_str(text).map_err(|error| syntax(&error))?;
        self.apply_table(&values, spans.get_ref(), &at, &mut Vec::new())
    }

    fn apply_table(
        &mut self,
        values: &Table,
        spans: &DeTable<'_>,
        at: &dyn Fn(usize) -> Origin,
        path: &mut Path,
    ) -> Result<(), ConfigError> {
        for (key, span) in spans {
            let name: &str = key.get_ref();
            let value = &values[name];
            path.push(name.to_owned());
            let origin = at(key.span().start);
            match (span.get_ref(), self.schema.is_section(path)) {
                (DeValue::Table(inner), true) => {
                    let table = value.as_table().expect("both parses see the same table");
                    self.apply_table(table, inner, at, path)?;
                }
                (_, true) => {
                    return Err(wrong_type(origin, path, "a table", value));
                }
                (_, false) => {
                    self.set(path, value.clone(), origin)?;
                    self.note_places(span, at, path);
                }
            }
            path.pop();
        }
        Ok(())
    }

    /// Remembers the lines of what is inside an opaque table.
    fn note_places(
        &mut self,
        span: &Spanned<DeValue<'_>>,
        at: &dyn Fn(usize) -> Origin,
        path: &mut Path,
    ) {
        match span.get_ref() {
            DeValue::Table(table) => {
                for (key, value) in table {
                    path.push(key.get_ref().to_string());
                    self.places.insert(path.clone(), at(key.span().start));
                    self.note_places(value, at, path);
                    path.pop();
                }
            }
            DeValue::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    path.push(index.to_string());
                    self.places.insert(path.clone(), at(item.span().start));
                    self.note_places(item, at, path);
                    path.pop();
                }
            }
            _ => {}
        }
    }

    /// Lays the variables that begin with `OONA_` over what there is.
    pub(super) fn apply_environment(
        &mut self,
        variables: &[(String, String)],
    ) -> Result<(), ConfigError> {
        let ours = variables.iter().filter(|(name, _)| {
            name.starts_with("OONA_") && !RESERVED_VARIABLES.contains(&name.as_str())
        });
        for (name, text) in ours {
            let origin = Origin::Environment(name.clone());
            let Some(path) = self.schema.by_variable(name).cloned() else {
                let nearest = self.schema.nearest_variable(name);
                let problem =
                    nearest.map_or(Problem::UnknownVariableAtAll, Problem::UnknownVariable);
                return Err(ConfigError {
                    origin,
                    key: String::new(),
                    problem,
                });
            };
            self.set_text(&path, text, origin)?;
        }
        Ok(())
    }

    /// Lays `section.key=value` over what there is.
    pub(super) fn apply_assignment(&mut self, assignment: &str) -> Result<(), ConfigError> {
        let origin = Origin::Flag(format!(
            "--set {}",
            assignment.split('=').next().unwrap_or("")
        ));
        let invalid = |text: &str| ConfigError {
            origin: origin.clone(),
            key: String::new(),
            problem: Problem::Invalid(text.to_owned()),
        };
        let (key, text) = assignment
            .split_once('=')
            .ok_or_else(|| invalid("expected section.key=value"))?;
        let path = parse_key(key).ok_or_else(|| invalid("expected section.key=value"))?;
        self.set_text(&path, text.trim(), origin)
    }

    /// Lays one named flag over what there is.
    pub(super) fn apply_flag(
        &mut self,
        key: &str,
        text: &str,
        flag: &str,
    ) -> Result<(), ConfigError> {
        let path: Path = key.split('.').map(str::to_owned).collect();
        self.set_text(&path, text, Origin::Flag(flag.to_owned()))
    }

    fn set_text(&mut self, path: &Path, text: &str, origin: Origin) -> Result<(), ConfigError> {
        if let Some(opaque) = self.schema.opaque_above(path) {
            return self.set_inside(path, opaque, parse_value(text), origin);
        }
        let value = match self.schema.known(path).map(|known| &known.default) {
            Some(Value::String(_)) | None => Value::String(text.to_owned()),
            Some(Value::Array(_)) if !text.trim_start().starts_with('[') => {
                let items = text
                    .split(',')
                    .map(str::trim)
                    .filter(|item| !item.is_empty());
                Value::Array(items.map(|item| Value::String(item.to_owned())).collect())
            }
            Some(_) => parse_value(text),
        };
        self.set(path, value, origin)
    }

    /// Sets one key within an opaque table.
    fn set_inside(
        &mut self,
        path: &Path,
        opaque: usize,
        value: Value,
        origin: Origin,
    ) -> Result<(), ConfigError> {
        let setting = self.settings.get_mut(&path[..opaque]);
        let setting = setting.expect("a known key has a setting");
        let mut table = setting
            .value
            .as_table_mut()
            .expect("an opaque setting is a table");
        let inner = &path[opaque..path.len() - 1];
        for part in inner {
            let next = table
                .entry(part.clone())
                .or_insert_with(|| Value::Table(Table::new()));
            table = next.as_table_mut().ok_or_else(|| ConfigError {
                origin: origin.clone(),
                key: show(path),
                problem: Problem::Invalid(format!("`{part}` is no table")),
            })?;
        }
        table.insert(path[path.len() - 1].clone(), value);
        self.places.insert(path.clone(), origin);
        Ok(())
    }

    fn set(&mut self, path: &Path, value: Value, origin: Origin) -> Result<(), ConfigError> {
        let Some(known) = self.schema.known(path) else {
            let nearest = self.schema.nearest(path).map(Problem::UnknownKey);
            let among = || Problem::UnknownKeyAmong(self.schema.siblings(path));
            let problem = nearest.unwrap_or_else(among);
            return Err(ConfigError {
                origin,
                key: show(path),
                problem,
            });
        };
        check_type(known, path, &value, &origin)?;
        check_rules(known, path, &value, &origin)?;
        self.settings
            .insert(path.clone(), Setting { value, origin });
        Ok(())
    }
}

fn check_type(
    known: &Known,
    path: &[String],
    value: &Value,
    origin: &Origin,
) -> Result<(), ConfigError> {
    if !value.same_type(&known.default) {
        return Err(wrong_type(
            origin.clone(),
            path,
            type_name(&known.default),
            value,
        ));
    }
    let items = value.as_array().into_iter().flatten();
    match items.into_iter().find(|item| !item.is_str()) {
        Some(item) => Err(wrong_type(origin.clone(), path, "a list of texts", item)),
        None => Ok(()),
    }
}

fn check_rules(
    known: &Known,
    path: &[String],
    value: &Value,
    origin: &Origin,
) -> Result<(), ConfigError> {
    let problem = match (value, &known.range) {
        (Value::Integer(value), Some(range)) if !range.contains(value) => Problem::OutOfRange {
            value: *value,
            range: range.clone(),
        },
        (Value::String(value), _)
            if !known.choices.is_empty() && !known.choices.contains(value) =>
        {
            Problem::NoChoice {
                value: value.clone(),
                choices: known.choices.join(", "),
            }
        }
        _ => return Ok(()),
    };
    Err(ConfigError {
        origin: origin.clone(),
        key: show(path),
        problem,
    })
}

fn wrong_type(
    origin: Origin,
    path: &[String],
    expected: &'static str,
    found: &Value,
) -> ConfigError {
    let problem = Problem::WrongType {
        expected,
        found: type_name(found),
    };
    ConfigError {
        origin,
        key: show(path),
        problem,
    }
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "a text",
        Value::Integer(_) => "a whole number",
        Value::Float(_) => "a fraction",
        Value::Boolean(_) => "true or false",
        Value::Datetime(_) => "a date",
        Value::Array(_) => "a list",
        Value::Table(_) => "a table",
    }
}

/// A value written as TOML, else as plain text.
fn parse_value(text: &str) -> Value {
    let document: Result<Table, _> = format!("value = {text}").parse();
    let parsed = document.ok().and_then(|mut table| table.remove("value"));
    parsed.unwrap_or_else(|| Value::String(text.to_owned()))
}

/// A dotted key written as TOML.
fn parse_key(text: &str) -> Option<Path> {
    let table: Table = format!("{text} = 0").parse().ok()?;
    let mut path = Path::new();
    let mut value = Value::Table(table);
    while let Value::Table(table) = value {
        let (name, inner) = table.into_iter().next()?;
        path.push(name);
        value = inner;
    }
    Some(path)
}

fn line_of(text: &str, offset: usize) -> usize {
    text.bytes()
        .take(offset)
        .filter(|&byte| byte == b'\n')
        .count()
        + 1
}
