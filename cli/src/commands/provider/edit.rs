//! Edits of `config.toml` that keep its comments, and that happen whole or not at all.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use gateway::catalogue::Provider;
use gateway::config::{Config, ConfigError};
use policy::ProviderId;
use toml_edit::{DocumentMut, Item, Table, Value};

use crate::app::App;
use crate::failure::Failure;

/// What is written for a provider. What is `None` stays as it was.
#[derive(Debug)]
pub(super) struct Override {
    pub(super) url: String,
    pub(super) wire: Option<String>,
    pub(super) auth: Option<String>,
    pub(super) is_local: bool,
}

/// Changes the configuration file and answers what it means now. A result that would not be valid is not written.
pub(super) fn edit(app: &App, change: impl FnOnce(&mut DocumentMut)) -> Result<Config, Failure> {
    if app.config_path == app.home.config() {
        app.home.prepare()?;
    }
    edit_file(&app.config_path, app.home.dir(), change)
}

fn edit_file(path: &Path, home: &Path, change: impl FnOnce(&mut DocumentMut)) -> Result<Config, Failure> {
    let failed = |error: io::Error| Failure::failed(&format!("change {}", path.display()), &error);
    // A link is followed, so that a configuration kept elsewhere stays there.
    let target = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let folder = folder(&target);
    // Two edits at once would lose one of them.
    let lock = File::open(&folder).map_err(failed)?;
    lock.lock().map_err(failed)?;
    let mut document = read(&target)?;
    change(&mut document);
    let text = document.to_string();
    let config = Config::parse(&text, home).map_err(|faults| {
        let failure = Failure::from(ConfigError::Faults { path: path.to_owned(), faults });
        let message = format!("nothing was changed, because {}", failure.message);
        Failure { message, hint: None, ..failure }
    })?;
    replace(&target, &folder, &text).map_err(failed)?;
    Ok(config)
}

fn folder(path: &Path) -> PathBuf {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    parent.unwrap_or(Path::new(".")).to_owned()
}

/// The configuration as a document that can be edited; empty where there is no file.
pub(crate) fn read(path: &Path) -> Result<DocumentMut, Failure> {
    let text = match std::fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        read => read.map_err(|error| Failure::failed(&format!("read {}", path.display()), &error))?,
    };
    text.parse().map_err(|error: toml_edit::TomlError| {
        Failure::failed(&format!("{} is not TOML", path.display()), &error)
    })
}

/// Puts a new file in the place of the old one in one step, readable for this user alone.
pub(crate) fn replace(path: &Path, folder: &Path, text: &str) -> io::Result<()> {
    let mut draft = tempfile::Builder::new().prefix(".config.").suffix(".tmp").tempfile_in(folder)?;
    draft.write_all(text.as_bytes())?;
    draft.as_file().sync_all()?;
    draft.persist(path)?;
    // The rename is only safe from a power failure when the folder is on the disk too.
    File::open(folder)?.sync_all()
}

/// The names that the configuration file has tables for.
pub(super) fn override_names(path: &Path) -> Result<Vec<ProviderId>, Failure> {
    Ok(names(&read(path)?))
}

fn names(document: &DocumentMut) -> Vec<ProviderId> {
    let tables = document.get("providers").and_then(Item::as_table_like);
    let names = tables.into_iter().flat_map(|tables| tables.iter().map(|(name, _)| name.parse()));
    names.filter_map(Result::ok).collect()
}

/// Writes the settings into the table of the provider, whichever of its names that table has.
pub(super) fn set_override(
    document: &mut DocumentMut,
    id: &ProviderId,
    old: Option<&Provider>,
    new: &Override,
) {
    let known = names(document).into_iter().rev().find(|name| match old {
        Some(provider) => provider.answers_to(name),
        None => name == id,
    });
    let name = known.unwrap_or_else(|| id.clone());
    let implicit = || {
        let mut table = Table::new();
        table.set_implicit(true);
        Item::Table(table)
    };
    let providers = document.entry("providers").or_insert_with(implicit);
    let Some(providers) = under_header(providers) else { return };
    let provider = providers.entry(name.as_str()).or_insert_with(|| Item::Table(Table::new()));
    let Some(table) = under_header(provider) else { return };
    put(table, "upstream", new.url.as_str().into());
    if let Some(wire) = &new.wire {
        put(table, "wire", wire.as_str().into());
    }
    if let Some(auth) = &new.auth {
        put(table, "auth", auth.as_str().into());
    }
    if new.is_local {
        put(table, "local", true.into());
    }
}

/// The table, with a header of its own from now on: an inline one has one line for everything.
fn under_header(item: &mut Item) -> Option<&mut Table> {
    if let Some(inline) = item.as_inline_table() {
        let mut table = inline.clone().into_table();
        // Without values of its own it needs no header either.
        table.set_implicit(true);
        *item = Item::Table(table);
    }
    item.as_table_mut()
}

/// Sets a key; a comment behind its old value stays.
fn put(table: &mut Table, key: &str, mut value: Value) {
    if let Some(old) = table.get_mut(key).and_then(Item::as_value_mut) {
        *value.decor_mut() = old.decor().clone();
        *old = value;
    } else {
        table.insert(key, Item::Value(value));
    }
}

/// Removes every table of the provider. Comments that stood further above than directly over it are kept.
pub(super) fn remove_override(document: &mut DocumentMut, provider: &Provider) {
    let names: Vec<ProviderId> =
        names(document).into_iter().filter(|name| provider.answers_to(name)).collect();
    for name in names {
        let providers = document.get_mut("providers").and_then(Item::as_table_like_mut);
        let removed = providers.and_then(|providers| providers.remove(name.as_str()));
        let Some(Item::Table(table)) = removed else { continue };
        let above = table.decor().prefix().and_then(|prefix| prefix.as_str()).unwrap_or_default();
        let kept = above.rfind("\n\n").map_or("", |end| &above[..=end]);
        if kept.contains('#') {
            let trailing = document.trailing().as_str().unwrap_or_default();
            document.set_trailing(format!("{kept}{trailing}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const TEXT: &str = "\
# my gateway
[daemon]
port = 9000 # not the usual one
# threads = 2

# the mock
[providers.openai] # for tests
upstream = \"https://old.example\" # old
idle_timeout = \"1m\"
";

    struct Place {
        folder: tempfile::TempDir,
    }

    impl Place {
        fn with(text: &str) -> Self {
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join("config.toml"), text).unwrap();
            Self { folder }
        }

        fn path(&self) -> PathBuf {
            self.folder.path().join("config.toml")
        }

        fn text(&self) -> String {
            std::fs::read_to_string(self.path()).unwrap()
        }

        fn set(&self, name: &str, url: &str, is_local: bool) -> Result<Config, Failure> {
            let config = Config::parse(&self.text(), self.folder.path()).unwrap();
            let old = config.provider(name).cloned();
            let id = old.as_ref().map_or_else(|| name.parse().unwrap(), |old| old.id.clone());
            let new = Override { url: url.to_owned(), wire: None, auth: Some("bearer".to_owned()), is_local };
            edit_file(&self.path(), self.folder.path(), |document| {
                set_override(document, &id, old.as_deref(), &new);
            })
        }

        fn remove(&self, name: &str) -> Config {
            let config = Config::parse(&self.text(), self.folder.path()).unwrap();
            let provider = config.provider(name).unwrap();
            edit_file(&self.path(), self.folder.path(), |document| remove_override(document, provider))
                .unwrap()
        }
    }

    #[test]
    fn an_edit_keeps_the_comments() {
        let place = Place::with(TEXT);
        let config = place.set("openai", "https://new.example/v2", false).unwrap();
        assert_eq!(super::super::upstream(config.provider("openai").unwrap()), "https://new.example/v2");
        let expected = TEXT.replace("https://old.example", "https://new.example/v2") + "auth = \"bearer\"\n";
        assert_eq!(place.text(), expected);
        let mode = std::fs::metadata(place.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(place.folder.path()).unwrap().count(), 1, "nothing else is left");
    }

    #[test]
    fn a_new_provider_gets_a_table_and_a_missing_file_is_made() {
        let place = Place::with("");
        std::fs::remove_file(place.path()).unwrap();
        let new = Override {
            url: "http://127.0.0.1:8000".to_owned(),
            wire: Some("ollama".to_owned()),
            auth: None,
            is_local: true,
        };
        let id = "mine".parse().unwrap();
        edit_file(&place.path(), place.folder.path(), |document| set_override(document, &id, None, &new))
            .unwrap();
        let expected =
            "[providers.mine]\nupstream = \"http://127.0.0.1:8000\"\nwire = \"ollama\"\nlocal = true\n";
        assert_eq!(place.text(), expected);
    }

    #[test]
    fn an_alias_is_edited_where_it_stands() {
        let place = Place::with("[providers.gemini]\nidle_timeout = \"1m\"\n");
        place.set("google", "https://g.example", false).unwrap();
        assert!(!place.text().contains("[providers.google]"), "{}", place.text());
        place.remove("google");
        assert_eq!(place.text(), "");
    }

    #[test]
    fn an_inline_table_is_edited_under_a_header() {
        let place = Place::with("providers = { openai = { upstream = \"https://old.example\" } }\n");
        let config = place.set("openai", "https://new.example", false).unwrap();
        assert_eq!(super::super::upstream(config.provider("openai").unwrap()), "https://new.example");
        let expected = "[providers.openai]\nupstream = \"https://new.example\"\nauth = \"bearer\"\n";
        assert_eq!(place.text().trim_start(), expected);
        place.remove("openai");
        assert!(!place.text().contains("example"), "{}", place.text());
    }

    #[test]
    fn a_bad_result_changes_nothing() {
        let place = Place::with(TEXT);
        for url in ["http://plain.example", "ftp://a.example", "https://a.example/x?key=1", ""] {
            let failure = place.set("openai", url, false).unwrap_err();
            assert!(failure.message.starts_with("nothing was changed, because "), "{}", failure.message);
            assert!(failure.message.contains("providers.openai.upstream"), "{}", failure.message);
            assert_eq!(place.text(), TEXT, "{url}");
        }
    }

    #[test]
    fn a_removed_table_takes_only_its_own_comment_along() {
        let place = Place::with(TEXT);
        place.remove("openai");
        assert_eq!(place.text(), "# my gateway\n[daemon]\nport = 9000 # not the usual one\n# threads = 2\n");
    }

    #[test]
    fn a_link_stays_a_link() {
        let (place, elsewhere) = (Place::with(""), Place::with(""));
        std::fs::remove_file(place.path()).unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), place.path()).unwrap();
        place.set("openai", "https://new.example", false).unwrap();
        assert!(std::fs::symlink_metadata(place.path()).unwrap().is_symlink());
        assert!(elsewhere.text().contains("https://new.example"));
    }
}
