//! Hot: patterns for the routes of a provider, as the catalogue writes them.

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
    /// Whether method and path match; the inner value is the model that the path names.
    pub(crate) fn matches<'p>(&self, method: &http::Method, path: &[&'p str]) -> Option<Option<&'p str>> {
        let is_method = self
            .method
            .as_ref()
            .is_none_or(|own| own == method || (own == http::Method::GET && method == http::Method::HEAD));
        if is_method { match_segments(&self.segments, path) } else { None }
    }
}

fn match_segments<'p>(pattern: &[Segment], path: &[&'p str]) -> Option<Option<&'p str>> {
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
            Some(if *is_model { Some(middle) } else { inner })
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
