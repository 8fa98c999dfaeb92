//! The daemon: its parts, wired together in the order in which they need one another.

mod access;
mod certificates;
mod cluster;
mod config;
mod fault;
mod memory;
mod metrics;
mod parts;
mod problems;
mod serving;
mod sockets;
mod teardown;

use std::process::ExitCode;

use hivemind_model::{ApiError, ErrorCode};
use tokio::signal::unix::{SignalKind, signal};
use tracing::info;

pub(crate) use config::{Config, DaemonArgs};

/// Runs the daemon until SIGTERM or SIGINT, or tears down what one has made. Prints why it could not.
pub(crate) fn run(args: DaemonArgs) -> ExitCode {
    memory::set_up();
    let teardown = args.teardown;
    let ended = Config::load(args).and_then(|config| {
        start_logging(&config.log_level)?;
        let inherited = sockets::Inherited::from_environment();
        hivemind_runtime::install_crypto();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .max_blocking_threads(32)
            .thread_name("hivemind")
            .enable_all()
            .build()
            .map_err(|e| ApiError::new(ErrorCode::Internal, format!("threads cannot be started: {e}"), ""))?;
        let done = runtime.block_on(async {
            if teardown { teardown::run(config, inherited).await } else { serve(config, inherited).await }
        });
        runtime.shutdown_timeout(std::time::Duration::from_secs(2));
        done
    });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => crate::cli::fault::report(&error),
    }
}

fn start_logging(level: &str) -> Result<(), ApiError> {
    let filter = tracing_subscriber::EnvFilter::try_new(level).map_err(|error| {
        ApiError::new(
            ErrorCode::InvalidConfig,
            format!("{level:?} is not a log level: {error}"),
            "use error, warn, info, debug or trace",
        )
        .at("--log-level")
    })?;
    let subscriber =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    let _ = subscriber.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).try_init();
    Ok(())
}

async fn serve(config: Config, inherited: sockets::Inherited) -> Result<(), ApiError> {
    let began = std::time::Instant::now();
    let mut terminate = signal(SignalKind::terminate()).map_err(|e| fault::file("a signal handler", &e))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|e| fault::file("a signal handler", &e))?;
    let parts = parts::start(&config, inherited).await?;
    memory::give_back();
    info!(
        socket = %config.socket.display(),
        web = config.web_url(),
        node = config.node_name,
        after_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        "Hivemind is ready"
    );
    let _ = sd_notify::notify(false, &[sd_notify::NotifyState::Ready]);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = parts.ended.cancelled() => {}
        () = memory::keep_small() => {}
    }
    let _ = sd_notify::notify(false, &[sd_notify::NotifyState::Stopping]);
    info!("Stopping; containers and their traffic go on");
    parts.stop().await;
    Ok(())
}
