//! `[budget]` and `[notifications]`: how budgets reserve, and who hears of them.

use jiff::tz::TimeZone;

use super::reader::{Reader, Section, integer, text, texts};

/// `[budget]`
#[derive(Clone, Debug, PartialEq)]
pub struct Budget {
    /// Where days, weeks and months begin.
    pub timezone: TimeZone,
    /// How much of a request is reserved before it is sent.
    pub reserve: Reserve,
    /// Tokens of output that a slice covers; at least 256.
    pub slice_tokens: u64,
    /// What is done with a model whose price is unknown, where a budget of money applies.
    pub unknown_model: UnknownModel,
}

/// How much of a request is reserved before it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reserve {
    /// The input and a slice of output; a stream reserves more as it runs, and is cut where there is no room.
    Rolling,
    /// All that the request may cost; the answer is limited to what the budget affords.
    Strict,
}

/// What is done with a model whose price is unknown, where a budget of money applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnknownModel {
    /// It is refused.
    Deny,
    /// It is reserved at the dearest price of its provider.
    ChargeMax,
    /// It is let through, and counts nothing.
    Allow,
}

/// `[notifications]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notifications {
    /// A budget of which this part is spent is told of, in percent; 0 is never.
    pub budget_warning_percent: u64,
    /// A command that is run with the message as its last argument; empty is none.
    pub command: Vec<String>,
}

pub(super) fn read_budget(reader: &mut Reader<'_>, root: &mut Section<'_>) -> Budget {
    let mut section = reader.section(root, "budget");
    let timezone = reader.value(&mut section, "timezone", |value| {
        let name = text(value)?;
        TimeZone::get(&name).map_err(|_| {
            format!("`{}` is not an IANA time zone such as UTC or Europe/Berlin", name.escape_debug())
        })
    });
    let reserve = reader.value(&mut section, "reserve", |value| match text(value)?.as_str() {
        "rolling" => Ok(Reserve::Rolling),
        "strict" => Ok(Reserve::Strict),
        _ => Err("must be \"rolling\" or \"strict\"".to_owned()),
    });
    let slice = reader.value(&mut section, "slice_tokens", |value| integer(value, 256, 1_000_000));
    let unknown = reader.value(&mut section, "unknown_model", |value| match text(value)?.as_str() {
        "deny" => Ok(UnknownModel::Deny),
        "charge_max" => Ok(UnknownModel::ChargeMax),
        "allow" => Ok(UnknownModel::Allow),
        _ => Err("must be \"deny\", \"charge_max\" or \"allow\"".to_owned()),
    });
    reader.finish(section);
    Budget {
        timezone: timezone.unwrap_or(TimeZone::UTC),
        reserve: reserve.unwrap_or(Reserve::Rolling),
        slice_tokens: u64::try_from(slice.unwrap_or(4_096)).expect("checked to be positive above"),
        unknown_model: unknown.unwrap_or(UnknownModel::Deny),
    }
}

pub(super) fn read_notifications(reader: &mut Reader<'_>, root: &mut Section<'_>) -> Notifications {
    let mut section = reader.section(root, "notifications");
    let percent = reader.value(&mut section, "budget_warning_percent", |value| integer(value, 0, 100));
    let command = reader.value(&mut section, "command", texts);
    reader.finish(section);
    Notifications {
        budget_warning_percent: u64::try_from(percent.unwrap_or(80)).expect("checked to be positive above"),
        command: command.unwrap_or_default(),
    }
}
