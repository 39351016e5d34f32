//! A process that outlives the tests by a moment: when the test process ends, however it ends, the daemons of
//! homes that are still there are stopped and the homes removed. Statics are never dropped, so `Drop` alone
//! would leave the daemons that tests share.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{LazyLock, Mutex};

const SCRIPT: &str = r#"
homes=
while read -r home; do homes="$homes $home"; done
for home in $homes; do
    case "$home" in */tokfence-it-*) ;; *) continue ;; esac
    [ -d "$home" ] || continue
    [ -f "$home/tokfence.lock" ] && kill -9 "$(cat "$home/tokfence.lock")" 2>/dev/null
    rm -rf "$home"
done
"#;

static REAPER: LazyLock<Mutex<ChildStdin>> = LazyLock::new(|| {
    let child = Command::new("sh")
        .args(["-c", SCRIPT])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn();
    Mutex::new(child.unwrap().stdin.take().unwrap())
});

/// Has the daemon of this home ended and the home removed when the tests are over.
pub(super) fn watch(home: &Path) {
    let mut stdin = REAPER.lock().unwrap();
    writeln!(stdin, "{}", home.display()).unwrap();
}
