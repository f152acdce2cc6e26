//! Parts of the measurement: one Envoy with a listener per variant, a platform with tokens, a client, and a Redis.

pub mod fleet;
pub mod gateway;
pub mod load;
pub mod module;
pub mod platform;

/// Prefixes an error with its subject.
pub fn at<E: std::fmt::Display>(what: impl std::fmt::Display) -> impl FnOnce(E) -> String {
    move |error| format!("{what}: {error}")
}
