//! Whether a model that a provider reports is one that was asked for.
//!
//! A provider answers for `gpt-4o` with `gpt-4o-2024-08-06` and reports that. Names are the same without what says only
//! which issue of a model it is; a prefix alone makes no two the same, because `gpt-4o-mini` is another model.

use std::collections::HashSet;

use crate::ModelGlob;

/// Ends that say which issue is meant, and not which model.
const ISSUES: [&str; 3] = ["-latest", "-preview", "-0"];

/// The models that were asked for, and those that the owner says are his.
#[derive(Clone, Debug, Default)]
pub struct KnownModels {
    asked: HashSet<String>,
    further: Vec<ModelGlob>,
}

impl KnownModels {
    /// From the names that were asked for, and patterns for further ones.
    pub fn new<'a>(asked: impl IntoIterator<Item = &'a str>, further: Vec<ModelGlob>) -> Self {
        Self { asked: asked.into_iter().map(family).collect(), further }
    }

    /// Whether a reported model is one of them.
    pub fn knows(&self, reported: &str) -> bool {
        self.asked.contains(&family(reported)) || self.further.iter().any(|glob| glob.matches(reported))
    }
}

/// Whether a name that was asked for and one that was reported mean the same model.
pub fn same_model(asked: &str, reported: &str) -> bool {
    family(asked) == family(reported)
}

/// The name without its issue, in lower case.
fn family(name: &str) -> String {
    let lower = name.trim().to_ascii_lowercase();
    let mut rest = lower.strip_prefix("models/").unwrap_or(&lower);
    while let Some(shorter) = without_issue(rest).filter(|shorter| !shorter.is_empty()) {
        rest = shorter;
    }
    rest.to_owned()
}

fn without_issue(name: &str) -> Option<&str> {
    let named = ISSUES.iter().find_map(|issue| name.strip_suffix(issue));
    // `@20240620` of Vertex, `-2024-08-06`, `-20240806`, `-0613`
    let dated = || without_digits(name, &["@dddddddd", "-dddd-dd-dd", "-dddddddd", "-dddd"]);
    named.or_else(dated)
}

/// The name without an end that has the form of one of these, where `d` stands for a digit.
fn without_digits<'n>(name: &'n str, forms: &[&str]) -> Option<&'n str> {
    forms.iter().find_map(|form| {
        let at = name.len().checked_sub(form.len())?;
        let (rest, end) = name.split_at_checked(at)?;
        let fits = |(byte, form)| if form == b'd' { u8::is_ascii_digit(&byte) } else { byte == form };
        end.bytes().zip(form.bytes()).all(fits).then_some(rest)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(asked: &str, reported: &str, is_same: bool) {
        assert_eq!(same_model(asked, reported), is_same, "{asked} and {reported}");
    }

    #[test]
    fn an_issue_of_a_model_is_that_model() {
        check("gpt-4o", "gpt-4o-2024-08-06", true);
        check("gpt-4", "gpt-4-0613", true);
        check("gpt-4-turbo", "gpt-4-turbo-2024-04-09", true);
        check("claude-sonnet-4-0", "claude-sonnet-4-20250514", true);
        check("claude-3-5-haiku-latest", "claude-3-5-haiku-20241022", true);
        check("claude-3-5-sonnet@20240620", "claude-3-5-sonnet-20240620", true);
        check("computer-use-preview", "computer-use-preview-2025-03-11", true);
        check("GPT-4o", "gpt-4o", true);
        check("models/gemini-2.5-pro", "gemini-2.5-pro", true);
    }

    #[test]
    fn another_model_is_another_model() {
        check("gpt-4o", "gpt-4o-mini", false);
        check("gpt-4o", "gpt-4", false);
        check("gpt-4", "gpt-4-turbo-2024-04-09", false);
        check("claude-sonnet-4-0", "claude-opus-4-20250514", false);
        check("claude-3-5-haiku-latest", "claude-3-haiku-20240307", false);
        check("o1", "o1-pro", false);
        check("gpt-4o", "", false);
    }

    #[test]
    fn the_owner_can_say_which_are_his() {
        let known = KnownModels::new(["gpt-4o"], vec!["ft:gpt-4o-mini-*".parse().unwrap()]);
        assert!(known.knows("gpt-4o-2024-11-20") && known.knows("ft:gpt-4o-mini-2024-07-18:acme::1"));
        assert!(!known.knows("gpt-4o-mini") && !KnownModels::default().knows("gpt-4o"));
    }

    #[test]
    fn a_name_that_is_only_an_issue_stays() {
        for name in ["-latest", "-2024-08-06", "é-0613", "2024", "-0"] {
            assert!(!family(name).is_empty(), "{name}");
        }
    }
}
