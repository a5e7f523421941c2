//! The aggregator's process.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use clap::error::ErrorKind;
use nodetap_aggregator::admin::client::{self, ClientError};
use nodetap_aggregator::app::App;
use nodetap_aggregator::arguments::{Arguments, Command, DeadLetters, Journal};
use nodetap_aggregator::ask;
use nodetap_aggregator::config::{Config, Problem};
use nodetap_aggregator::journal::Position;
use nodetap_aggregator::journal_command;

/// `EX_USAGE`, sysexits.h: the configuration is wrong, and another start will not help.
const USAGE: u8 = 64;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = match Arguments::read(std::env::args_os()) {
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
    match &arguments.command {
        Some(Command::Check { file }) => {
            return checked(file).map_or_else(|code| code, |_| ExitCode::SUCCESS);
        }
        Some(Command::Journal { action }) => return journal(action),
        Some(Command::Status { address, json }) => return status(address, *json).await,
        Some(Command::DeadLetters { action }) => {
            return match checked(&arguments.config) {
                Ok(config) => dead_letters(&config, action).await,
                Err(code) => code,
            };
        }
        Some(Command::Reconcile) => {
            return match checked(&arguments.config) {
                Ok(config) => reconcile(&config).await,
                Err(code) => code,
            };
        }
        None => {}
    }
    if arguments.kubeconfig.is_some() {
        tracing::warn!("--kubeconfig is without effect: the aggregator does not speak to the API server");
    }
    let app = match checked(&arguments.config) {
        Ok(mut config) => {
            config.listen.metrics = arguments.metrics_address.unwrap_or(config.listen.metrics);
            match App::build(config) {
                Ok(app) => app,
                Err(problems) => return unusable(&problems),
            }
        }
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
        history = running.history.map(tracing::field::display),
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

async fn status(address: &str, json: bool) -> ExitCode {
    let said = match ask::status(address).await {
        Ok(status) if json => serde_json::to_string_pretty(&status).unwrap_or_default() + "\n",
        Ok(status) => status.text(),
        Err(error) => {
            tracing::error!(%error, "no status");
            return ExitCode::FAILURE;
        }
    };
    // Where it cannot be printed, as to a pipe that is closed, there is nobody to tell.
    let _ = std::io::stdout().write_all(said.as_bytes());
    ExitCode::SUCCESS
}

async fn reconcile(config: &Config) -> ExitCode {
    let report = client::reconcile(&config.journal.path).await;
    let adds_up = report.as_ref().is_ok_and(|report| report.contains("\n  \"addsUp\": true"));
    match said(report, &mut std::io::stdout()) {
        Ok(()) if adds_up => ExitCode::SUCCESS,
        Ok(()) => ExitCode::FAILURE,
        Err(error) => {
            tracing::error!(%error, "reconcile");
            ExitCode::FAILURE
        }
    }
}

async fn dead_letters(config: &Config, action: &DeadLetters) -> ExitCode {
    let Some(which) = action.which() else {
        tracing::error!("which dead letters? say --sink, --position or --reason, or --all");
        return ExitCode::from(USAGE);
    };
    let folder = &config.journal.path;
    let mut out = std::io::stdout();
    let done = match action {
        DeadLetters::List { json, .. } => client::list(folder, which, *json, &mut out).await,
        DeadLetters::Replay { .. } => said(client::order(folder, "replay", &which).await, &mut out),
        DeadLetters::Drop { .. } => said(client::order(folder, "drop", &which).await, &mut out),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "dead letters");
            ExitCode::FAILURE
        }
    }
}

fn said(answer: Result<String, ClientError>, out: &mut impl Write) -> Result<(), ClientError> {
    Ok(writeln!(out, "{}", answer?)?)
}

fn journal(action: &Journal) -> ExitCode {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let done = match action {
        Journal::Verify { folder } => journal_command::verify(folder, &mut out),
        Journal::Stat { folder } => journal_command::stat(folder, &mut out),
        Journal::Export { folder, cluster, after, positions } => {
            journal_command::export(folder, cluster, Position(*after), *positions, &mut out)
        }
    };
    let done = done.and_then(|()| Ok(std::io::Write::flush(&mut out)?));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = std::io::Write::flush(&mut out);
            tracing::error!(%error, "journal");
            ExitCode::FAILURE
        }
    }
}

fn load(path: &Path) -> Result<Config, Vec<Problem>> {
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
