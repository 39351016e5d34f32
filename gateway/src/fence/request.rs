//! Hot: a request, searched for secrets before anything of it is sent.

use std::fmt;
use std::sync::Arc;

use policy::scan::{Channel, Form, Hit, View};

use super::watch::{Watch, Watched};
use crate::wire::unescaped;

/// Where in a request something stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Target,
    Header,
    Body,
}

/// A secret in a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Leak {
    pub(crate) watched: Arc<Watched>,
    pub(crate) form: Form,
    pub(crate) view: View,
    pub(crate) part: Part,
    /// After how many bytes of the part, its escapes not counted.
    pub(crate) offset: u64,
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

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The first secret in what would be sent: the target, the headers that are passed on, the body. Marks of prompts are
/// meant to be sent, and are none.
pub(crate) fn leak<'h>(
    watch: &Watch,
    target: &str,
    headers: impl Iterator<Item = &'h [u8]>,
    body: &[u8],
) -> Option<Leak> {
    if watch.is_empty() {
        return None;
    }
    let in_target = || in_text(watch, Part::Target, target.as_bytes());
    let in_headers = || headers.into_iter().find_map(|value| in_text(watch, Part::Header, value));
    in_target().or_else(in_headers).or_else(|| in_body(watch, body))
}

fn in_text(watch: &Watch, part: Part, text: &[u8]) -> Option<Leak> {
    let mut search = Search { watch, part, leak: None };
    Channel::new(&watch.list).feed(&watch.list, text, |hit| search.note(hit));
    search.leak
}

/// A JSON body is searched as what its strings mean, all in one; any other as it is.
fn in_body(watch: &Watch, body: &[u8]) -> Option<Leak> {
    let first = body.iter().find(|byte| !byte.is_ascii_whitespace());
    if !matches!(first, Some(b'{' | b'[')) {
        return in_text(watch, Part::Body, body);
    }
    let mut search = Search { watch, part: Part::Body, leak: None };
    let mut channel = Channel::new(&watch.list);
    unescaped(body, |text| channel.feed(&watch.list, text, |hit| search.note(hit)));
    search.leak
}

struct Search<'w> {
    watch: &'w Watch,
    part: Part,
    leak: Option<Leak>,
}

impl Search<'_> {
    fn note(&mut self, hit: Hit) {
        let watched = self.watch.watched(hit.secret);
        if self.leak.is_none() && !matches!(*watched, Watched::PromptMark { .. }) {
            let Hit { form, view, end: offset, .. } = hit;
            self.leak = Some(Leak { watched, form, view, part: self.part, offset });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const KEY: &str = "sk-proj-T3BlbkFJ0123456789abcdefghijKLMN";
    const MARK: &str = "tkc-9f8e7d6c5b4a39281706abcd";

    fn found(target: &str, header: &str, body: &str) -> Option<(Part, View)> {
        let key = Watched::Key { provider: "openai".to_owned() };
        let mark = Watched::PromptMark { name: "ops".to_owned() };
        let watch = Watch::new([(key, KEY), (mark, MARK)]);
        let leak = leak(&watch, target, [header.as_bytes()].into_iter(), body.as_bytes())?;
        assert_eq!(leak.watched.to_string(), "the key of `openai`");
        Some((leak.part, leak.view))
    }

    #[test]
    fn a_key_is_found_wherever_it_would_be_sent() {
        let plain = |part| Some((part, View::Plain));
        assert_eq!(found("/v1/models", "curl/8", "{}"), None);
        assert_eq!(found(&format!("/v1/models/{KEY}"), "", ""), plain(Part::Target));
        let percent: String = KEY.bytes().map(|byte| format!("%{byte:02x}")).collect();
        assert_eq!(found(&format!("/v1/models?q={percent}"), "", ""), Some((Part::Target, View::Percent)));
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
        assert_eq!(found("/", "", &json!({ "system": [MARK, KEY] }).to_string()), Some((Part::Body, View::Plain)));
    }
}
