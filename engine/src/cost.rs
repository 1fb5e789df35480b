//! Names under which measured costs are kept, so that who measures and who plans agree.

use std::sync::OnceLock;

/// Seconds to load a model from the store and its dataset; subject: [`model_subject`]. Measured by the first RERUN.
pub const LOAD: &str = "load";
/// Seconds to make a network ready from weights in memory; subject: [`model_subject`]. Measured by logging.
pub const PREPARE: &str = "prepare";
/// Seconds a row to run a model from the input to a layer; subject: [`layer_subject`].
pub const FORWARD: &str = "forward";
/// Seconds a value to read and decode; subject: the scheme.
pub const READ: &str = "read";
/// Seconds that a read takes before its first value; subject: the scheme.
pub const READ_START: &str = "read-start";

/// Subject of costs of a model on a device.
pub fn model_subject(description: &str, device: &str) -> String {
    format!("{}@{device}", crate::model::hex(&crate::model::fingerprint(description.as_bytes())))
}

/// Subject of costs of a layer on a device.
pub fn layer_subject(description: &str, device: &str, layer: &str) -> String {
    format!("{}/{layer}", model_subject(description, device))
}

/// What figures are kept apart by: processor and number of cores of this machine.
pub fn machine() -> &'static str {
    static MACHINE: OnceLock<String> = OnceLock::new();
    MACHINE.get_or_init(|| {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let line = |name: &str| {
            info.lines().find(|l| l.starts_with(name)).and_then(|l| l.split(": ").nth(1)).unwrap_or("?").to_string()
        };
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        format!("{} {} {} {cores} cores", host.trim(), line("model name"), line("model\t"))
    })
}
