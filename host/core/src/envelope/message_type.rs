//! Wire numbers of `BusMessageType`, and their names. A number that is not listed is carried
//! through unchanged.

/// Not said.
pub const UNSPECIFIED: u32 = 0;
/// State of a subsystem.
pub const SYSTEM_STATE: u32 = 1;
/// An order to adapt.
pub const ADAPTATION_COMMAND: u32 = 2;
/// A report from the field.
pub const FIELD_REPORT: u32 = 3;
/// Measurements.
pub const TELEMETRY: u32 = 4;
/// An update of the training system's policy.
pub const POLICY_UPDATE: u32 = 5;
/// A kernel is asked for.
pub const KERNEL_PREFETCH_REQUEST: u32 = 6;
/// A kernel is there.
pub const KERNEL_PREFETCH_READY: u32 = 7;
/// A kernel could not be had.
pub const KERNEL_PREFETCH_ERROR: u32 = 8;
/// The catalog of kernels has changed.
pub const KERNEL_CATALOG_UPDATE: u32 = 9;
/// An emergency.
pub const EMERGENCY_SIGNAL: u32 = 10;
/// A BSDS was issued.
pub const BSDS_ISSUED: u32 = 20;
/// A BSDS could not be issued.
pub const BSDS_FAILED: u32 = 21;
/// Results of a benchmark.
pub const BENCHMARK_REPORT: u32 = 22;

/// Numbers and names.
pub const ALL: [(u32, &str); 14] = [
    (UNSPECIFIED, "unspecified"),
    (SYSTEM_STATE, "system_state"),
    (ADAPTATION_COMMAND, "adaptation_command"),
    (FIELD_REPORT, "field_report"),
    (TELEMETRY, "telemetry"),
    (POLICY_UPDATE, "policy_update"),
    (KERNEL_PREFETCH_REQUEST, "kernel_prefetch_request"),
    (KERNEL_PREFETCH_READY, "kernel_prefetch_ready"),
    (KERNEL_PREFETCH_ERROR, "kernel_prefetch_error"),
    (KERNEL_CATALOG_UPDATE, "kernel_catalog_update"),
    (EMERGENCY_SIGNAL, "emergency_signal"),
    (BSDS_ISSUED, "bsds_issued"),
    (BSDS_FAILED, "bsds_failed"),
    (BENCHMARK_REPORT, "benchmark_report"),
];

/// The name of a wire number, if it is listed.
#[must_use]
pub fn name(number: u32) -> Option<&'static str> {
    ALL.into_iter()
        .find(|(listed, _)| *listed == number)
        .map(|(_, name)| name)
}

/// The name of a wire number, or its digits if it is not listed.
#[must_use]
pub fn word(number: u32) -> String {
    name(number).map_or_else(|| number.to_string(), str::to_owned)
}

/// The wire number of a name, or of a number in decimal digits.
#[must_use]
pub fn from_name(name: &str) -> Option<u32> {
    let listed = ALL
        .into_iter()
        .find(|(_, listed)| *listed == name)
        .map(|(number, _)| number);
    listed.or_else(|| name.parse().ok())
}
