//! How many files this process may have open. Many systems start a process with 1,024, which is fewer than the
//! connections that the configuration promises; up to the hard limit a process may raise that itself.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What is open beside connections: database, log, listeners, the runtime's own.
const OTHERS: u64 = 256;

/// Raises the limit so that each of `connections` of callers may have one to a provider as well. Where the system does
/// not even allow those of callers, the answer is a note for the owner.
pub(crate) fn allow(connections: usize) -> Option<String> {
    let callers = u64::try_from(connections).unwrap_or(u64::MAX);
    let before = getrlimit(Resource::Nofile);
    let after = raised(&before, callers.saturating_mul(2).saturating_add(OTHERS));
    let is_in_force = after.current == before.current || setrlimit(Resource::Nofile, after).is_ok();
    note(callers, if is_in_force { after.current } else { before.current })
}

/// The limit as it should be: never lower than it is, and no higher than needed or allowed. `None` is no limit.
fn raised(limit: &Rlimit, wanted: u64) -> Rlimit {
    let allowed = limit.maximum.map_or(wanted, |maximum| maximum.min(wanted));
    let current = limit.current.map(|current| current.max(allowed));
    Rlimit { current, maximum: limit.maximum }
}

fn note(callers: u64, limit: Option<u64>) -> Option<String> {
    let needed = callers.saturating_add(OTHERS);
    let limit = limit.filter(|limit| *limit < needed)?;
    Some(format!(
        "{callers} connections need {needed} open files, and the system allows {limit}: raise its limit \
         (`ulimit -Hn`, `LimitNOFILE=`) or lower `limits.connections`"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(current: Option<u64>, maximum: Option<u64>, expected: Option<u64>) {
        let raised = raised(&Rlimit { current, maximum }, 20_256);
        assert_eq!((raised.current, raised.maximum), (expected, maximum));
    }

    #[test]
    fn the_limit_rises_to_what_is_needed_or_allowed_and_never_falls() {
        check(Some(1024), Some(524_288), Some(20_256));
        check(Some(1024), None, Some(20_256));
        check(Some(1024), Some(4096), Some(4096));
        check(Some(65_536), Some(524_288), Some(65_536));
        check(None, None, None);
    }

    #[test]
    fn the_owner_hears_where_connections_would_be_refused() {
        assert_eq!(note(10_000, Some(10_256)), None);
        assert_eq!(note(10_000, None), None);
        let told = note(10_000, Some(4096)).unwrap();
        assert!(told.contains("need 10256 open files") && told.contains("allows 4096"), "{told}");
    }
}
