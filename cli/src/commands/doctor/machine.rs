//! What surrounds the home: the daemon, the port, the clock, the keyring, the shell, the network.

use std::ffi::OsString;
use std::net::TcpListener;
use std::path::Path;

use gateway::catalogue::AuthStyle;
use gateway::control::DaemonStatus;
use policy::TimestampUs;
use vault::SlotKind;

use super::files::{has_slot, is_down};
use super::{Check, Findings};
use crate::app::{App, now_us};
use crate::commands::provider::{each_once, reach, upstream};
use crate::commands::scan::InFiles;
use crate::commands::vault::is_key_variable;
use crate::failure::{Exit, Failure};
use crate::format::local_time;

/// Where systems keep the certificates they trust, as one file.
pub(super) const CERTIFICATES: [&str; 7] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/ssl/cert.pem",
    "/usr/local/share/certs/ca-root-nss.crt",
];

pub(super) fn daemon(findings: &Findings) -> Check {
    match &findings.daemon {
        Ok(status) => judge(status),
        Err(failure) if is_down(failure) => {
            Check::warn("daemon", "not running").with_hint("tokfence start -d")
        }
        Err(failure) => Check::fail("daemon", failure.message.clone()).with_hint("tokfence restart"),
    }
}

fn judge(status: &DaemonStatus) -> Check {
    if status.log != "ok" {
        return Check::fail("daemon", format!("requests do not reach the log: {}", status.log))
            .with_hint("see to the database; requests are refused while this lasts");
    }
    if status.is_locked {
        return Check::warn("daemon", "running, but the vault is locked").with_hint("tokfence unlock");
    }
    if status.state == "killed" {
        return Check::warn("daemon", "running, but the kill switch is on").with_hint("tokfence unkill");
    }
    let ours = env!("CARGO_PKG_VERSION");
    if status.version != ours {
        let message = format!("running version {}, while this program is {ours}", status.version);
        return Check::warn("daemon", message).with_hint("tokfence restart");
    }
    Check::ok("daemon", format!("process {} serves http://{}", status.pid, status.address))
}

/// Whether a daemon could have its port. Asked by taking it for a moment, so only while none runs.
pub(super) fn port(findings: &Findings) -> Check {
    if let Ok(status) = &findings.daemon {
        return Check::ok("port", format!("{} is the daemon's", status.address));
    }
    let listen = findings.config.daemon.listen;
    if listen.port() == 0 {
        return Check::ok("port", "the system chooses it");
    }
    match TcpListener::bind(listen) {
        Ok(_) => Check::ok("port", format!("{listen} is free")),
        Err(error) => Check::fail("port", format!("{listen} cannot be had: {error}"))
            .with_hint("stop what has it (lsof -i), or set another `daemon.port`"),
    }
}

/// Having no keyring is ordinary; needing one that is not there is not.
pub(super) fn keyring(app: &App) -> Check {
    match vault::keyring_status() {
        Ok(()) => Check::ok("keyring", "the system's keyring answers"),
        Err(error) if has_slot(app, SlotKind::Keyring) && !has_slot(app, SlotKind::Passphrase) => {
            Check::fail("keyring", format!("it opens the vault, but {error}"))
                .with_hint("log in to a desktop session, or open the vault with its recovery code")
        }
        Err(error) => Check::ok("keyring", format!("not used: {error}")),
    }
}

/// How much the clock may lag behind what was seen before it is told of.
const CLOCK_LAG_US: TimestampUs = 60_000_000;

/// The program is not older than the price list in it, so an earlier date means a wrong clock. So does an instant in
/// the database that is still to come; budgets and lifetimes go by that one.
pub(super) fn clock(built_after: &str, now_us: TimestampUs, seen: Option<TimestampUs>) -> Check {
    let now = jiff::Timestamp::from_microsecond(now_us).map(|now| now.strftime("%Y-%m-%d").to_string());
    let now = now.unwrap_or_default();
    if now.as_str() < built_after {
        return Check::fail("clock", format!("it says {now}, before this program was built"))
            .with_hint("set the clock; capabilities expire and budgets renew by it");
    }
    match seen.filter(|seen| *seen > now_us + CLOCK_LAG_US) {
        None => Check::ok("clock", format!("{now}, UTC")),
        Some(seen) => {
            let message = format!("it was once at {}; budgets and lifetimes go by that", local_time(seen));
            Check::warn("clock", message)
                .with_hint("if it is right now: tokfence stop, then tokfence doctor --accept-clock")
        }
    }
}

/// Takes the clock for right. A running daemon goes by what it has seen, so there must be none.
pub(super) fn accept_clock(app: &App) -> Result<(), Failure> {
    match app.daemon_status() {
        Err(failure) if failure.exit == Exit::NotRunning => {}
        Ok(_) | Err(_) => {
            let failure = Failure::new(Exit::Failed, "running", "the daemon goes by the clock it has seen");
            return Err(failure.with_hint("tokfence stop"));
        }
    }
    app.store()?.accept_clock(now_us())?;
    app.output.note("the clock is taken for right");
    Ok(())
}

/// Keys that an agent started from this shell would read past the gateway. Only names are told.
pub(super) fn environment(
    findings: &Findings,
    variables: impl Iterator<Item = (OsString, OsString)>,
) -> Check {
    let providers = each_once(&findings.config);
    // A login that its agent is to use is nothing to be warned of.
    let providers: Vec<_> =
        providers.iter().filter(|provider| provider.auth != AuthStyle::Passthrough).collect();
    let is_key = |name: &str| {
        let may_hold = |unset: &[String]| unset.iter().any(|other| other == name);
        providers.iter().any(|known| is_key_variable(known, name) || may_hold(&known.unset))
    };
    let mut names: Vec<String> = variables
        .filter(|(_, value)| !value.is_empty() && !value.as_encoded_bytes().starts_with(b"tfk_"))
        .filter_map(|(name, _)| name.into_string().ok())
        .filter(|name| is_key(name))
        .collect();
    names.sort();
    if names.is_empty() {
        return Check::ok("environment", "no provider's key is set in this shell");
    }
    Check::warn("environment", format!("keys are set in this shell: {}", names.join(", "))).with_hint(
        format!(
            "tokfence vault add PROVIDER, remove them where they are set, then: unset {}",
            names.join(" ")
        ),
    )
}

/// Keys that lie in the files of shells and agents, where whatever runs as this user reads them. Only places are told.
pub(super) fn keys(findings: &Findings) -> Check {
    match InFiles::find(&findings.config) {
        Ok(found) if found.count() == 0 => Check::ok("keys", "none lies in the files of shells and agents"),
        Ok(found) => {
            let message = format!("{} in plain text: {}", found.count(), found.places());
            Check::warn("keys", message).with_hint("tokfence scan, then: tokfence scan --fix")
        }
        Err(failure) => Check::failure("keys", failure),
    }
}

pub(super) fn certificates(candidates: &[&str]) -> Check {
    if cfg!(target_os = "macos") {
        return Check::ok("certificates", "those of the keychain");
    }
    let count = |path: &&str| {
        let text = std::fs::read(Path::new(path)).unwrap_or_default();
        let marker = b"-----BEGIN CERTIFICATE-----";
        text.windows(marker.len()).filter(|window| window == marker).count()
    };
    match candidates.iter().map(|path| (path, count(path))).find(|(_, count)| *count > 0) {
        Some((path, count)) => Check::ok("certificates", format!("{count} in {path}")),
        None => {
            Check::fail("certificates", "this machine trusts no authority, so no provider can be reached")
                .with_hint("install the package ca-certificates")
        }
    }
}

/// Connects to each provider that has a key or gets the caller's own login, all at once.
pub(super) fn online(findings: &Findings) -> Vec<Check> {
    let Ok(status) = findings.daemon.as_ref() else {
        let message = "not checked: which providers have a key is known while the gateway runs";
        return vec![Check::ok("online", message)];
    };
    let mut names = status.providers.iter().chain(&status.passthrough).peekable();
    if names.peek().is_none() {
        return vec![Check::ok("online", "not checked: no key is loaded")];
    }
    let providers = names.filter_map(|name| findings.config.provider(name));
    std::thread::scope(|scope| {
        let running: Vec<_> = providers.map(|provider| (provider, scope.spawn(|| reach(provider)))).collect();
        let checks = running.into_iter().map(|(provider, thread)| {
            let reached = thread.join().unwrap_or_else(|_| Err("the check itself failed".to_owned()));
            match reached {
                Ok(reached) => {
                    Check::ok("online", format!("{} is reached at {}", provider.id, reached.address))
                }
                Err(why) => Check::fail("online", format!("{} ({}): {why}", provider.id, upstream(provider)))
                    .with_hint(format!("check the network, then: tokfence provider test {}", provider.id)),
            }
        });
        checks.collect()
    })
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::super::tests::Place;
    use super::*;
    use crate::failure::{Exit, Failure};
    use gateway::config::Config;

    fn status() -> DaemonStatus {
        DaemonStatus {
            predecessor: None,
            pid: 7,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            address: "127.0.0.1:9471".to_owned(),
            socket: "/nowhere/tokfence.sock".to_owned(),
            metrics: None,
            state: "ok".to_owned(),
            is_locked: false,
            killed: None,
            revoked_providers: Vec::new(),
            budget_warnings: 0,
            risks: Vec::new(),
            risk_signals: std::collections::BTreeMap::new(),
            started_at_us: 0,
            in_flight: 0,
            providers: Vec::new(),
            passthrough: Vec::new(),
            log: "ok".to_owned(),
        }
    }

    #[track_caller]
    fn check_status(status: DaemonStatus, verdict: Verdict, hint: Option<&str>) {
        let check = judge(&status);
        assert_eq!((check.verdict, check.hint.as_deref()), (verdict, hint), "{}", check.message);
    }

    #[test]
    fn a_daemon_is_judged_by_what_it_says() {
        check_status(status(), Verdict::Ok, None);
        let locked = DaemonStatus { state: "locked".to_owned(), is_locked: true, ..status() };
        check_status(locked, Verdict::Warn, Some("tokfence unlock"));
        let killed = DaemonStatus { state: "killed".to_owned(), ..status() };
        check_status(killed, Verdict::Warn, Some("tokfence unkill"));
        let other = DaemonStatus { version: "0.0.0".to_owned(), ..status() };
        check_status(other, Verdict::Warn, Some("tokfence restart"));
        let failing = DaemonStatus { log: "the disk is full".to_owned(), ..status() };
        assert_eq!(judge(&failing).verdict, Verdict::Fail);
    }

    #[test]
    fn a_daemon_that_is_down_or_deaf_is_told_apart() {
        let place = Place::new();
        assert_eq!(daemon(&place.findings()).verdict, Verdict::Warn);
        let deaf = Err(Failure::new(Exit::Failed, "control", "the daemon does not answer"));
        assert_eq!(daemon(&Findings { daemon: deaf, ..place.findings() }).verdict, Verdict::Fail);
    }

    #[test]
    fn a_taken_port_is_found_unless_the_daemon_has_it() {
        let place = Place::new();
        assert_eq!(port(&place.findings()).verdict, Verdict::Ok);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let text = format!("[daemon]\nport = {}\n", listener.local_addr().unwrap().port());
        let config = Config::parse(&text, place.app.home.dir()).unwrap();
        let down = Findings { config: config.clone(), ..place.findings() };
        assert_eq!(port(&down).verdict, Verdict::Fail);
        assert_eq!(port(&Findings { config, daemon: Ok(status()) }).verdict, Verdict::Ok);
    }

    #[test]
    fn a_clock_before_the_program_is_wrong() {
        let at = |text: &str| text.parse::<jiff::Timestamp>().unwrap().as_microsecond();
        let check = |now, seen, verdict| assert_eq!(clock("2026-11-25", now, seen).verdict, verdict);
        let now = at("2026-11-25T00:00:00Z");
        check(now, None, Verdict::Ok);
        check(at("2026-11-24T23:59:59Z"), None, Verdict::Fail);
        check(0, None, Verdict::Fail);
        check(now, Some(now - 1), Verdict::Ok);
        check(now, Some(at("2026-11-26T00:00:00Z")), Verdict::Warn);
    }

    #[test]
    fn keys_in_the_shell_are_named_and_never_shown() {
        let place = Place::new();
        let shell = |pairs: &[(&str, &str)]| {
            let pairs: Vec<(OsString, OsString)> =
                pairs.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))).collect();
            environment(&place.findings(), pairs.into_iter())
        };
        let harmless = [
            ("OPENAI_API_KEY", "tfk_abc"),
            ("ANTHROPIC_API_KEY", ""),
            ("OPENAI_BASE_URL", "http://127.0.0.1:9471/openai/v1"),
            ("PATH", "/bin"),
        ];
        assert_eq!(shell(&harmless).verdict, Verdict::Ok);
        let found = shell(&[("OPENAI_API_KEY", "sk-SENTINEL"), ("ANTHROPIC_AUTH_TOKEN", "sk-SENTINEL")]);
        assert_eq!(found.message, "keys are set in this shell: ANTHROPIC_AUTH_TOKEN, OPENAI_API_KEY");
        assert!(!format!("{found:?}").contains("SENTINEL"));
    }

    #[test]
    fn a_login_that_is_passed_through_may_be_in_the_shell() {
        let place = Place::new();
        let text = "[providers.anthropic]\nauth = \"passthrough\"\n";
        let config = Config::parse(text, place.app.home.dir()).unwrap();
        let findings = Findings { config, ..place.findings() };
        let found = |name: &str| environment(&findings, [(name.into(), "sk-x".into())].into_iter()).verdict;
        assert_eq!(found("CLAUDE_CODE_OAUTH_TOKEN"), Verdict::Ok);
        assert_eq!(found("OPENAI_API_KEY"), Verdict::Warn);
    }

    #[test]
    #[cfg(not(target_os = "macos"))]
    fn certificates_are_counted_in_the_first_file_that_has_some() {
        let folder = tempfile::tempdir().unwrap();
        let (empty, full) = (folder.path().join("empty"), folder.path().join("full"));
        std::fs::write(&empty, "").unwrap();
        std::fs::write(&full, "-----BEGIN CERTIFICATE-----\nAA\n-----END CERTIFICATE-----\n".repeat(2))
            .unwrap();
        let (empty, full) = (empty.to_str().unwrap(), full.to_str().unwrap());
        assert_eq!(certificates(&["/nowhere", empty]).verdict, Verdict::Fail);
        assert_eq!(certificates(&["/nowhere", empty, full]).message, format!("2 in {full}"));
    }

    #[test]
    fn providers_with_a_key_are_reached() {
        let place = Place::new();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let text = format!("[providers.mine]\nupstream = \"http://{address}\"\nlocal = true\n");
        let config = Config::parse(&text, place.app.home.dir()).unwrap();
        let daemon = Ok(DaemonStatus { providers: vec!["mine".to_owned()], ..status() });
        let findings = Findings { config, daemon };
        assert_eq!(online(&findings)[0], Check::ok("online", format!("mine is reached at {address}")));
        drop(listener);
        assert_eq!(online(&findings)[0].verdict, Verdict::Fail);
    }
}
