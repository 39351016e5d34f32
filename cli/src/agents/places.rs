//! Where agents keep their configuration, and where they keep keys.

use std::path::PathBuf;

/// A path in the home of the user, not in that of the gateway.
pub(super) fn in_home(name: &str) -> PathBuf {
    std::env::home_dir().unwrap_or_else(|| PathBuf::from("/")).join(name)
}

/// The folder that a variable names, or the usual one in the user's home.
pub(super) fn under_variable(variable: &str, usual: &str) -> PathBuf {
    let named = std::env::var_os(variable).filter(|path| !path.is_empty());
    named.map_or_else(|| in_home(usual), PathBuf::from)
}

/// Where programs keep their configuration that follow the desktop's rules.
pub(super) fn config_home() -> PathBuf {
    under_variable("XDG_CONFIG_HOME", ".config")
}

/// Where the program `llm` keeps everything.
pub(super) fn llm_folder() -> PathBuf {
    let usual = if cfg!(target_os = "macos") { "Library/Application Support" } else { ".config" };
    under_variable("LLM_USER_PATH", &format!("{usual}/io.datasette.llm"))
}

/// The files in which agents keep keys, and those that shells read at their start.
pub(crate) fn key_files() -> Vec<PathBuf> {
    let claude = under_variable("CLAUDE_CONFIG_DIR", ".claude");
    let codex = under_variable("CODEX_HOME", ".codex");
    let openclaw = under_variable("OPENCLAW_STATE_DIR", ".openclaw");
    let opencode = config_home().join("opencode");
    let mut files: Vec<PathBuf> = [
        ".bashrc",
        ".bash_profile",
        ".bash_login",
        ".bash_aliases",
        ".profile",
        ".zshrc",
        ".zshenv",
        ".zprofile",
        ".zlogin",
        ".env",
        ".aider.conf.yml",
        ".gemini/.env",
        ".gemini/settings.json",
        ".openai_api_key",
        ".local/share/opencode/auth.json",
    ]
    .map(in_home)
    .into();
    files.extend(["fish/config.fish", "environment.d/envvars.conf"].map(|name| config_home().join(name)));
    files.extend(["settings.json", "settings.local.json"].map(|name| claude.join(name)));
    files.extend(["auth.json", "config.toml", ".env"].map(|name| codex.join(name)));
    files.extend(["openclaw.json", ".env"].map(|name| openclaw.join(name)));
    files.extend(["opencode.json", "opencode.jsonc"].map(|name| opencode.join(name)));
    files.extend(["keys.json", "extra-openai-models.yaml"].map(|name| llm_folder().join(name)));
    files
}
