//! `[risk]`: in which state everybody begins, and what is done about each signal.

use policy::{RiskState, Signal, SignalAction, Signals};

use super::reader::{Reader, Section, text};

/// `[risk]`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Risk {
    /// The state in which everybody begins, and below which nobody comes: GREEN or YELLOW.
    pub initial_state: RiskState,
    /// What is done about each signal.
    pub signals: Signals,
}

pub(super) fn read_risk(reader: &mut Reader<'_>, root: &mut Section<'_>) -> Risk {
    let mut section = reader.section(root, "risk");
    let initial_state = reader.value(&mut section, "initial_state", |value| match text(value)?.parse() {
        Ok(state @ (RiskState::Green | RiskState::Yellow)) => Ok(state),
        // What an operator is to lower must not be where everybody begins.
        _ => Err("must be \"GREEN\" or \"YELLOW\"".to_owned()),
    });
    let mut signals = Signals::default();
    let mut table = reader.section(&mut section, "signals");
    for signal in Signal::ALL {
        let action = reader.value(&mut table, signal.as_str(), |value| {
            text(value)?.parse::<SignalAction>().map_err(|error| error.to_string())
        });
        signals = action.map_or(signals, |action| signals.with(signal, action));
    }
    reader.finish(table);
    reader.finish(section);
    Risk { initial_state: initial_state.unwrap_or_default(), signals }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    fn parse(text: &str) -> Result<Risk, Vec<String>> {
        let config = Config::parse(text, Path::new("/nowhere"));
        config.map(|config| config.risk).map_err(|faults| faults.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn each_signal_is_set_by_its_name() {
        assert_eq!(parse(""), Ok(Risk::default()));
        let text = "[risk]\ninitial_state = \"YELLOW\"\n[risk.signals]\nscope_denials = \"off\"\n";
        let signals = Signals::default().with(Signal::ScopeDenials, SignalAction::Off);
        assert_eq!(parse(text), Ok(Risk { initial_state: RiskState::Yellow, signals }));
    }

    #[test]
    fn a_slip_is_told_with_what_is_meant() {
        let faults = |text| parse(text).unwrap_err();
        assert_eq!(
            faults("[risk.signals]\nscope_denial = \"off\"\n"),
            ["line 2: `risk.signals.scope_denial`: unknown key; did you mean `scope_denials`?"]
        );
        assert_eq!(
            faults("[risk.signals]\nkey_echo = \"on\"\n"),
            ["line 2: `risk.signals.key_echo`: must be off, log or enforce"]
        );
        assert_eq!(
            faults("[risk]\ninitial_state = \"RED\"\n"),
            ["line 2: `risk.initial_state`: must be \"GREEN\" or \"YELLOW\""]
        );
    }
}
