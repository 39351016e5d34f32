//! What runs, as far as it is: read from what each connection holds, while its request goes on undisturbed.

use policy::NanoUsd;
use storage::LogText;

use super::{REQUESTS_MAX, RunningRequest};
use crate::caller::connection::Connection;
use crate::caller::lifeline::Running;
use crate::request::context::COST_MAX;
use crate::request::quote;
use crate::state::{Shared, Snapshot};

/// The requests in flight that this process answers, the oldest first.
pub(crate) fn requests(shared: &Shared) -> Vec<RunningRequest> {
    let snapshot = shared.snapshot.load();
    let connections = shared.live.all();
    let runs = |connection: &'_ Connection| connection.lifeline.running();
    let mut running: Vec<_> =
        connections.iter().filter_map(|connection| Some((runs(connection)?, connection))).collect();
    running.sort_by_key(|(running, _)| running.id);
    running.truncate(REQUESTS_MAX);
    let watch = shared.watch.load();
    let shown = |model: &str| LogText::model(&watch.clean(model)).to_string();
    running
        .into_iter()
        .map(|(running, connection)| RunningRequest {
            model: running.what.model.as_deref().map(shown),
            ..request(&snapshot, &running, connection)
        })
        .collect()
}

/// All of it but its model, which a caller chose.
fn request(snapshot: &Snapshot, running: &Running, connection: &Connection) -> RunningRequest {
    let (what, progress) = (&running.what, &connection.progress);
    let metered = progress.metered();
    let (usage, basis) = metered.usage_or_estimate(what.input_tokens);
    let asked = what.model.as_deref().filter(|_| !what.names_other_models);
    let cost = match what.is_billed {
        true => quote::cost(&snapshot.prices, &running.provider, &[asked], &usage, None),
        false => Some(NanoUsd::ZERO),
    };
    RunningRequest {
        id: running.id.to_string(),
        agent: running.agent.to_string(),
        capability: running.capability.map(|presented| presented.id.to_string()),
        provider: running.provider.id.to_string(),
        model: None,
        started_at: what.started_at,
        is_streaming: what.is_streaming,
        input_tokens: usage.input_total(),
        output_tokens: usage.output,
        is_estimated: basis != policy::Basis::Reported,
        cost_usd: cost.map(|cost| cost.min(COST_MAX)),
        request_bytes: what.request_bytes,
        response_bytes: progress.response_bytes(),
        is_cut: connection.lifeline.was_cut(),
    }
}
