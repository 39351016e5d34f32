//! `[watch.NAME]`: which part of a provider's account is ours, for `tokfence watch`.

use std::collections::HashMap;

use policy::{ModelGlob, ProviderId};

use super::reader::{Reader, Section, texts};

/// `[watch.NAME]`. Where both lists of ids are empty, the whole account is compared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WatchScope {
    /// Keys whose use is compared, by the ids that the provider has for them. They are no secrets.
    pub api_key_ids: Vec<String>,
    /// Projects, or workspaces, whose use is compared.
    pub project_ids: Vec<String>,
    /// Models that may be reported though nobody asked for them under that name.
    pub models: Vec<ModelGlob>,
}

const ID_BYTES_MAX: usize = 200;

pub(super) fn read(reader: &mut Reader<'_>, root: &mut Section<'_>) -> HashMap<ProviderId, WatchScope> {
    let mut section = reader.section(root, "watch");
    let mut scopes = HashMap::new();
    for name in section.keys() {
        let Ok(id) = name.parse::<ProviderId>() else { continue };
        let mut table = reader.section(&mut section, name);
        let ids = |value: &toml_edit::Value| {
            let ids = texts(value)?;
            let is_id = |id: &String| {
                (1..=ID_BYTES_MAX).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic())
            };
            if ids.iter().all(is_id) { Ok(ids) } else { Err("must be a list of ids".to_owned()) }
        };
        let globs = |value: &toml_edit::Value| {
            let globs = texts(value)?.into_iter().map(|glob| glob.parse::<ModelGlob>());
            globs.collect::<Result<Vec<_>, _>>().map_err(|error| error.to_string())
        };
        let scope = WatchScope {
            api_key_ids: reader.value(&mut table, "api_key_ids", ids).unwrap_or_default(),
            project_ids: reader.value(&mut table, "project_ids", ids).unwrap_or_default(),
            models: reader.value(&mut table, "models", globs).unwrap_or_default(),
        };
        reader.finish(table);
        scopes.insert(id, scope);
    }
    reader.finish(section);
    scopes
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::Config;

    #[test]
    fn a_scope_is_read_for_each_provider() {
        let text = "[watch.openai]\napi_key_ids = [\"key_1\"]\nmodels = [\"gpt-4-*\"]\n";
        let config = Config::parse(text, Path::new("/nowhere")).unwrap();
        let scope = &config.watch[&"openai".parse().unwrap()];
        assert_eq!(
            (scope.api_key_ids.as_slice(), scope.project_ids.len()),
            (["key_1".to_owned()].as_slice(), 0)
        );
        assert!(scope.models[0].matches("gpt-4-turbo"));
        assert!(Config::parse("", Path::new("/nowhere")).unwrap().watch.is_empty());
    }

    #[test]
    fn what_cannot_be_meant_is_a_fault() {
        for text in [
            "[watch]\ninterval = \"15m\"\n",
            "[watch.openai]\napi_keys = [\"key_1\"]\n",
            "[watch.openai]\napi_key_ids = [\"\"]\n",
            "[watch.openai]\napi_key_ids = [\"a b\"]\n",
            "[watch.openai]\nmodels = \"gpt-4o\"\n",
            "[watch.OpenAI]\nmodels = []\n",
        ] {
            assert!(Config::parse(text, Path::new("/nowhere")).is_err(), "{text}");
        }
    }
}
