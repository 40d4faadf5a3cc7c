//! A component that has been found to be a policy.
//!
//! Everything that can be known without configuration is checked here, once: that it is a component
//! at all, that it imports nothing but its host, which kind of policy it exports, that its functions
//! have the right types, and what it says of itself.

mod error;

use std::sync::Arc;

use oona_core::policy::{self, Fault, Kind};
use sha2::{Digest, Sha256};
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, ComponentExportIndex, Instance, InstancePre, TypedFunc};
use wasmtime::{AsContextMut, Store};

pub use self::error::LoadError;
use crate::engine::Engine;
use crate::fault;
use crate::guest::{Guest, Phase};
use crate::hex;
use crate::metadata::Metadata;
use crate::symbols::SymbolTable;
use crate::wire::{Description, HOST, Sandboxed, TYPES, interface};

/// How large a component may be, in bytes. Python's are 18 MB.
pub const COMPONENT_BYTES_MAX: usize = 64 << 20;

/// The longest name or version that a policy may give itself, in bytes.
pub const LABEL_BYTES_MAX: usize = 128;

/// Layer and version, after the magic number, of a core module.
const CORE_MODULE: &[u8] = b"\0asm\x01\0\0\0";

/// A loaded policy of one kind, without configuration. Cheap to clone.
#[derive(Clone)]
pub struct Artifact {
    inner: Arc<Inner>,
}

struct Inner {
    engine: Arc<Engine>,
    pre: InstancePre<Guest>,
    functions: Functions,
    kind: Kind,
    digest: String,
    imports: Vec<String>,
    description: Description,
    metadata: Metadata,
}

/// Where the functions of the component are.
#[derive(Clone, Copy)]
pub(crate) struct Functions {
    describe: ComponentExportIndex,
    configure: ComponentExportIndex,
    decide: ComponentExportIndex,
}

/// `configure`
pub(crate) type Configure = TypedFunc<(String,), (Result<(), String>,)>;

/// `decide` of one kind.
pub(crate) type DecideFunction<K> =
    TypedFunc<<K as Sandboxed>::Params, (Vec<<K as Sandboxed>::Answered>,)>;

impl std::fmt::Debug for Artifact {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Artifact({} {} {})",
            self.kind(),
            self.name(),
            self.version()
        )
    }
}

impl Artifact {
    /// Loads a policy of the kind that is expected.
    ///
    /// # Errors
    ///
    /// If `bytes` are no such policy; the error says what they are instead.
    pub fn load(engine: &Arc<Engine>, kind: Kind, bytes: &[u8]) -> Result<Self, LoadError> {
        let component = compile(engine, bytes)?;
        let found = exported_kind(engine, &component)?;
        if found != kind {
            return Err(LoadError::WrongKind {
                expected: kind,
                found,
            });
        }
        Self::check(engine, kind, &component, bytes)
    }

    /// Loads a policy of whichever kind it is.
    ///
    /// # Errors
    ///
    /// If `bytes` are no policy; the error says what they are instead.
    pub fn load_any(engine: &Arc<Engine>, bytes: &[u8]) -> Result<Self, LoadError> {
        let component = compile(engine, bytes)?;
        let kind = exported_kind(engine, &component)?;
        Self::check(engine, kind, &component, bytes)
    }

    /// Which kind of policy `bytes` are.
    ///
    /// # Errors
    ///
    /// As [`Artifact::load_any`].
    pub fn detect_kind(engine: &Arc<Engine>, bytes: &[u8]) -> Result<Kind, LoadError> {
        exported_kind(engine, &compile(engine, bytes)?)
    }

    fn check(
        engine: &Arc<Engine>,
        kind: Kind,
        component: &Component,
        bytes: &[u8],
    ) -> Result<Self, LoadError> {
        let imports = check_imports(engine, component)?;
        let pre = engine.linker().instantiate_pre(component);
        let pre = pre.map_err(|error| LoadError::WrongImport(format!("{error:#}")))?;
        let functions = Functions::find(component, kind)?;
        let description = describe(engine, &pre, &functions, kind)?;
        let metadata = Metadata::read(bytes)?;
        let digest = digest(bytes);
        let engine = Arc::clone(engine);
        Ok(Self {
            inner: Arc::new(Inner {
                engine,
                pre,
                functions,
                kind,
                digest,
                imports,
                description,
                metadata,
            }),
        })
    }

    /// Which kind of policy it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.inner.kind
    }

    /// The name it gives itself.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.description.name
    }

    /// The version it gives itself.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.inner.description.version
    }

    /// The JSON Schema of its configuration, as text.
    #[must_use]
    pub fn config_schema(&self) -> &str {
        &self.inner.description.config_schema
    }

    /// SHA-256 of the component, in hex.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.inner.digest
    }

    /// What it imports, by name: nothing but what its world has.
    #[must_use]
    pub fn imports(&self) -> Vec<String> {
        self.inner.imports.clone()
    }

    /// What travels with it beside its code.
    #[must_use]
    pub fn metadata(&self) -> &Metadata {
        &self.inner.metadata
    }

    pub(crate) fn engine(&self) -> &Arc<Engine> {
        &self.inner.engine
    }

    pub(crate) fn functions(&self) -> &Functions {
        &self.inner.functions
    }

    /// A store with an instance in it that has not been configured.
    pub(crate) fn instantiate(
        &self,
        symbols: SymbolTable,
    ) -> Result<(Store<Guest>, Instance), Fault> {
        instantiate(&self.inner.engine, &self.inner.pre, symbols)
    }
}

impl Functions {
    fn find(component: &Component, kind: Kind) -> Result<Self, LoadError> {
        let find = |parent: Option<&ComponentExportIndex>, name: &'static str| {
            let found = component.get_export_index(parent, name);
            found.ok_or(LoadError::MissingExport { kind, name })
        };
        let parent = find(None, interface(kind))?;
        Ok(Self {
            describe: find(None, "describe")?,
            configure: find(None, "configure")?,
            decide: find(Some(&parent), "decide")?,
        })
    }

    pub(crate) fn configure(
        &self,
        store: impl AsContextMut,
        instance: &Instance,
    ) -> wasmtime::Result<Configure> {
        instance.get_typed_func(store, self.configure)
    }

    pub(crate) fn decide<K: Sandboxed>(
        &self,
        store: impl AsContextMut,
        instance: &Instance,
    ) -> wasmtime::Result<DecideFunction<K>> {
        instance.get_typed_func(store, self.decide)
    }

    /// Compares the types of all functions with those of the world.
    fn check(
        &self,
        store: &mut Store<Guest>,
        instance: &Instance,
        kind: Kind,
    ) -> Result<(), LoadError> {
        let wrong = |export: String| {
            move |error: wasmtime::Error| LoadError::WrongType {
                export,
                reason: format!("{error:#}"),
            }
        };
        self.configure(&mut *store, instance)
            .map_err(wrong("configure".to_owned()))?;
        let decide = match kind {
            Kind::Routing => self.decide::<policy::Routing>(store, instance).map(drop),
            Kind::Backpressure => self
                .decide::<policy::Backpressure>(store, instance)
                .map(drop),
            Kind::Freshness => self.decide::<policy::Freshness>(store, instance).map(drop),
            Kind::DeadLetter => self.decide::<policy::DeadLetter>(store, instance).map(drop),
        };
        decide.map_err(wrong(format!("{}#decide", interface(kind))))
    }
}

/// SHA-256 in hex: what a component is known by.
#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn compile(engine: &Engine, bytes: &[u8]) -> Result<Component, LoadError> {
    if bytes.is_empty() {
        return Err(LoadError::Empty);
    }
    if bytes.len() > COMPONENT_BYTES_MAX {
        return Err(LoadError::TooLarge { bytes: bytes.len() });
    }
    if bytes.starts_with(CORE_MODULE) {
        return Err(LoadError::CoreModule);
    }
    let compiled = engine.compile(&digest(bytes), bytes);
    compiled.map_err(|error| LoadError::Invalid(format!("{error:#}")))
}

/// The one kind whose interface the component exports.
fn exported_kind(engine: &Engine, component: &Component) -> Result<Kind, LoadError> {
    let component = component.component_type();
    let exports: Vec<&str> = component
        .exports(engine.wasmtime())
        .map(|(name, _)| name)
        .collect();
    let mut kinds = Kind::ALL
        .into_iter()
        .filter(|kind| exports.contains(&interface(*kind)));
    match (kinds.next(), kinds.next()) {
        (Some(kind), None) => Ok(kind),
        (Some(_), Some(_)) => Err(LoadError::SeveralKinds),
        (None, _) => Err(LoadError::NoPolicy {
            exports: listed(&exports),
        }),
    }
}

/// For a sentence: `a, b` or `nothing`.
fn listed(names: &[&str]) -> String {
    if names.is_empty() {
        "nothing".to_owned()
    } else {
        names.join(", ")
    }
}

/// A world's types are imports too, but they bring nothing in.
fn check_imports(engine: &Engine, component: &Component) -> Result<Vec<String>, LoadError> {
    let component = component.component_type();
    let imports = component.imports(engine.wasmtime());
    let imports: Vec<_> = imports.collect();
    let foreign = imports.iter().find(|(name, import)| {
        !matches!(import.ty, ComponentItem::Type(_)) && ![HOST, TYPES].contains(name)
    });
    match foreign {
        Some((import, _)) => Err(LoadError::ForeignImport {
            import: (*import).to_owned(),
        }),
        None => Ok(imports.iter().map(|(name, _)| (*name).to_owned()).collect()),
    }
}

/// Starts the component once, in its bounds, and asks what it is.
fn describe(
    engine: &Engine,
    pre: &InstancePre<Guest>,
    functions: &Functions,
    kind: Kind,
) -> Result<Description, LoadError> {
    let (mut store, instance) =
        instantiate(engine, pre, SymbolTable::default()).map_err(LoadError::Start)?;
    functions.check(&mut store, &instance, kind)?;
    let describe = instance.get_typed_func::<(), (Description,)>(&mut store, functions.describe);
    let describe = describe.map_err(|error| LoadError::WrongType {
        export: "describe".to_owned(),
        reason: format!("{error:#}"),
    })?;
    let limit_ms = engine.config().start_ms_max;
    store.set_hostcall_fuel(engine.config().description_bytes_max);
    store.set_epoch_deadline(limit_ms);
    store.data_mut().begin(Phase::Starting, None);
    let described = describe.call(&mut store, ());
    let (description,) = described
        .map_err(|error| LoadError::Describe(fault::classify(&error, store.data(), limit_ms)))?;
    for label in [&description.name, &description.version] {
        if label.is_empty() || label.len() > LABEL_BYTES_MAX || label.contains(char::is_control) {
            return Err(LoadError::Label(
                label.escape_debug().take(LABEL_BYTES_MAX).collect(),
            ));
        }
    }
    Ok(description)
}

fn instantiate(
    engine: &Engine,
    pre: &InstancePre<Guest>,
    symbols: SymbolTable,
) -> Result<(Store<Guest>, Instance), Fault> {
    let limit_ms = engine.config().start_ms_max;
    let mut store = engine.store(symbols);
    store.set_hostcall_fuel(engine.config().answer_bytes_max);
    store.set_epoch_deadline(limit_ms);
    match pre.instantiate(&mut store) {
        Ok(instance) => Ok((store, instance)),
        Err(error) => Err(fault::classify(&error, store.data(), limit_ms)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{self, Guest};

    #[track_caller]
    fn refused(bytes: &[u8]) -> String {
        let error = Artifact::load(&testing::engine(), Kind::Routing, bytes).unwrap_err();
        crate::sentence(&error)
    }

    #[track_caller]
    fn check(bytes: &[u8], expected: &str) {
        let refused = refused(bytes);
        assert!(refused.contains(expected), "{refused}");
    }

    fn component(text: &str) -> Vec<u8> {
        wat::parse_str(text).unwrap()
    }

    #[test]
    fn a_policy_is_loaded_with_what_it_says_of_itself() {
        let engine = testing::engine();
        let bytes = Guest::default().component();
        let artifact = Artifact::load(&engine, Kind::Routing, &bytes).unwrap();
        assert_eq!((artifact.name(), artifact.version()), ("by-hand", "1.0.0"));
        assert_eq!(artifact.config_schema(), "{}");
        assert_eq!(artifact.digest().len(), 64);
        assert_eq!(
            Artifact::detect_kind(&engine, &bytes).unwrap(),
            Kind::Routing
        );
        assert_eq!(
            Artifact::load_any(&engine, &bytes).unwrap().digest(),
            artifact.digest()
        );
    }

    #[test]
    fn what_is_not_a_component_is_refused() {
        check(b"", "it is empty");
        check(b"MZ and so on", "it is not a component");
        check(b"(component)", "it is not a component");
        check(
            &vec![0; COMPONENT_BYTES_MAX + 1],
            "a component may have 67108864",
        );
        check(&Guest::default().module(), "it is a core module");
        let whole = Guest::default().component();
        check(&whole[..whole.len() / 2], "it is not a component");
    }

    #[test]
    fn what_is_of_another_world_is_refused() {
        check(
            &component("(component)"),
            "it exports nothing: none of the four kinds",
        );
        let exports =
            r#"(component (instance $i) (export "wasi:http/handler@0.2.0" (instance $i)))"#;
        check(
            &component(exports),
            "it exports wasi:http/handler@0.2.0: none of the four kinds",
        );
        let import = r#"(component
            (import "wasi:clocks/monotonic-clock@0.2.0" (instance (export "now" (func (result u64)))))
            (instance $i) (export "oona:policy/routing@0.1.0" (instance $i)))"#;
        check(
            &component(import),
            "it imports `wasi:clocks/monotonic-clock@0.2.0`; a policy may",
        );
        let other = r#"(component (instance $i)
            (export "oona:policy/backpressure@0.1.0" (instance $i)))"#;
        check(
            &component(other),
            "it exports `oona:policy/backpressure@0.1.0`, expected `oona:policy/routing@0.1.0`",
        );
        let several = r#"(component (instance $i)
            (export "oona:policy/backpressure@0.1.0" (instance $i))
            (export "oona:policy/routing@0.1.0" (instance $i)))"#;
        check(&component(several), "it exports several kinds of policy");
    }

    #[test]
    fn what_lacks_something_of_its_world_is_refused() {
        let nothing =
            r#"(component (instance $i) (export "oona:policy/routing@0.1.0" (instance $i)))"#;
        check(
            &component(nothing),
            "it does not export `describe`, as a routing policy must",
        );
        let odd_import = r#"(component
            (import "oona:policy/host@0.1.0" (instance (export "now" (func (result u64)))))
            (instance $i) (export "oona:policy/routing@0.1.0" (instance $i)))"#;
        check(
            &component(odd_import),
            "its imports are not those of its world",
        );
        let odd_type = r#"(component
            (core module $m (func (export "f")))
            (core instance $c (instantiate $m))
            (func $f (canon lift (core func $c "f")))
            (instance $routing (export "decide" (func $f)))
            (export "describe" (func $f)) (export "configure" (func $f))
            (export "oona:policy/routing@0.1.0" (instance $routing)))"#;
        check(&component(odd_type), "its `configure` has another type");
    }

    #[test]
    fn what_does_not_start_within_its_bounds_is_refused() {
        let plain = Guest::default();
        let looping = Guest {
            start: "(loop $ever (br $ever))",
            ..plain
        };
        check(
            &looping.component(),
            "it does not start: it took longer than its 100 ms",
        );
        let trapping = Guest {
            start: "unreachable",
            ..plain
        };
        check(&trapping.component(), "it does not start: it trapped");
        let large = Guest { pages: 17, ..plain };
        check(&large.component(), "memory");
        let growing = Guest {
            start: "(if (i32.lt_s (memory.grow (i32.const 99)) (i32.const 0)) (then unreachable))",
            ..plain
        };
        check(
            &growing.component(),
            "it does not start: it went over a bound: it wanted 6553600 bytes",
        );
        let wide = Guest {
            more: "(table 20000 funcref)",
            ..plain
        };
        check(&wide.component(), "table");
        let interning = Guest {
            start: "(drop (call $intern (i32.const 64) (i32.const 11)))",
            ..plain
        };
        check(&interning.component(), "it does not start: it trapped");
    }
}
