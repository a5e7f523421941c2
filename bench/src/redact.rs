//! How fast redaction is: `nodetap-agent redact` over a log of realistic lines, reading and writing included, by the CPU time of its
//! process.
//!
//! One line in a hundred holds a secret, one in ten speaks of tokens, passwords or keys and holds none, three in ten have a URL.

use std::io::{BufWriter, Write as _};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use nix::sys::resource::{UsageWho, getrusage};

use crate::{Random, say};

/// What is measured.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// Size of the log, in MB.
    #[arg(long, default_value_t = 400)]
    pub megabytes: usize,
    /// Where nodetap-agent is; without: beside this program.
    #[arg(long, value_name = "FOLDER")]
    pub binaries: Option<PathBuf>,
    /// Decides every line.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// Megabytes a second on one core, at least.
const BAR: f64 = 200.0;

/// Runs of which the best counts: what else the machine does is no part of it.
const RUNS: usize = 3;

/// Writes the log, runs the agent's command on it, and tells the figure.
///
/// # Errors
/// Where the log cannot be written or the agent cannot be run.
pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let folder = tempfile::tempdir().context("no folder for the log")?;
    let path = folder.path().join("0.log");
    let random = Random::new(arguments.seed);
    let (mut bytes, mut lines, mut secrets) = (0, 0_usize, 0_usize);
    let mut log = BufWriter::new(std::fs::File::create(&path)?);
    while bytes < arguments.megabytes * 1_000_000 {
        let (line, secret) = line(&random, lines);
        log.write_all(line.as_bytes())?;
        bytes += line.len();
        lines += 1;
        secrets += usize::from(secret);
    }
    log.flush()?;
    drop(log);
    let program = match &arguments.binaries {
        Some(folder) => folder.join("nodetap-agent"),
        None => std::env::current_exe()?.with_file_name("nodetap-agent"),
    };
    let mut best = Duration::MAX;
    let mut told = String::new();
    for _ in 0..RUNS {
        let before = cpu()?;
        let ended = Command::new(&program)
            .arg("redact")
            .arg(&path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .output()
            .with_context(|| format!("cannot run {}: build it first", program.display()))?;
        anyhow::ensure!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
        best = best.min(cpu()?.saturating_sub(before));
        told = String::from_utf8_lossy(&ended.stderr).into_owned();
    }
    let found: usize = told.lines().filter_map(|line| line.rsplit_once(' ')?.1.parse::<usize>().ok()).sum();
    say(&format!("{lines} lines, {bytes} bytes, {secrets} with a secret; redacted {found}"));
    #[allow(clippy::cast_precision_loss, reason = "far below 2^53")]
    let rate = bytes as f64 / 1e6 / best.as_secs_f64().max(1e-9);
    let good = rate >= BAR && found == secrets;
    say(&format!("figure redact-rate {rate:.0} MB/s bar {BAR} {}", if good { "ok" } else { "short" }));
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// User and system time of the children that have ended.
fn cpu() -> anyhow::Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let time = |time: nix::sys::time::TimeVal| {
        Duration::from_micros((time.tv_sec() * 1_000_000 + time.tv_usec()).unsigned_abs())
    };
    Ok(time(usage.user_time()) + time(usage.system_time()))
}

/// A line, and whether it holds a secret.
fn line(random: &Random, number: usize) -> (String, bool) {
    let at = format!(
        "2026-11-22T10:{:02}:{:02}.{:09}Z",
        number / 60 % 60,
        number % 60,
        random.below(1_000_000_000)
    );
    let (a, b) = (random.next(), random.next());
    let stream = if random.chance(20) { "stderr" } else { "stdout" };
    let kind = random.below(100);
    let text = match kind {
        0 => format!("connecting to postgres://shop:p{a:x}@db.shop.svc:5432/shop?sslmode=require"),
        1..=5 => format!("token refreshed for user {} in {} ms", a % 9999, b % 90),
        6..=10 => format!("secret default/web-tls not found, requeue after {}s", b % 300),
        11..=40 => format!(
            "10.0.{}.{} - - \"GET https://shop.example.net/api/v1/cart/{a:x}?page={} HTTP/1.1\" 200 {} \"-\" \"Mozilla/5.0\"",
            a % 255,
            b % 255,
            b % 40,
            a % 90_000
        ),
        41..=60 => format!(
            "{{\"level\":\"info\",\"ts\":\"{at}\",\"caller\":\"main.go:{}\",\"msg\":\"order placed\",\"order\":\"{a:016x}{b:016x}\",\"ms\":{}}}",
            b % 900,
            a % 400
        ),
        61..=75 => format!(
            "\tat com.example.shop.cart.CartService.lambda$add${}(CartService.java:{})",
            a % 9,
            b % 900
        ),
        76..=90 => format!(
            "I1122 10:00:00.{:06}       1 reconciler.go:{}] \"Reconciled\" pod=\"shop/web-{a:x}\" duration=\"{}ms\"",
            b % 1_000_000,
            a % 900,
            b % 99
        ),
        _ => format!(
            "worker {} finished batch {a:016x}: {} rows, {} skipped, image sha256:{a:016x}{b:016x}{a:016x}{b:016x}",
            a % 16,
            b % 10_000,
            a % 7
        ),
    };
    (format!("{at} {stream} F {text}\n"), kind == 0)
}
