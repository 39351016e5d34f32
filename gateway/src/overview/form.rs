//! How amounts and instants are written in documents: dollars as decimal text, instants as RFC 3339 in UTC. Each module is
//! one for serde's `with`.

use policy::{Amount, TimestampUs};
use serde_json::Value;

/// An instant as people and programs read it: RFC 3339, in UTC.
pub fn timestamp(us: TimestampUs) -> String {
    jiff::Timestamp::from_microsecond(us).map_or_else(|_| us.to_string(), |at| format!("{at:.3}"))
}

/// An amount for programs: `{"usd": "1.250000"}` or `{"tokens": 1500}`.
pub fn amount_document(value: Amount) -> Value {
    amount::serialize(&value, serde_json::value::Serializer).unwrap_or_default()
}

pub(super) mod instant {
    use policy::TimestampUs;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(in crate::overview) fn serialize<S: Serializer>(us: &TimestampUs, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&super::timestamp(*us))
    }

    pub(in crate::overview) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<TimestampUs, D::Error> {
        parse(&String::deserialize(from)?)
    }

    pub(super) fn parse<E: Error>(text: &str) -> Result<TimestampUs, E> {
        text.parse::<jiff::Timestamp>().map(jiff::Timestamp::as_microsecond).map_err(E::custom)
    }
}

pub(super) mod maybe_instant {
    use policy::TimestampUs;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(in crate::overview) fn serialize<S: Serializer>(
        us: &Option<TimestampUs>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        us.map(super::timestamp).serialize(to)
    }

    pub(in crate::overview) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<TimestampUs>, D::Error> {
        Option::<String>::deserialize(from)?.map(|text| super::instant::parse(&text)).transpose()
    }
}

pub(super) mod usd {
    use policy::NanoUsd;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(in crate::overview) fn serialize<S: Serializer>(amount: &NanoUsd, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(amount)
    }

    pub(in crate::overview) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<NanoUsd, D::Error> {
        parse(&String::deserialize(from)?)
    }

    pub(super) fn parse<E: Error>(text: &str) -> Result<NanoUsd, E> {
        NanoUsd::from_decimal(text, 0).map_err(E::custom)
    }
}

pub(super) mod maybe_usd {
    use policy::NanoUsd;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(in crate::overview) fn serialize<S: Serializer>(
        amount: &Option<NanoUsd>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        amount.map(|amount| amount.to_string()).serialize(to)
    }

    pub(in crate::overview) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<NanoUsd>, D::Error> {
        Option::<String>::deserialize(from)?.map(|text| super::usd::parse(&text)).transpose()
    }
}

pub(super) mod amount {
    use policy::{Amount, NanoUsd, Unit};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Deserialize, Serialize)]
    #[serde(rename_all = "snake_case")]
    enum Form {
        Usd(#[serde(with = "super::usd")] NanoUsd),
        Tokens(i64),
    }

    pub(in crate::overview) fn serialize<S: Serializer>(amount: &Amount, to: S) -> Result<S::Ok, S::Error> {
        let form = match amount.unit {
            Unit::NanoUsd => Form::Usd(NanoUsd::from_nanos(amount.number)),
            Unit::Tokens => Form::Tokens(amount.number),
        };
        form.serialize(to)
    }

    pub(in crate::overview) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Amount, D::Error> {
        Ok(match Form::deserialize(from)? {
            Form::Usd(amount) => Unit::NanoUsd.of(amount.nanos()),
            Form::Tokens(number) => Unit::Tokens.of(number),
        })
    }
}

#[cfg(test)]
mod tests {
    use policy::{NanoUsd, Unit};
    use serde::{Deserialize, Serialize};

    use super::*;

    #[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
    struct All {
        #[serde(with = "instant")]
        at: TimestampUs,
        #[serde(with = "maybe_instant")]
        never: Option<TimestampUs>,
        #[serde(with = "usd")]
        debt: NanoUsd,
        #[serde(with = "maybe_usd")]
        unknown: Option<NanoUsd>,
        #[serde(with = "amount")]
        limit: Amount,
        #[serde(with = "amount")]
        tokens: Amount,
    }

    #[test]
    fn what_is_written_is_what_is_read_again() {
        let all = All {
            at: 1_764_000_000_123_000,
            never: None,
            debt: NanoUsd::from_nanos(-1_500_000_001),
            unknown: None,
            limit: Unit::NanoUsd.of(10_000_000_000),
            tokens: Unit::Tokens.of(2_000_000),
        };
        let text = serde_json::to_string(&all).unwrap();
        let expected = r#"{"at":"2025-11-24T16:00:00.123Z","never":null,"debt":"-1.500000001","unknown":null,"limit":{"usd":"10.000000"},"tokens":{"tokens":2000000}}"#;
        assert_eq!(text, expected);
        assert_eq!(serde_json::from_str::<All>(&text).unwrap(), all);
        let some = All { never: Some(0), unknown: Some(NanoUsd::ZERO), ..all };
        assert_eq!(serde_json::from_str::<All>(&serde_json::to_string(&some).unwrap()).unwrap(), some);
    }

    #[test]
    fn what_is_no_amount_and_no_instant_is_not_read() {
        for text in [r#"{"usd":"a lot"}"#, r#"{"usd":1.5}"#, r#"{"euros":"1"}"#, r#"{"tokens":"1"}"#, "1"] {
            let mut read = serde_json::Deserializer::from_str(text);
            assert!(amount::deserialize(&mut read).is_err(), "{text}");
        }
        assert!(instant::deserialize(&mut serde_json::Deserializer::from_str("\"yesterday\"")).is_err());
    }
}
