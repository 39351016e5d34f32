//! Runs what starts processes, so that whatever ends it ends them too.

use std::future::Future;

use anyhow::{Context, Result, bail};
use tokio::signal::unix::{SignalKind, signal};

/// Runs to the end, or to a signal to end. Either way what was started is dropped: children, and with a gateway's handle its
/// daemon.
pub(crate) fn block_on(work: impl Future<Output = Result<()>>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        tokio::select! {
            result = work => result,
            result = interruption() => result,
        }
    })
}

/// Waits for a signal to end.
async fn interruption() -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot watch for signals")?;
    tokio::select! {
        _ = tokio::signal::ctrl_c() => bail!("interrupted"),
        _ = terminate.recv() => bail!("terminated"),
    }
}
