//! The agent's process.

use std::io::{BufWriter, Read, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;
use nodetap_agent::app::App;
use nodetap_agent::config::{self, Arguments, Command};
use nodetap_agent::tap::redact::{self, Redactor};

/// `EX_USAGE`, sysexits.h: the settings are wrong, and another start will not help.
const USAGE: u8 = 64;

/// Written at once.
const WRITE: usize = 256 * 1024;

/// One thread is plenty for one watch and one kubelet, and the memory of more adds up over the nodes.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(said) => {
            // Help and version are answers, not errors. Where they cannot be printed, nothing can.
            let _ = said.print();
            let is_answer = matches!(said.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            return if is_answer { ExitCode::SUCCESS } else { ExitCode::from(USAGE) };
        }
    };
    if let Some(Command::Redact { file }) = &arguments.command {
        return match redact_file(file, arguments.redact_patterns.as_deref()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                let _ = writeln!(std::io::stderr(), "nodetap-agent: {error:#}");
                ExitCode::from(USAGE)
            }
        };
    }
    nodetap_runtime::logging::start();
    // Refused only where one is installed already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();

    let config = match arguments.check() {
        Ok(config) => config,
        Err(problems) => return unusable(&problems),
    };
    let node = config.node.clone();
    let app = match App::build(config).await {
        Ok(app) => app,
        Err(problems) => return unusable(&problems),
    };
    let running = match app.start().await {
        Ok(running) => running,
        Err(error) => {
            tracing::error!(%error, "cannot start");
            return ExitCode::FAILURE;
        }
    };
    tracing::info!(version = env!("CARGO_PKG_VERSION"), node, metrics = %running.listen, "agent is running");
    match running.until_told().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error, "ending");
            ExitCode::FAILURE
        }
    }
}

/// The file on standard output as it would leave the node, and what was found on standard error.
fn redact_file(file: &Path, patterns: Option<&Path>) -> anyhow::Result<()> {
    let redactor = Redactor::with(config::named(patterns)?)?;
    let mut input: Box<dyn Read> = if file.as_os_str() == "-" {
        Box::new(std::io::stdin())
    } else {
        let open = std::fs::File::open(file);
        Box::new(open.map_err(|error| anyhow::anyhow!("cannot read {}: {error}", file.display()))?)
    };
    let mut output = BufWriter::with_capacity(WRITE, std::io::stdout().lock());
    let counts = redact::command::redact(&redactor, &mut input, &mut output)?;
    let mut said = std::io::stderr().lock();
    for (kind, times) in &counts {
        writeln!(said, "{} {times}", redactor.name(*kind))?;
    }
    if counts.is_empty() {
        writeln!(said, "nothing to redact")?;
    }
    Ok(())
}

fn unusable(problems: &[impl std::fmt::Display]) -> ExitCode {
    for problem in problems {
        tracing::error!(%problem, "settings cannot be used");
    }
    ExitCode::from(USAGE)
}
