//! An agent of macOS's launchd.

use super::{Plan, ServiceFile, home_folder, installed_program, words};
use crate::app::App;
use crate::failure::Failure;

const LABEL: &str = "dev.tokfence.gateway";
const AGENT: &str = include_str!("../../../../conf/service/launchd.plist");

/// A service of this user.
pub(super) fn user(app: &App) -> Result<Plan, Failure> {
    let program = installed_program()?;
    let path = home_folder()?.join("Library/LaunchAgents").join(format!("{LABEL}.plist"));
    let (home, config) = (app.home.dir(), app.config_path.as_path());
    let given = [program.as_path(), "--home".as_ref(), home, "--config".as_ref(), config];
    let arguments: Vec<String> = given
        .iter()
        .map(|word| format!("    <string>{}</string>", escaped(&word.to_string_lossy())))
        .collect();
    let text = AGENT
        .replace("@ARGUMENTS@", &arguments.join("\n"))
        .replace("@LOG@", &escaped(&app.home.log_file().to_string_lossy()));
    let domain = format!("gui/{}", rustix::process::getuid().as_raw());
    let (file, service) = (path.to_string_lossy().into_owned(), format!("{domain}/{LABEL}"));
    Ok(Plan {
        files: vec![ServiceFile { path, text, is_settings: false }],
        register: Vec::new(),
        start: vec![words(&["launchctl", "bootstrap", &domain, &file])],
        stop: vec![words(&["launchctl", "bootout", &service])],
        forget: Vec::new(),
        is_active: words(&["launchctl", "print", &service]),
        next: vec![
            "a vault that opens with the keychain opens by itself; any other with `tokfence unlock`"
                .to_owned(),
        ],
    })
}

/// Text of an XML element.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_stays_text() {
        assert_eq!(escaped("/a&b/</string>"), "/a&amp;b/&lt;/string&gt;");
    }
}
