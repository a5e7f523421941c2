//! The process's own cost, by the names that Prometheus client libraries give it.

use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// Reads `/proc/self` at each scrape.
#[derive(Debug)]
pub struct ProcessCollector {
    ticks_per_second: f64,
    page_bytes: i64,
    boot_seconds: f64,
}

struct Stat {
    cpu_ticks: f64,
    threads: i64,
    start_ticks: f64,
    virtual_bytes: i64,
    resident_pages: i64,
}

// === impl ProcessCollector ===

impl Default for ProcessCollector {
    fn default() -> Self {
        let configured =
            |variable, default: i64| nix::unistd::sysconf(variable).ok().flatten().unwrap_or(default);
        let boot = fs::read_to_string("/proc/stat").ok();
        let boot = boot.as_deref().and_then(|text| text.lines().find_map(|line| line.strip_prefix("btime ")));
        Self {
            ticks_per_second: configured(nix::unistd::SysconfVar::CLK_TCK, 100) as f64,
            page_bytes: configured(nix::unistd::SysconfVar::PAGE_SIZE, 4096),
            boot_seconds: boot.and_then(|seconds| seconds.trim().parse().ok()).unwrap_or(0.0),
        }
    }
}

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let Some(stat) = Stat::read() else {
            return Ok(());
        };
        let mut gauge = |name: &str, help: &str, value: f64| {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
        };
        gauge(
            "process_resident_memory_bytes",
            "Resident memory size in bytes.",
            (stat.resident_pages * self.page_bytes) as f64,
        )?;
        gauge("process_virtual_memory_bytes", "Virtual memory size in bytes.", stat.virtual_bytes as f64)?;
        gauge("process_threads", "Number of OS threads in the process.", stat.threads as f64)?;
        gauge(
            "process_start_time_seconds",
            "Start time of the process since unix epoch in seconds.",
            self.boot_seconds + stat.start_ticks / self.ticks_per_second,
        )?;
        if let Ok(open) = fs::read_dir("/proc/self/fd") {
            gauge("process_open_fds", "Number of open file descriptors.", open.count() as f64)?;
        }
        if let Ok((soft, _)) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE) {
            gauge("process_max_fds", "Maximum number of open file descriptors.", soft as f64)?;
        }
        let cpu = ConstCounter::new(stat.cpu_ticks / self.ticks_per_second);
        let help = "Total user and system CPU time spent in seconds.";
        cpu.encode(encoder.encode_descriptor("process_cpu_seconds", help, None, cpu.metric_type())?)
    }
}

// === impl Stat ===

impl Stat {
    fn read() -> Option<Self> {
        let text = fs::read_to_string("/proc/self/stat").ok()?;
        // The command's name may hold anything; the fields go on behind its closing bracket (proc(5), from field 3).
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        let number = |field: usize| fields.get(field - 3)?.parse::<i64>().ok();
        Some(Self {
            cpu_ticks: (number(14)? + number(15)?) as f64,
            threads: number(20)?,
            start_ticks: number(22)? as f64,
            virtual_bytes: number(23)?,
            resident_pages: number(24)?,
        })
    }
}
