//! Reads a price table from JSON, strictly: whole numbers only, no key twice, none unknown. An error names the key
//! with its path, and the line.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};

use super::table::PriceTable;
use super::{Ladder, Part, Price, Rates, Tier, TokenPrice};

/// An object of which every key is taken by `member`, which says whether it knows it.
trait Members<'de>: Default {
    fn member<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<bool, A::Error>;
    /// Checks the whole.
    fn finish<E: Error>(self) -> Result<Self, E> {
        Ok(self)
    }
}

/// What is read as an object.
struct Object<T>(T);

/// An object whose keys are names.
type Named<T> = Object<HashMap<String, T>>;

impl<'de, T: Members<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(PhantomData)).map(Object)
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Members<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<T, A::Error> {
        let mut object = T::default();
        let mut seen = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            let is_known = object.member(&key, &mut map).map_err(|error| inside(&key, &error))?;
            if !is_known {
                return Err(A::Error::custom(format!("`{key}`: unknown key")));
            }
            if !seen.insert(key.clone()) {
                return Err(A::Error::custom(format!("`{key}`: comes twice")));
            }
        }
        object.finish()
    }
}

/// The same error, with the key in front of the path that it has so far.
fn inside<E: Error>(key: &str, error: &E) -> E {
    let text = error.to_string();
    E::custom(match text.strip_prefix('`') {
        Some(rest) => format!("`{key}.{rest}"),
        None => format!("`{key}`: {text}"),
    })
}

impl<'de, V: Deserialize<'de>> Members<'de> for HashMap<String, V> {
    fn member<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<bool, A::Error> {
        self.insert(key.to_owned(), map.next_value()?);
        Ok(true)
    }
}

impl<'de, V: Deserialize<'de>> Members<'de> for BTreeMap<String, V> {
    fn member<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<bool, A::Error> {
        self.insert(key.to_owned(), map.next_value()?);
        Ok(true)
    }
}

/// Takes the rate that `key` names.
fn rate<'de, A: MapAccess<'de>>(rates: &mut Rates, key: &str, map: &mut A) -> Result<bool, A::Error> {
    let Some(part) = Part::from_name(key) else { return Ok(false) };
    *rates = rates.with(part, TokenPrice::from_nanos_per_mtok(map.next_value()?));
    Ok(true)
}

/// Input and output are what others are derived from.
fn check<E: Error>(rates: &Rates) -> Result<(), E> {
    for part in [Part::Input, Part::Output] {
        if rates.listed(part).is_none() {
            return Err(E::custom(format!("`{part}` is missing")));
        }
    }
    Ok(())
}

impl<'de> Members<'de> for Tier {
    fn member<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<bool, A::Error> {
        if key != "above_input_tokens" {
            return rate(&mut self.rates, key, map);
        }
        self.above_input_tokens = map.next_value()?;
        Ok(true)
    }

    fn finish<E: Error>(self) -> Result<Self, E> {
        if self.above_input_tokens == 0 {
            return Err(E::custom("`above_input_tokens` is missing, or zero"));
        }
        check(&self.rates).map(|()| self)
    }
}

impl<'de> Members<'de> for Ladder {
    fn member<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<bool, A::Error> {
        if key != "tiers" {
            return rate(&mut self.rates, key, map);
        }
        let tiers: Vec<Object<Tier>> = map.next_value()?;
        self.tiers = tiers.into_iter().map(|tier| tier.0).collect();
        Ok(true)
    }

    fn finish<E: Error>(self) -> Result<Self, E> {
        check(&self.rates)?;
        if !self.tiers.is_sorted_by(|a, b| a.above_input_tokens < b.above_input_tokens) {
            return Err(E::custom("`tiers` are not in ascending order"));
        }
        Ok(self)
    }
}

impl<'de> Members<'de> for Price {
    fn member<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<bool, A::Error> {
        match key {
            "max_output_tokens" => self.max_output_tokens = map.next_value()?,
            "max_input_tokens" => self.max_input_tokens = map.next_value()?,
            "service_tiers" => {
                let tiers: Object<BTreeMap<String, Object<Ladder>>> = map.next_value()?;
                self.service_tiers = tiers.0.into_iter().map(|(name, ladder)| (name, ladder.0)).collect();
            }
            _ => return self.ordinary.member(key, map),
        }
        Ok(true)
    }

    fn finish<E: Error>(self) -> Result<Self, E> {
        let ordinary = self.ordinary.finish()?;
        Ok(Self { ordinary, ..self })
    }
}

impl<'de> Members<'de> for PriceTable {
    fn member<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<bool, A::Error> {
        match key {
            "source" => self.source = map.next_value()?,
            "licence" => self.licence = map.next_value()?,
            "version" => self.version = map.next_value()?,
            "date" => self.date = map.next_value()?,
            "aliases" => {
                let aliases: Named<Named<String>> = map.next_value()?;
                self.aliases = aliases.0.into_iter().map(|(name, aliases)| (name, aliases.0)).collect();
            }
            "providers" => {
                let providers: Named<Named<Object<Price>>> = map.next_value()?;
                let prices = |models: HashMap<String, Object<Price>>| {
                    models.into_iter().map(|(name, price)| (name, price.0)).collect()
                };
                self.providers =
                    providers.0.into_iter().map(|(name, models)| (name, prices(models.0))).collect();
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn finish<E: Error>(self) -> Result<Self, E> {
        if self.date.parse::<jiff::civil::Date>().is_err() || self.date.len() != 10 {
            return Err(E::custom("`date` is missing, or is no day such as 2026-11-25"));
        }
        for (provider, aliases) in &self.aliases {
            let models = self.providers.get(provider);
            let is_known = |model: &String| models.is_some_and(|models| models.contains_key(model));
            if let Some((name, _)) = aliases.iter().find(|(_, model)| !is_known(model)) {
                return Err(E::custom(format!("`aliases.{provider}.{name}`: there is no such model")));
            }
        }
        Ok(self)
    }
}

impl<'de> Deserialize<'de> for PriceTable {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Object::deserialize(deserializer).map(|object| object.0)
    }
}
