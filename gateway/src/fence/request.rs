//! Hot: a request, searched for secrets before anything of it is sent.

use policy::scan::{Channel, Hit};

use super::watch::{Finding, Watch};
use crate::wire::unescaped;

/// Pieces of a body are joined up to so many bytes.
const JOINED_BYTES: usize = 4096;

/// Where in a request something stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Target,
    Header,
    Body,
}

impl Part {
    /// The stable `snake_case` name.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Target => "target",
            Self::Header => "header",
            Self::Body => "body",
        }
    }
}

/// The first secret in what would be sent: the target, the headers that are passed on, the body. Marks of prompts are
/// meant to be sent, and are none.
pub(crate) fn leak<'h>(
    watch: &Watch,
    target: &str,
    mut headers: impl Iterator<Item = &'h [u8]>,
    body: &[u8],
) -> Option<(Part, Finding)> {
    if watch.is_empty() {
        return None;
    }
    let in_target = || Some((Part::Target, in_text(watch, target.as_bytes())?));
    let in_headers = || Some((Part::Header, headers.find_map(|value| in_text(watch, value))?));
    let in_body = || Some((Part::Body, in_body(watch, body)?));
    in_target().or_else(in_headers).or_else(in_body)
}

fn in_text(watch: &Watch, text: &[u8]) -> Option<Finding> {
    let mut first = None;
    Channel::default().feed(&watch.list, text, |hit| keep_first(watch, &mut first, &hit));
    first
}

/// A JSON body is searched as what its strings mean, all in one; any other as it is.
fn in_body(watch: &Watch, body: &[u8]) -> Option<Finding> {
    let first = body.iter().find(|byte| !byte.is_ascii_whitespace());
    if !matches!(first, Some(b'{' | b'[')) {
        return in_text(watch, body);
    }
    let (mut channel, mut first) = (Channel::default(), None);
    let mut search = |text: &[u8]| channel.feed(&watch.list, text, |hit| keep_first(watch, &mut first, &hit));
    // Code has an escape in each line, and long texts are searched faster than many short ones.
    let mut joined = Vec::with_capacity(JOINED_BYTES.min(body.len()));
    unescaped(body, |text| {
        if joined.len() + text.len() > JOINED_BYTES {
            search(&joined);
            joined.clear();
        }
        if text.len() < JOINED_BYTES {
            joined.extend_from_slice(text);
        } else {
            search(text);
        }
    });
    search(&joined);
    first
}

fn keep_first(watch: &Watch, first: &mut Option<Finding>, hit: &Hit) {
    if first.is_none() && !watch.watched(hit.secret).is_prompt_mark() {
        *first = Some(watch.finding(hit));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fence::Watched;
    use policy::CanaryKind;
    use policy::scan::View;
    use serde_json::json;

    const KEY: &str = "sk-proj-T3BlbkFJ0123456789abcdefghijKLMN";
    const MARK: &str = "tkc-9f8e7d6c5b4a39281706abcd";

    fn found(target: &str, header: &str, body: &str) -> Option<(Part, View)> {
        let key = Watched::Key { provider: "openai".to_owned() };
        let mark = Watched::Canary { kind: CanaryKind::Prompt, name: "ops".to_owned() };
        let watch = Watch::new([(key, KEY), (mark, MARK)]);
        let (part, finding) = leak(&watch, target, [header.as_bytes()].into_iter(), body.as_bytes())?;
        assert_eq!(finding.watched.to_string(), "the key of `openai`");
        Some((part, finding.view))
    }

    #[test]
    fn a_key_is_found_wherever_it_would_be_sent() {
        let plain = |part| Some((part, View::Plain));
        assert_eq!(found("/v1/models", "curl/8", "{}"), None);
        assert_eq!(found(&format!("/v1/models/{KEY}"), "", ""), plain(Part::Target));
        let percent: String = KEY.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let percent = format!("/v1/models?q={percent}");
        assert_eq!(found(&percent, "", ""), Some((Part::Target, View::Percent)), "before its digits are hex");
        assert_eq!(found("/", &format!("agent {KEY}"), ""), plain(Part::Header));
        let body = json!({ "messages": [{ "content": format!("a\n\"{KEY}\"") }] }).to_string();
        assert_eq!(found("/", "", &body), plain(Part::Body));
        assert_eq!(found("/", "", &body.replace("sk-", "\\u0073k\\u002D")), plain(Part::Body));
        let twice = json!({ "arguments": body.replace("sk-", "\\u0073k-") }).to_string();
        assert_eq!(found("/", "", &twice), Some((Part::Body, View::Escaped)));
        let upload = format!("--x\r\ncontent-disposition: form-data; filename=\"{KEY}\"\r\n\r\n\0\u{1}");
        assert_eq!(found("/", "", &upload), plain(Part::Body));
    }

    #[test]
    fn a_mark_is_meant_to_be_sent() {
        assert_eq!(found("/", "", &json!({ "system": MARK }).to_string()), None);
        assert_eq!(
            found("/", "", &json!({ "system": [MARK, KEY] }).to_string()),
            Some((Part::Body, View::Plain))
        );
    }
}
