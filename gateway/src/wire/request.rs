//! Hot: the facts of a request body that decisions need, and nothing else of it.
//!
//! One pass validates the whole body and takes a handful of fields. What a provider could read differently from us
//! is refused: a key that comes twice, spelled with escapes or not; a key that differs from one we know only in
//! case, since some providers ignore case; two spellings of one Gemini field; numbers that are not plain integers.

use std::ops::Range;

use super::contents::Contents;
use super::scan::{DEPTH_MAX, Fault, FaultKind, KEYS_MAX, Kind, Quoted, Scanner};

/// Answers to one prompt that a request may ask for.
const ANSWERS_MAX: u32 = 128;

/// What a JSON request body says about its model, its size and its manner of answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestFacts {
    /// The model asked for; some providers have it in the path instead.
    pub model: Option<String>,
    /// Whether further models are named that may answer instead (`models`).
    pub names_other_models: bool,
    /// Whether a stream is wanted; without a word the provider's default holds, which for Ollama is yes.
    pub stream: Option<bool>,
    /// Every limit on the answer's length, in the order they stand in the body.
    pub output_limits: Vec<OutputLimit>,
    /// Answers wanted: of each prompt (`n`, `best_of`, `candidateCount`) of all that there are, at least one.
    pub answers: u32,
    /// Whether the answer is made after the request has ended (`background`).
    pub is_background: bool,
    /// What the body consists of.
    pub contents: Contents,
    /// Prompts that get answers of their own, at least one.
    pub prompts: u32,
    /// The service tiers asked for (`service_tier`, `speed`), in the caller's words.
    pub service_tiers: Vec<String>,
    /// `stream_options.include_usage`: what it says (`null` is none) and where.
    pub(super) include_usage: Option<(Option<bool>, Range<usize>)>,
    /// Where a rewrite can put a member: into the body, and into the objects that hold some of the fields.
    pub(super) members: Members,
    pub(super) stream_options: Nested,
    pub(super) generation_config: Nested,
    pub(super) options: Nested,
}

/// A limit on the length of the answer, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputLimit {
    /// Under which name.
    pub field: LimitField,
    /// In tokens; none if the value is `null`, or what is "no limit" to Ollama.
    pub tokens: Option<u32>,
    pub(super) span: Range<usize>,
}

/// The names that providers have for a limit on the answer's length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitField {
    /// `max_tokens`: Anthropic, Mistral, Cohere, older OpenAI, most others.
    MaxTokens,
    /// `max_completion_tokens`: OpenAI's chat completions.
    MaxCompletionTokens,
    /// `max_output_tokens`: OpenAI's Responses.
    MaxOutputTokens,
    /// `generationConfig.maxOutputTokens`: Gemini.
    GenerationConfig,
    /// `options.num_predict`: Ollama.
    NumPredict,
}

/// What stands under a key that should lead to an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Nested {
    Absent,
    Null(Range<usize>),
    Object(Members),
    /// Something that this name means to another provider.
    Other,
}

/// Where the members of an object start, so that one can be put before them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Members {
    pub(super) start: usize,
    pub(super) is_empty: bool,
}

/// Why a body is refused. The message never repeats the body's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestFault {
    /// Bytes that are not UTF-8.
    #[error("the body is not UTF-8 (byte {0})")]
    NotUtf8(usize),
    /// A byte order mark, which some parsers skip and others refuse.
    #[error("the body starts with a byte order mark")]
    ByteOrderMark,
    /// Anything but an object.
    #[error("the body is not a JSON object")]
    NotAnObject,
    /// Not JSON, or JSON that parsers disagree about.
    #[error("the body is not strictly valid JSON (byte {0})")]
    Syntax(usize),
    /// Containers in containers.
    #[error("the body nests deeper than {DEPTH_MAX} levels (byte {0})")]
    TooDeep(usize),
    /// Something after the object.
    #[error("data follows the JSON object (byte {0})")]
    TrailingData(usize),
    /// A key that was there before, in whatever spelling.
    #[error("a key comes twice in one object (byte {0})")]
    DuplicateKey(usize),
    /// Too many to compare.
    #[error("an object has more than {KEYS_MAX} keys (byte {0})")]
    TooManyKeys(usize),
    /// A key that some providers would take for another.
    #[error("a key differs from `{0}` only in case")]
    AmbiguousKey(&'static str),
    /// A field that is not what it must be.
    #[error("`{field}` must be {expected}")]
    WrongValue {
        /// Which field.
        field: &'static str,
        /// What it must be.
        expected: &'static str,
    },
}

/// Validates a JSON request body and takes the facts from it.
///
/// # Errors
/// [`RequestFault`], whose message is fit for the caller, for anything that is not one strictly valid JSON object.
pub fn request_facts(body: &[u8]) -> Result<RequestFacts, RequestFault> {
    let text = std::str::from_utf8(body).map_err(|fault| RequestFault::NotUtf8(fault.valid_up_to()))?;
    if text.starts_with('\u{feff}') {
        return Err(RequestFault::ByteOrderMark);
    }
    let mut scanner = Scanner::new(text);
    let mut facts = RequestFacts::empty();
    if scanner.kind()? != Kind::Object {
        return Err(RequestFault::NotAnObject);
    }
    facts.members = facts.members(&mut scanner, FIELDS)?;
    scanner.end()?;
    facts.answers = facts.answers.saturating_mul(facts.prompts);
    facts.contents = scanner.contents();
    Ok(facts)
}

#[derive(Clone, Copy)]
enum Field {
    Model,
    /// OpenRouter's fallbacks.
    OtherModels,
    Stream,
    StreamOptions,
    IncludeUsage,
    Limit(LimitField),
    Answers(&'static str),
    /// One, or a list of them that get an answer each.
    Prompts,
    Background,
    /// OpenAI's and Gemini's tier, and Anthropic's speed, which is priced like one.
    ServiceTier,
    GenerationConfig,
    Options,
}

const FIELDS: &[(&str, Field)] = &[
    ("model", Field::Model),
    ("models", Field::OtherModels),
    ("stream", Field::Stream),
    ("stream_options", Field::StreamOptions),
    ("max_tokens", Field::Limit(LimitField::MaxTokens)),
    ("max_completion_tokens", Field::Limit(LimitField::MaxCompletionTokens)),
    ("max_output_tokens", Field::Limit(LimitField::MaxOutputTokens)),
    ("n", Field::Answers("n")),
    ("best_of", Field::Answers("best_of")),
    ("prompt", Field::Prompts),
    ("background", Field::Background),
    ("service_tier", Field::ServiceTier),
    ("serviceTier", Field::ServiceTier),
    ("speed", Field::ServiceTier),
    ("generationConfig", Field::GenerationConfig),
    ("generation_config", Field::GenerationConfig),
    ("options", Field::Options),
];

const GENERATION_CONFIG_FIELDS: &[(&str, Field)] = &[
    ("maxOutputTokens", Field::Limit(LimitField::GenerationConfig)),
    ("max_output_tokens", Field::Limit(LimitField::GenerationConfig)),
    ("candidateCount", Field::Answers("generationConfig.candidateCount")),
    ("candidate_count", Field::Answers("generationConfig.candidateCount")),
];

const OPTIONS_FIELDS: &[(&str, Field)] = &[("num_predict", Field::Limit(LimitField::NumPredict))];

const STREAM_OPTIONS_FIELDS: &[(&str, Field)] = &[("include_usage", Field::IncludeUsage)];

impl RequestFacts {
    /// The greatest limit on the length of one answer, in tokens.
    pub fn max_output_tokens(&self) -> Option<u32> {
        self.output_limits.iter().filter_map(|limit| limit.tokens).max()
    }

    /// The greatest of the limits that stand under these names.
    pub fn longest_answer(&self, names: &[LimitField]) -> Option<u32> {
        let counts = |limit: &&OutputLimit| names.contains(&limit.field);
        self.output_limits.iter().filter(counts).filter_map(|limit| limit.tokens).max()
    }

    /// Whether a limit says in so many words that there is none.
    pub fn has_unlimited_output(&self) -> bool {
        self.output_limits.iter().any(|limit| limit.tokens.is_none())
    }

    /// Whether the caller asked for usage in its stream.
    pub fn includes_usage(&self) -> bool {
        matches!(self.include_usage, Some((Some(true), _)))
    }

    fn empty() -> Self {
        Self {
            model: None,
            names_other_models: false,
            stream: None,
            output_limits: Vec::new(),
            answers: 1,
            is_background: false,
            contents: Contents::default(),
            prompts: 1,
            service_tiers: Vec::new(),
            include_usage: None,
            members: Members { start: 0, is_empty: true },
            stream_options: Nested::Absent,
            generation_config: Nested::Absent,
            options: Nested::Absent,
        }
    }

    /// Takes one member of the body, or of an object in it that holds some of the fields.
    fn member<'a>(
        &mut self,
        scanner: &mut Scanner<'a>,
        key: Quoted<'a>,
        field: Option<Field>,
    ) -> Result<(), RequestFault> {
        match field {
            None => scanner.skip_member(key)?,
            Some(Field::Model) => self.model = model(scanner)?,
            Some(Field::OtherModels) => {
                self.names_other_models = scanner.kind()? != Kind::Null;
                scanner.skip()?;
            }
            Some(Field::Stream) => self.stream = boolean(scanner, "stream")?.0,
            Some(Field::IncludeUsage) => {
                self.include_usage = Some(boolean(scanner, "stream_options.include_usage")?);
            }
            Some(Field::Limit(field)) => self.limit(scanner, field)?,
            Some(Field::Answers(name)) => self.answers(scanner, name)?,
            Some(Field::Prompts) => {
                self.prompts = prompts(&mut scanner.clone())?;
                scanner.skip_member(key)?;
            }
            Some(Field::Background) => {
                self.is_background = boolean(scanner, "background")?.0.unwrap_or(false);
            }
            // Speech has a `speed` too, which is a number.
            Some(Field::ServiceTier) if scanner.kind()? == Kind::String => {
                self.service_tiers.push(scanner.string()?.chars().collect());
            }
            Some(Field::ServiceTier) => scanner.skip_member(key)?,
            Some(Field::StreamOptions) => {
                self.stream_options = self.nested(scanner, STREAM_OPTIONS_FIELDS)?
            }
            Some(Field::Options) => self.options = self.nested(scanner, OPTIONS_FIELDS)?,
            Some(Field::GenerationConfig) => {
                // It has two spellings, so the scanner cannot see the second one coming.
                if self.generation_config != Nested::Absent {
                    return Err(RequestFault::DuplicateKey(scanner.at()));
                }
                self.generation_config = self.nested(scanner, GENERATION_CONFIG_FIELDS)?;
            }
        }
        Ok(())
    }

    fn nested(
        &mut self,
        scanner: &mut Scanner<'_>,
        fields: &'static [(&'static str, Field)],
    ) -> Result<Nested, RequestFault> {
        match scanner.kind()? {
            Kind::Object => self.members(scanner, fields).map(Nested::Object),
            Kind::Null => Ok(Nested::Null(scanner.skip()?)),
            Kind::Array | Kind::String | Kind::Number | Kind::True | Kind::False => {
                scanner.skip()?;
                Ok(Nested::Other)
            }
        }
    }

    /// Reads an object and says where its members are.
    fn members(
        &mut self,
        scanner: &mut Scanner<'_>,
        fields: &'static [(&'static str, Field)],
    ) -> Result<Members, RequestFault> {
        let start = scanner.at() + 1;
        let mut is_empty = true;
        scanner.object(|scanner, key| {
            is_empty = false;
            self.member(scanner, key, known(key, fields)?)
        })?;
        Ok(Members { start, is_empty })
    }

    fn answers(&mut self, scanner: &mut Scanner<'_>, field: &'static str) -> Result<(), RequestFault> {
        let expected = "an integer from 0 to 128";
        let (count, _) = integer(scanner, field, expected)?;
        if count.is_some_and(|count| count > ANSWERS_MAX) {
            return Err(RequestFault::WrongValue { field, expected });
        }
        self.answers = self.answers.max(count.unwrap_or(1));
        Ok(())
    }

    fn limit(&mut self, scanner: &mut Scanner<'_>, field: LimitField) -> Result<(), RequestFault> {
        if self.output_limits.iter().any(|limit| limit.field == field) {
            return Err(RequestFault::DuplicateKey(scanner.at()));
        }
        let mut ahead = scanner.clone();
        // Ollama stops nowhere for what is not positive.
        let is_unlimited = field == LimitField::NumPredict
            && ahead.kind()? == Kind::Number
            && matches!(ahead.number()?, "-1" | "-2" | "0" | "-0");
        let (tokens, span) = if is_unlimited {
            (None, scanner.skip()?)
        } else {
            integer(scanner, field.name(), "an integer from 0 to 2147483647")?
        };
        self.output_limits.push(OutputLimit { field, tokens, span });
        Ok(())
    }
}

impl LimitField {
    /// The name, with the object it is in.
    pub fn name(self) -> &'static str {
        match self {
            Self::MaxTokens => "max_tokens",
            Self::MaxCompletionTokens => "max_completion_tokens",
            Self::MaxOutputTokens => "max_output_tokens",
            Self::GenerationConfig => "generationConfig.maxOutputTokens",
            Self::NumPredict => "options.num_predict",
        }
    }
}

fn model(scanner: &mut Scanner<'_>) -> Result<Option<String>, RequestFault> {
    match scanner.kind()? {
        Kind::Null => scanner.skip().map(|_| None).map_err(RequestFault::from),
        Kind::String => Ok(Some(scanner.string()?.chars().collect())),
        _ => Err(RequestFault::WrongValue { field: "model", expected: "a string" }),
    }
}

/// How many prompts a list has: each text or list of tokens is one, and a list of tokens alone is one as well.
fn prompts(scanner: &mut Scanner<'_>) -> Result<u32, RequestFault> {
    let mut count = 0u32;
    if scanner.kind()? == Kind::Array {
        scanner.list(|scanner| {
            count = count.saturating_add(u32::from(scanner.kind()? != Kind::Number));
            scanner.skip().map(|_| ())
        })?;
    }
    Ok(count.max(1))
}

fn boolean(
    scanner: &mut Scanner<'_>,
    field: &'static str,
) -> Result<(Option<bool>, Range<usize>), RequestFault> {
    let value = match scanner.kind()? {
        Kind::True => Some(true),
        Kind::False => Some(false),
        Kind::Null => None,
        _ => return Err(RequestFault::WrongValue { field, expected: "true or false" }),
    };
    Ok((value, scanner.skip()?))
}

/// A plain integer that fits in an `i32`, as the narrowest of the providers' parsers wants it.
fn integer(
    scanner: &mut Scanner<'_>,
    field: &'static str,
    expected: &'static str,
) -> Result<(Option<u32>, Range<usize>), RequestFault> {
    let wrong = RequestFault::WrongValue { field, expected };
    let kind = scanner.kind()?;
    let start = scanner.at();
    let value = match kind {
        Kind::Null => scanner.skip().map(|_| None)?,
        Kind::Number => {
            let value: i32 = scanner.number()?.parse().map_err(|_| wrong)?;
            Some(u32::try_from(value).map_err(|_| wrong)?)
        }
        _ => return Err(wrong),
    };
    Ok((value, start..scanner.at()))
}

/// The field that a key names.
fn known(key: Quoted<'_>, fields: &[(&'static str, Field)]) -> Result<Option<Field>, RequestFault> {
    if let Some(key) = key.ascii() {
        // As most keys are: no more than two comparisons of bytes for each name.
        let like = fields.iter().find(|(name, _)| key.eq_ignore_ascii_case(name));
        return match like {
            Some((name, field)) if key == *name => Ok(Some(*field)),
            Some((name, _)) => Err(RequestFault::AmbiguousKey(name)),
            None => Ok(None),
        };
    }
    for (name, field) in fields {
        if key.chars().eq(name.chars()) {
            return Ok(Some(*field));
        }
        if key.chars().map(fold).eq(name.chars().map(fold)) {
            return Err(RequestFault::AmbiguousKey(name));
        }
    }
    Ok(None)
}

/// The case folding of parsers that ignore case, of which Go's knows two letters beyond ASCII.
fn fold(char: char) -> char {
    match char {
        'ſ' => 's',
        '\u{212a}' => 'k',
        other => other.to_ascii_lowercase(),
    }
}

impl From<Fault> for RequestFault {
    fn from(fault: Fault) -> Self {
        match fault.kind {
            FaultKind::Syntax => Self::Syntax(fault.at),
            FaultKind::TooDeep => Self::TooDeep(fault.at),
            FaultKind::Trailing => Self::TrailingData(fault.at),
            FaultKind::Duplicate => Self::DuplicateKey(fault.at),
            FaultKind::TooManyKeys => Self::TooManyKeys(fault.at),
        }
    }
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
