//! A panic on purpose, for the test that one request's takes nothing else with it. Only a debug build whose owner asks
//! for it with `TOKFENCE_TEST_PANIC` has it.

use pingora::http::RequestHeader;

/// The header with which a test names the stage.
const STAGE: &str = "x-tokfence-test-panic";

/// Panics when a request of a test asks for that at this stage.
#[cfg_attr(not(test), expect(clippy::panic, reason = "it is what this module is for"))]
pub(crate) fn panic_if_asked(request: &RequestHeader, stage: &str) {
    if !cfg!(debug_assertions) {
        return;
    }
    let is_asked = request.headers.get(STAGE).is_some_and(|asked| asked.as_bytes() == stage.as_bytes());
    if is_asked && std::env::var_os("TOKFENCE_TEST_PANIC").is_some() {
        panic!("as {} asked: {:?}", STAGE, request.headers);
    }
}
