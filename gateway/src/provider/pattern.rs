//! Hot: patterns for the routes of a provider, as the catalogue writes them.

use std::borrow::Cow;
use std::str::FromStr;

/// A method and a path with wildcards; see `conf/providers.toml`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoutePattern {
    method: Option<http::Method>,
    segments: Vec<Segment>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Literal(String),
    /// Any text between a prefix and a suffix; it is the model's name when `is_model`.
    Wild {
        prefix: String,
        suffix: String,
        is_model: bool,
    },
    /// Any number of segments.
    Rest,
}

impl RoutePattern {
    /// Whether method and path match; the inner value is the model that the path names, as it stands there. Where
    /// two segments name it, a slash is between them.
    pub(crate) fn matches<'p>(
        &self,
        method: &http::Method,
        path: &[&'p str],
    ) -> Option<Option<Cow<'p, str>>> {
        let is_method = self
            .method
            .as_ref()
            .is_none_or(|own| own == method || (own == http::Method::GET && method == http::Method::HEAD));
        if is_method { match_segments(&self.segments, path) } else { None }
    }
}

fn match_segments<'p>(pattern: &[Segment], path: &[&'p str]) -> Option<Option<Cow<'p, str>>> {
    match (pattern.split_first(), path.split_first()) {
        (None, None) => Some(None),
        (Some((Segment::Rest, [])), _) => Some(None),
        (Some((Segment::Rest, pattern)), _) => {
            (0..=path.len()).find_map(|skipped| match_segments(pattern, &path[skipped..]))
        }
        (Some((Segment::Literal(literal), pattern)), Some((segment, path))) if literal == segment => {
            match_segments(pattern, path)
        }
        (Some((Segment::Wild { prefix, suffix, is_model }, pattern)), Some((segment, path))) => {
            let middle = segment.strip_prefix(prefix.as_str())?.strip_suffix(suffix.as_str())?;
            let inner = match_segments(pattern, path).filter(|_| !middle.is_empty())?;
            Some(match inner {
                inner if !is_model => inner,
                None => Some(Cow::Borrowed(middle)),
                Some(rest) => Some(Cow::Owned(format!("{middle}/{rest}"))),
            })
        }
        _ => None,
    }
}

impl FromStr for RoutePattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (method, path) = text.split_once(' ').ok_or_else(|| format!("`{text}` is not `METHOD /path`"))?;
        let path = path.strip_prefix('/').ok_or_else(|| format!("`{text}` has no path"))?;
        let method = match method {
            "*" => None,
            name => Some(name.parse().map_err(|_| format!("`{name}` is not a method"))?),
        };
        Ok(Self { method, segments: path.split('/').map(segment).collect() })
    }
}

fn segment(text: &str) -> Segment {
    let wild = |(prefix, suffix): (&str, &str), is_model| Segment::Wild {
        prefix: prefix.to_owned(),
        suffix: suffix.to_owned(),
        is_model,
    };
    match (text, text.split_once("{model}"), text.split_once('*')) {
        ("**", _, _) => Segment::Rest,
        (_, Some(around), _) => wild(around, true),
        (_, None, Some(around)) => wild(around, false),
        (_, None, None) => Segment::Literal(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_match(pattern: &str, path: &str, expected: Option<Option<&str>>) {
        let pattern: RoutePattern = pattern.parse().unwrap();
        let segments: Vec<&str> = path.split('/').skip(1).collect();
        let matched = pattern.matches(&http::Method::POST, &segments);
        assert_eq!(matched.as_ref().map(Option::as_deref), expected, "{path}");
    }

    #[test]
    fn a_path_names_its_model_in_part_of_a_segment_or_in_two() {
        check_match("POST /*/models/{model}:go", "/v1/models/a:b:go", Some(Some("a:b")));
        check_match("POST /*/models/{model}:go", "/v1/models/:go", None);
        check_match("POST /*/models/{model}:go", "/v1/x/models/a:go", None);
        check_match("POST /**/model/{model}/invoke", "/model/a/invoke", Some(Some("a")));
        check_match("POST /**/model/{model}/invoke", "/x/y/model/a/invoke", Some(Some("a")));
        check_match("POST /**/model/{model}/invoke", "/model/a/b/invoke", None);
        check_match("POST /**/model/{model}/invoke", "/model/model/model/invoke", Some(Some("model")));
        check_match("POST /models/{model}/{model}/**", "/models/org/name", Some(Some("org/name")));
        check_match("POST /models/{model}/{model}/**", "/models/org/name/v1/chat", Some(Some("org/name")));
        check_match("POST /v1/chat", "/v1/chat", Some(None));
    }
}
