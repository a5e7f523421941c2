//! The aggregator's process.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};
use nodetap_aggregator::app::App;
use nodetap_aggregator::config::Config;

/// `EX_USAGE`, sysexits.h: the configuration is wrong, and another start will not help.
const USAGE: u8 = 64;

/// Takes what agents send, keeps it, counts it and delivers it
#[derive(Debug, Parser)]
#[command(name = "nodetap-aggregator", version)]
struct Arguments {
    /// Configuration: kubernetes-event-exporter's, with sections of our own
    #[arg(
        long,
        visible_alias = "conf",
        env = "NODETAP_CONFIG",
        value_name = "FILE",
        default_value = "config.yaml"
    )]
    config: PathBuf,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Tells every problem of a configuration, and opens nothing
    Check {
        /// The configuration
        file: PathBuf,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    // kubernetes-event-exporter's flag has one dash.
    let words = std::env::args_os().map(|word| if word == "-conf" { "--conf".into() } else { word });
    let arguments = match Arguments::try_parse_from(words) {
        Ok(arguments) => arguments,
        Err(said) => {
            // Help and version are answers, not errors. Where they cannot be printed, nothing can.
            let _ = said.print();
            let is_answer = matches!(said.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            return if is_answer { ExitCode::SUCCESS } else { ExitCode::from(USAGE) };
        }
    };
    nodetap_runtime::logging::start();
    // Refused only where one is installed already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();

    let checked = |path: &Path| load(path).map_err(|problems| unusable(&problems));
    if let Some(Command::Check { file }) = arguments.command {
        return checked(&file).map_or_else(|code| code, |_| ExitCode::SUCCESS);
    }
    let app = match checked(&arguments.config) {
        Ok(config) => match App::build(config) {
            Ok(app) => app,
            Err(problems) => return unusable(&problems),
        },
        Err(code) => return code,
    };
    let running = match app.start().await {
        Ok(running) => running,
        Err(error) => {
            tracing::error!(%error, "cannot start");
            return ExitCode::FAILURE;
        }
    };
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        agents = %running.agents,
        metrics = %running.metrics,
        journal = %running.path.display(),
        "aggregator is running"
    );
    match running.until_told().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error, "ending");
            ExitCode::FAILURE
        }
    }
}

fn load(path: &Path) -> Result<Config, Vec<nodetap_aggregator::config::Problem>> {
    let (config, warnings) = Config::load(path)?;
    for warning in warnings {
        tracing::warn!(%warning, "configuration");
    }
    config.check_files()?;
    Ok(config)
}

fn unusable(problems: &[impl std::fmt::Display]) -> ExitCode {
    for problem in problems {
        tracing::error!(%problem, "configuration cannot be used");
    }
    ExitCode::from(USAGE)
}
