//! What a process takes, as the kernel counts it.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use nix::time::{ClockId, clock_getcpuclockid};
use nix::unistd::Pid;
use tokio::time::Instant;

use crate::launch::Child;

/// What a process had taken at a time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    at: Instant,
    /// User and system, all threads: utime + stime of `/proc/PID/stat`, by the clock that counts it in nanoseconds and not in
    /// hundredths of a second.
    cpu: Duration,
    /// `VmRSS` of `/proc/PID/status`, in bytes.
    pub(crate) rss: u64,
    /// `VmHWM`: the most that it was, in bytes.
    pub(crate) peak: u64,
}

/// What a process took between two times.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Taken {
    pub(crate) cpu: Duration,
    pub(crate) elapsed: Duration,
    /// At the end, in bytes.
    pub(crate) rss: u64,
}

// === impl Sample ===

impl Sample {
    /// # Errors
    /// It has ended.
    pub(crate) fn of(child: &mut Child) -> anyhow::Result<Self> {
        child.check()?;
        Self::of_process(child.id().context("a process that is to be measured has ended")?)
    }

    /// # Errors
    /// It has ended.
    pub(crate) fn of_process(id: u32) -> anyhow::Result<Self> {
        let clock: ClockId = clock_getcpuclockid(Pid::from_raw(i32::try_from(id)?))?;
        let cpu = Duration::from(clock.now()?);
        let path = format!("/proc/{id}/status");
        let status = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        let bytes = |name| kilobytes(&status, name).map(|kb| kb * 1024);
        Ok(Self {
            at: Instant::now(),
            cpu,
            rss: bytes("VmRSS:").with_context(|| format!("{path} names no VmRSS"))?,
            peak: bytes("VmHWM:").with_context(|| format!("{path} names no VmHWM"))?,
        })
    }

    pub(crate) fn since(&self, before: &Self) -> Taken {
        Taken { cpu: self.cpu.saturating_sub(before.cpu), elapsed: self.at - before.at, rss: self.rss }
    }
}

// === impl Taken ===

impl Taken {
    /// Percent of a core.
    pub(crate) fn percent(&self) -> f64 {
        100.0 * self.cpu.as_secs_f64() / self.elapsed.as_secs_f64()
    }
}

fn kilobytes(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

/// This process's resident anonymous memory, in bytes. What of files is mapped is the kernel's to take back.
pub(crate) fn own_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    kilobytes(&status, "RssAnon:").unwrap_or(0) * 1024
}

/// All files of a folder, in bytes.
///
/// # Errors
/// It cannot be read.
pub(crate) fn folder_bytes(folder: &Path) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        // One that is removed meanwhile takes nothing.
        bytes += entry?.metadata().map_or(0, |data| data.len());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_status_is_read_in_kilobytes() {
        let status = "Name:\tagent\nVmHWM:\t   20480 kB\nVmRSS:\t   10240 kB\n";
        assert_eq!(kilobytes(status, "VmRSS:"), Some(10240));
        assert_eq!(kilobytes(status, "VmSwap:"), None);
    }
}
