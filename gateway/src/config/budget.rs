//! `[budget]`: how budgets reserve.

use jiff::tz::TimeZone;

use super::reader::{Reader, Section, integer, text};

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
