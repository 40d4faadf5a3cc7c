use super::typed::Read;
pub(super) fn config(_: &Read<'_>) -> crate::bus::BusConfig {
    crate::bus::BusConfig::default()
}
