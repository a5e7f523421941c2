//! A registry as text: OpenMetrics 1.0, or the Prometheus text format 0.0.4 for those who do not ask for it.

use std::fmt::Write;

use prometheus_client::registry::Registry;

/// Content type of [`open_metrics`].
pub const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Content type of [`prometheus`].
pub const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Whether an `Accept` header asks for OpenMetrics.
pub fn wants_open_metrics(accept: &str) -> bool {
    accept.split(',').any(|kind| {
        let mut parts = kind.split(';').map(str::trim);
        parts.next() == Some("application/openmetrics-text") && !parts.any(|part| part == "q=0")
    })
}

/// As OpenMetrics text.
pub fn open_metrics(registry: &Registry) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail; a collector that fails leaves what was written before it.
    if prometheus_client::encoding::text::encode(&mut text, registry).is_err() {
        text.push_str("# EOF\n");
    }
    text
}

/// As Prometheus text: a counter's family carries its samples' name, and what the format does not know is left out.
pub fn prometheus(registry: &Registry) -> String {
    let open = open_metrics(registry);
    let mut text = String::with_capacity(open.len());
    // HELP comes before TYPE, and only TYPE tells how the family's samples are called.
    let mut help = None;
    for line in open.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ');
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap_or((rest, "untyped"));
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                "unknown" => ("", "untyped"),
                kind => ("", kind),
            };
            if let Some((_, help)) = help.take() {
                let _ = writeln!(text, "# HELP {name}{suffix} {help}");
            }
            let _ = writeln!(text, "# TYPE {name}{suffix} {kind}");
        } else if !line.starts_with('#') {
            // An exemplar follows the value behind ` # `; a label's value may hold the same, but then quotes follow it.
            let sample = match line.rsplit_once(" # {") {
                Some((sample, exemplar)) if exemplar.matches('"').count() % 2 == 0 => sample,
                _ => line,
            };
            let _ = writeln!(text, "{sample}");
        }
    }
    text
}

#[cfg(test)]
mod tests;
