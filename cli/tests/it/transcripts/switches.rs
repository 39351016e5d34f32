//! The switches: everything, a provider, an agent, the keys.

use super::Transcript;
use crate::support::Gateway;

#[test]
fn switches() {
    let gateway = Gateway::start();
    Transcript::new(&gateway.home)
        .run("revoke groq --reason leaked")
        .run("kill --reason leak")
        .show("status")
        .run("kill")
        .run("unkill")
        .run("restore groq")
        .run("lock")
        .run("status")
        .run("unlock")
        .run("start -d")
        .check("switches");
}
