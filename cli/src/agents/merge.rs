//! Settings are put into a file of somebody else's: what stands there stays, with its comments. A file in which that
//! cannot be promised is left alone, and its owner is told why.

use jsonc_parser::ParseOptions;
use jsonc_parser::cst::{CstInputValue, CstObject, CstRootNode};
use serde_json::{Map, Value};
use toml_edit::{DocumentMut, InlineTable, Item, Table};

use super::files::{Format, Setting};
use super::{CLAUDE_HEADERS, with_others};

/// The text of a file with these settings in it; why not, where that cannot be done faithfully.
pub(crate) fn merged(old: &str, format: Format, settings: &[Setting]) -> Result<String, String> {
    match format {
        Format::Json => json(old, settings),
        Format::Toml => toml(old, settings),
        Format::DotEnv => Ok(dot_env(old, settings)),
        Format::Yaml => yaml(old, settings),
        Format::YamlItems => yaml_items(old, settings),
    }
}

fn json(old: &str, settings: &[Setting]) -> Result<String, String> {
    let old = if old.trim().is_empty() { "{}\n" } else { old };
    let read = |text: &str| {
        let read = jsonc_parser::parse_to_serde_value::<Value>(text, &ParseOptions::default());
        read.map_err(|error| format!("it is not JSON that can be understood: {error}"))
    };
    let mut expected = read(old)?;
    let settings: Vec<Setting> = settings.iter().map(|setting| beside_others(&expected, setting)).collect();
    for setting in &settings {
        insert(&mut expected, &setting.at, &setting.value)?;
    }
    let root = CstRootNode::parse(old, &ParseOptions::default())
        .map_err(|error| format!("it is not JSON that can be understood: {error}"))?;
    let object = root.object_value().ok_or("it holds something other than an object")?;
    for setting in &settings {
        put_json(&object, &setting.at, &setting.value).ok_or_else(|| in_the_way(&setting.at))?;
    }
    let new = root.to_string();
    // Whatever stood there must mean the same as before: a name that stands there twice, for one, does not.
    if read(&new)? == expected { Ok(new) } else { Err("it could not be changed without harm".to_owned()) }
}

/// Of a value that is a list in itself the others' part stays.
fn beside_others(old: &Value, setting: &Setting) -> Setting {
    let at = setting.at.clone();
    if at.last().is_none_or(|name| name != CLAUDE_HEADERS) {
        return Setting { at, value: setting.value.clone() };
    }
    let old = at.iter().try_fold(old, |place, part| place.get(part)).and_then(Value::as_str);
    Setting { value: with_others(setting.value.as_str().unwrap_or_default(), old).into(), at }
}

/// What the document has to mean with the value in its place.
fn insert(document: &mut Value, at: &[String], value: &Value) -> Result<(), String> {
    let mut place = document;
    for part in at {
        let object = place.as_object_mut().ok_or_else(|| in_the_way(at))?;
        place = object.entry(part.as_str()).or_insert_with(|| Value::Object(Map::new()));
    }
    *place = value.clone();
    Ok(())
}

fn in_the_way(at: &[String]) -> String {
    format!("something else stands where `{}` belongs", at.join("."))
}

fn put_json(object: &CstObject, at: &[String], value: &Value) -> Option<()> {
    let (name, rest) = at.split_first()?;
    match object.get(name) {
        Some(property) if rest.is_empty() => property.set_value(input(value)),
        Some(property) => return put_json(&property.object_value()?, rest, value),
        None if rest.is_empty() => drop(object.append(name, input(value))),
        None => return put_json(&object.object_value_or_create(name)?, rest, value),
    }
    Some(())
}

fn input(value: &Value) -> CstInputValue {
    match value {
        Value::Null => CstInputValue::Null,
        Value::Bool(value) => CstInputValue::Bool(*value),
        Value::Number(number) => CstInputValue::Number(number.to_string()),
        Value::String(text) => CstInputValue::String(text.clone()),
        Value::Array(items) => CstInputValue::Array(items.iter().map(input).collect()),
        Value::Object(members) => {
            CstInputValue::Object(members.iter().map(|(name, value)| (name.clone(), input(value))).collect())
        }
    }
}

fn toml(old: &str, settings: &[Setting]) -> Result<String, String> {
    let mut document: DocumentMut =
        old.parse().map_err(|error: toml_edit::TomlError| format!("it is not TOML: {}", error.message()))?;
    for setting in settings {
        let (name, folders) = setting.at.split_last().ok_or("a setting has no name")?;
        let mut table: &mut dyn toml_edit::TableLike = document.as_table_mut();
        for folder in folders {
            let item = table.entry(folder).or_insert_with(|| {
                let mut table = Table::new();
                table.set_implicit(true);
                Item::Table(table)
            });
            table = item.as_table_like_mut().ok_or_else(|| in_the_way(&setting.at))?;
        }
        let mut value = toml_value(&setting.value);
        match table.get_mut(name) {
            None => drop(table.insert(name, Item::Value(value))),
            Some(item) => {
                let old = item.as_value_mut().ok_or_else(|| in_the_way(&setting.at))?;
                // A comment behind it stays.
                *value.decor_mut() = old.decor().clone();
                *old = value;
            }
        }
    }
    Ok(document.to_string())
}

fn toml_value(value: &Value) -> toml_edit::Value {
    match value {
        Value::Bool(value) => (*value).into(),
        Value::Object(members) => {
            let members = members.iter().map(|(name, value)| (name.as_str(), toml_value(value)));
            toml_edit::Value::InlineTable(members.collect::<InlineTable>())
        }
        Value::String(text) => text.as_str().into(),
        Value::Null | Value::Number(_) | Value::Array(_) => value.to_string().into(),
    }
}

fn dot_env(old: &str, settings: &[Setting]) -> String {
    let mut lines: Vec<String> = old.lines().map(str::to_owned).collect();
    for setting in settings {
        let name = setting.at.join("_");
        let line = format!("{name}={}", setting.value.as_str().unwrap_or_default());
        let mut is_set = false;
        for old in lines.iter_mut().filter(|line| assigned(line) == Some(&name)) {
            old.clone_from(&line);
            is_set = true;
        }
        if !is_set {
            lines.push(line);
        }
    }
    lines.join("\n") + "\n"
}

/// The variable that a line of a shell or of a `.env` file sets.
fn assigned(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let line = line.strip_prefix("export ").unwrap_or(line);
    let (name, _) = line.split_once('=')?;
    let name = name.trim();
    let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    is_name.then_some(name)
}

/// Adds members to a mapping in block style. More of YAML is not read here, so what looks like anything else is left
/// alone.
fn yaml(old: &str, settings: &[Setting]) -> Result<String, String> {
    let mut keys = Vec::new();
    for line in top_level(old) {
        let key = line.split_once(':').map(|(key, _)| key.trim());
        let is_key = |key: &str| {
            key.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
                && !key.is_empty()
        };
        match key.filter(|key| is_key(key)) {
            Some(key) => keys.push(key),
            // Items of a list may stand as far left as its name.
            None if line.starts_with("- ") && !keys.is_empty() => {}
            None => return Err("it is not plain block-style YAML".to_owned()),
        }
    }
    let mut text = ended(old);
    for setting in settings {
        let key = setting.at.join(".");
        if keys.contains(&key.as_str()) {
            return Err(format!("it has a `{key}` of its own"));
        }
        match &setting.value {
            Value::Array(items) => {
                text.push_str(&format!("{key}:\n"));
                items.iter().for_each(|item| text.push_str(&format!("  - {item}\n")));
            }
            value => text.push_str(&format!("{key}: {value}\n")),
        }
    }
    Ok(text)
}

/// Adds items to a list in block style.
fn yaml_items(old: &str, settings: &[Setting]) -> Result<String, String> {
    if !top_level(old).all(|line| line.starts_with("- ")) {
        return Err("it is not a plain block-style list".to_owned());
    }
    let mut text = ended(old);
    for setting in settings {
        let members = setting.value.as_object().into_iter().flatten();
        for (index, (name, value)) in members.enumerate() {
            if index == 0 && old.contains(&format!("{name}: {value}")) {
                return Err(format!("it has an item of its own with {name}: {value}"));
            }
            text.push_str(&format!("{} {name}: {value}\n", if index == 0 { "-" } else { " " }));
        }
    }
    Ok(text)
}

/// The lines that begin at the left margin and are no comments.
fn top_level(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with([' ', '\t', '#']))
}

/// The text, with an end to its last line.
fn ended(text: &str) -> String {
    if text.is_empty() || text.ends_with('\n') { text.to_owned() } else { format!("{text}\n") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(at: &str, value: impl Into<Value>) -> Setting {
        Setting { at: at.split('.').map(str::to_owned).collect(), value: value.into() }
    }

    #[track_caller]
    fn check(format: Format, old: &str, settings: &[Setting], expected: &str) {
        assert_eq!(merged(old, format, settings).as_deref(), Ok(expected));
        // Once more changes nothing, where it can be told that it is there.
        if !matches!(format, Format::Yaml | Format::YamlItems) {
            assert_eq!(merged(expected, format, settings).as_deref(), Ok(expected));
        }
    }

    #[track_caller]
    fn check_refused(format: Format, old: &str, settings: &[Setting], reason: &str) {
        let found = merged(old, format, settings).unwrap_err();
        assert!(found.contains(reason), "{found}");
    }

    #[test]
    fn what_stands_in_json_stays_with_its_comments() {
        let token = [set("env.TOKEN", "tfk"), set("env.URL", "http://x")];
        check(
            Format::Json,
            "",
            &token,
            "{\n  \"env\": {\n    \"TOKEN\": \"tfk\",\n    \"URL\": \"http://x\"\n  }\n}\n",
        );
        let old = "{\n    // mine\n    \"a\": [1, 2],   /* odd */\n    \"env\": { \"TOKEN\": \"old\" }, // kept\n}\n";
        let new = merged(old, Format::Json, &token).unwrap();
        for kept in ["    // mine\n", "\"a\": [1, 2],   /* odd */\n", "// kept\n", "\"TOKEN\": \"tfk\""] {
            assert!(new.contains(kept), "{kept}: {new}");
        }
        assert!(!new.contains("\"old\""), "{new}");
    }

    #[test]
    fn headers_of_its_owner_stay_beside_ours() {
        let ours = [set("env.ANTHROPIC_CUSTOM_HEADERS", "X-Tokfence-Capability: tfk_new")];
        let old = "{\"env\": {\"ANTHROPIC_CUSTOM_HEADERS\": \"X-Team: a\\nX-Tokfence-Capability: tfk_old\"}}";
        let new = merged(old, Format::Json, &ours).unwrap();
        assert!(new.contains("\"X-Team: a\\nX-Tokfence-Capability: tfk_new\""), "{new}");
    }

    #[test]
    fn json_that_would_be_harmed_is_left_alone() {
        let token = [set("env.TOKEN", "tfk")];
        check_refused(Format::Json, "{\"env\": \"text\"}", &token, "something else stands where `env.TOKEN`");
        check_refused(Format::Json, "[]", &token, "");
        check_refused(Format::Json, "{\"env\": {", &token, "not JSON");
        check_refused(Format::Json, "no json", &token, "not JSON");
    }

    #[test]
    fn what_stands_in_toml_stays_with_its_comments() {
        let ours = [set("model_provider", "tokfence"), set("model_providers.tokfence.name", "tokfence")];
        check(
            Format::Toml,
            "# mine\nmodel = \"x\" # why\n\n[model_providers.other]\nname = \"o\"\n",
            &ours,
            "# mine\nmodel = \"x\" # why\nmodel_provider = \"tokfence\"\n\n[model_providers.other]\nname = \"o\"\n\n\
             [model_providers.tokfence]\nname = \"tokfence\"\n",
        );
        check(
            Format::Toml,
            "model_provider = \"other\" # why\n",
            &ours,
            "model_provider = \"tokfence\" # why\n\n[model_providers.tokfence]\nname = \"tokfence\"\n",
        );
        check_refused(Format::Toml, "model_providers = 1\n", &ours, "something else stands");
        check_refused(Format::Toml, "[model_provider]\n", &ours, "something else stands");
        check_refused(Format::Toml, "= 1\n", &ours, "not TOML");
    }

    #[test]
    fn a_variable_is_set_in_its_place_or_at_the_end() {
        let ours = [set("KEY", "tfk"), set("URL", "http://x")];
        check(Format::DotEnv, "", &ours, "KEY=tfk\nURL=http://x\n");
        check(
            Format::DotEnv,
            "# KEY=no\nexport KEY='old'\nOTHER=1",
            &ours,
            "# KEY=no\nKEY=tfk\nOTHER=1\nURL=http://x\n",
        );
    }

    #[test]
    fn members_and_items_are_added_to_plain_yaml_only() {
        let ours = [set("set-env", vec!["A=1", "B=2"])];
        check(Format::Yaml, "", &ours, "set-env:\n  - \"A=1\"\n  - \"B=2\"\n");
        check(
            Format::Yaml,
            "# mine\nmodel: x\nread:\n- a\n",
            &ours,
            "# mine\nmodel: x\nread:\n- a\nset-env:\n  - \"A=1\"\n  - \"B=2\"\n",
        );
        for other in ["{model: x}\n", "- a\n", "\"model\": x\n", "--- \nmodel: x\n"] {
            check_refused(Format::Yaml, other, &ours, "not plain");
        }
        check_refused(Format::Yaml, "set-env: []\n", &ours, "of its own");
        let item = [Setting { at: Vec::new(), value: serde_json::json!({ "id": "t/x", "base": "u" }) }];
        check(
            Format::YamlItems,
            "- id: \"y\"\n  base: \"v\"\n",
            &item,
            "- id: \"y\"\n  base: \"v\"\n- id: \"t/x\"\n  base: \"u\"\n",
        );
        check_refused(Format::YamlItems, "- id: \"t/x\"\n", &item, "of its own");
        check_refused(Format::YamlItems, "a: 1\n", &item, "not a plain");
    }
}
