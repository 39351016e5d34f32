//! Hot: what a request's body consists of, as far as its size in tokens goes.
//!
//! Bytes say how many tokens a text has, more or less; they say little of an image, and nothing of a document. So the
//! scanner shows every string that it passes, and this takes note of the few that are no text: long runs of base64,
//! and images. It is one pass without a copy, and most strings are told to be ordinary by their first byte.
//!
//! Two questions are answered. For an estimate, base64 that begins as an image does is an image. For a bound that
//! nobody can undercut, an image is only what stands where a provider would take it for one or refuse the request:
//! the same bytes in a tool's arguments, in a schema or in a document of plain text are text to the model.

use super::scan::{Kind, Quoted};

/// A shorter string of base64's letters is as likely a word.
const RUN_BYTES_MIN: usize = 1024;

/// What an image is estimated at most, in tokens, and what one is that is given by its address.
pub(crate) const IMAGE_TOKENS: u64 = 5_000;

/// The heads of PNG, JPEG, GIF and WebP in base64.
const IMAGE_HEADS: [&str; 4] = ["iVBORw0KGgo", "/9j/", "R0lGOD", "UklGR"];
/// The heads of PDF and of office documents, new and old, in base64.
const DOCUMENT_HEADS: [&str; 3] = ["JVBERi", "UEsDB", "0M8R4KG"];

/// The members of a body that hold messages. What is in others is no image to anybody.
const MESSAGES: [&str; 4] = ["messages", "input", "contents", "images"];
/// The members of messages under which any JSON can stand that a model is shown as text: arguments and results of
/// tools, and Cohere's documents.
const OPAQUE: [&str; 5] = ["input", "args", "arguments", "response", "document"];
/// The members of a body that stand for input which the provider has.
const STORED: [&str; 5] =
    ["previous_response_id", "conversation", "prompt", "cachedContent", "cached_content"];
/// The keys of a message that say what their value is.
const ROLES: [(&str, Role); 16] = [
    ("data", Role::Data),
    ("url", Role::Url),
    ("type", Role::Type),
    ("image_url", Role::Image),
    ("media_type", Role::MediaType),
    ("mime_type", Role::MediaType),
    ("mimeType", Role::MediaType),
    ("file_uri", Role::File { is_image: true }),
    ("fileUri", Role::File { is_image: true }),
    ("file_id", Role::File { is_image: true }),
    ("file_url", Role::File { is_image: false }),
    ("file_data", Role::File { is_image: false }),
    ("document_url", Role::File { is_image: false }),
    ("video_url", Role::File { is_image: false }),
    ("audio_url", Role::File { is_image: false }),
    ("source", Role::Source),
];

/// What a key says of its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Other,
    Data,
    MediaType,
    Type,
    Url,
    Image,
    /// Anthropic's, of images and of documents alike.
    Source,
    /// What the provider has or fetches, which may be a whole book; an address may be one of an image as well.
    File {
        is_image: bool,
    },
}

/// What a body consists of, in bytes as they stand in it. What is not in one of the other counts is text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// The whole body.
    pub bytes: u64,
    /// In long runs of base64 that are no images.
    pub base64_bytes: u64,
    /// In images.
    pub image_bytes: u64,
    /// Images in the body.
    pub images: u32,
    /// What these are estimated at, in tokens.
    pub image_tokens: u64,
    /// Of the images, those that stand where a provider takes images.
    pub placed_images: u32,
    /// The bytes of those.
    pub placed_bytes: u64,
    /// Images that are given by their address.
    pub linked_images: u32,
    /// Strings that begin as an image does, where nobody is known to take them for one.
    pub doubtful_images: u32,
    /// Whether there is input whose size the body does not tell: documents, sound and films, files and conversations
    /// that the provider has, files that it fetches.
    pub is_unbounded: bool,
}

impl Contents {
    /// Bytes that are neither in a long run of base64 nor in an image.
    pub fn text_bytes(&self) -> u64 {
        self.bytes.saturating_sub(self.base64_bytes).saturating_sub(self.image_bytes)
    }

    /// Whether all of it is text, as far as it tells.
    pub fn is_text(&self) -> bool {
        let images = self.images + self.linked_images + self.doubtful_images;
        self.base64_bytes == 0 && images == 0 && !self.is_unbounded
    }
}

/// Tokens of so many bytes of base64, of which about 1.4 are a token. Rounded up.
pub(crate) fn base64_tokens(bytes: u64) -> u64 {
    bytes.saturating_mul(5).div_ceil(7)
}

/// Takes note of the contents while a scanner passes them.
#[derive(Clone, Debug)]
pub(super) struct Watch<'a> {
    contents: Contents,
    /// Whether the values are parts of messages.
    is_message: bool,
    /// Where the innermost container stands.
    container: Stands<'a>,
    /// The depth of the container in which everything is text.
    opaque_at: Option<usize>,
    /// What the innermost object says that its data are.
    media: Media,
    /// The data of the innermost object, until it is known what they are.
    data: Option<Run>,
    /// Whether any key was spelled with an escape, which costs more to compare.
    has_escaped_keys: bool,
}

#[derive(Clone, Copy, Debug)]
enum Stands<'a> {
    Under(Quoted<'a>),
    InList,
    /// The key was forgotten, because a container within ended.
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Media {
    Untold,
    Image,
    Text,
    /// Another, or several.
    Other,
}

/// The payload of a string.
#[derive(Clone, Copy, Debug)]
struct Run {
    bytes: u64,
    is_long_base64: bool,
    /// Whether it begins as an image does, or says that it is one.
    is_like_image: bool,
    is_like_document: bool,
}

impl<'a> Watch<'a> {
    pub(super) fn new() -> Self {
        Self {
            contents: Contents::default(),
            is_message: false,
            container: Stands::Unknown,
            opaque_at: None,
            media: Media::Untold,
            data: None,
            has_escaped_keys: false,
        }
    }

    /// There is a key that is spelled with an escape.
    pub(super) fn escaped_key(&mut self) {
        self.has_escaped_keys = true;
    }

    /// The result, for a body of so many bytes.
    pub(super) fn finish(&self, bytes: usize) -> Contents {
        Contents { bytes: bytes as u64, ..self.contents }
    }

    /// A member begins that no decision is taken from: of the body, or of an object in it.
    pub(super) fn begin(&mut self, key: Quoted<'_>, kind: Kind, is_of_body: bool) {
        self.is_message = is_of_body && MESSAGES.iter().any(|name| key.is(name));
        let is_stored = kind == Kind::Object || (kind != Kind::Null && !key.is("prompt"));
        self.contents.is_unbounded |= is_of_body && is_stored && STORED.iter().any(|name| key.is(name));
    }

    /// It ended.
    pub(super) fn end(&mut self) {
        self.settle_data();
        self.is_message = false;
    }

    /// A container opens under a key, or in a list; `depth` counts it.
    pub(super) fn open(&mut self, key: Option<Quoted<'a>>, depth: usize) {
        self.settle_data();
        self.container = key.map_or(Stands::InList, Stands::Under);
        // The members of the body itself are at depth 2, and one of them is called `input`.
        if self.is_message
            && self.opaque_at.is_none()
            && depth > 2
            && key.is_some_and(|key| self.is_opaque(key))
        {
            self.opaque_at = Some(depth);
        }
    }

    fn is_opaque(&self, key: Quoted<'a>) -> bool {
        OPAQUE.contains(&key.raw()) || (self.has_escaped_keys && OPAQUE.iter().any(|name| key.is(name)))
    }

    /// The container of this depth closes.
    pub(super) fn close(&mut self, depth: usize) {
        self.settle_data();
        self.container = Stands::Unknown;
        if self.opaque_at == Some(depth) {
            self.opaque_at = None;
        }
    }

    /// A string under a key, or in a list.
    #[inline]
    pub(super) fn string(&mut self, key: Option<Quoted<'a>>, text: Quoted<'a>) {
        let is_telling = |key: Quoted<'_>| is_telling(key.raw()) || self.has_escaped_keys;
        if text.raw().len() >= RUN_BYTES_MIN || has_head(text.raw()) || key.is_some_and(is_telling) {
            self.look_at(key, text);
        }
    }

    #[inline(never)]
    fn look_at(&mut self, key: Option<Quoted<'a>>, text: Quoted<'a>) {
        let run = Run::of(text);
        if self.is_message {
            self.contents.is_unbounded |= run.is_like_document;
        }
        if !self.is_message || self.opaque_at.is_some() {
            return self.count(run, false);
        }
        let Some(role) = key.map(Role::of) else {
            let is_list_of_images = matches!(self.container, Stands::Under(list) if list.is("images"));
            return self.count(run, is_list_of_images && run.is_like_image);
        };
        match role {
            Role::Data => {
                self.media = if self.data.is_some() { Media::Other } else { self.media };
                self.data.replace(run).into_iter().for_each(|first| self.count(first, false));
            }
            Role::MediaType => {
                self.media = self.media.and(Media::of(text));
                self.count(run, false);
            }
            Role::Type => {
                self.contents.is_unbounded |= text.is("item_reference");
                self.count(run, false);
            }
            Role::Url | Role::Image | Role::File { .. } if begins(text, "http") => self.link(role),
            Role::Image => self.count(run, begins(text, "data:image/")),
            Role::Url => self.count(run, self.parent() == Some(Role::Image) && begins(text, "data:image/")),
            Role::File { .. } => {
                self.contents.is_unbounded = true;
                self.count(run, false);
            }
            Role::Source | Role::Other => self.count(run, false),
        }
    }

    /// An address. Where it is not known of what, it is counted as an image and as unbounded.
    fn link(&mut self, role: Role) {
        let (is_image, is_unbounded) = match (role, self.parent()) {
            (Role::File { is_image }, _) => (is_image, true),
            (Role::Image, _) | (Role::Url, Some(Role::Image)) => (true, false),
            (Role::Url, Some(Role::Source) | None) => (true, true),
            (Role::Url, Some(Role::File { .. })) => (false, true),
            _ => (false, false),
        };
        self.contents.linked_images = self.contents.linked_images.saturating_add(u32::from(is_image));
        self.contents.is_unbounded |= is_unbounded;
    }

    /// What the key of the innermost object says; `None` where it was forgotten.
    fn parent(&self) -> Option<Role> {
        match self.container {
            Stands::Under(key) => Some(Role::of(key)),
            Stands::InList => Some(Role::Other),
            Stands::Unknown => None,
        }
    }

    /// The innermost object is complete, as far as it goes without containers in it.
    fn settle_data(&mut self) {
        if let Some(data) = self.data.take() {
            self.contents.is_unbounded |= self.media == Media::Other;
            self.count(data, self.media == Media::Image);
        }
        self.media = Media::Untold;
    }

    fn count(&mut self, run: Run, is_placed: bool) {
        let contents = &mut self.contents;
        if is_placed || run.is_long_base64 && run.is_like_image {
            contents.images = contents.images.saturating_add(1);
            contents.image_bytes += run.bytes;
            contents.image_tokens += base64_tokens(run.bytes).min(IMAGE_TOKENS);
        } else if run.is_long_base64 {
            contents.base64_bytes += run.bytes;
        }
        if is_placed {
            contents.placed_images = contents.placed_images.saturating_add(1);
            contents.placed_bytes += run.bytes;
        } else {
            contents.doubtful_images = contents.doubtful_images.saturating_add(u32::from(run.is_like_image));
        }
    }
}

impl Role {
    fn of(key: Quoted<'_>) -> Self {
        let known = ROLES.iter().find(|(name, _)| key.is(name));
        known.map_or(Self::Other, |(_, role)| *role)
    }
}

impl Media {
    fn of(text: Quoted<'_>) -> Self {
        if begins(text, "image/") {
            Self::Image
        } else if begins(text, "text/") {
            Self::Text
        } else {
            Self::Other
        }
    }

    /// Where an object says two things of its data, a provider may believe either.
    fn and(self, other: Self) -> Self {
        if self == Self::Untold || self == other { other } else { Self::Other }
    }
}

impl Run {
    fn of(text: Quoted<'_>) -> Self {
        let is_base64 = |bytes: &[u8]| bytes.len() >= RUN_BYTES_MIN && is_base64(bytes);
        if !has_head(text.raw()) {
            let bytes = text.raw().as_bytes();
            let is_long_base64 = is_base64(bytes);
            return Self {
                bytes: bytes.len() as u64,
                is_long_base64,
                is_like_image: false,
                is_like_document: false,
            };
        }
        let payload = payload(text);
        let bytes = payload.raw().as_bytes();
        let says = |kind: &str| begins(text, kind);
        let is_data_url = says("data:");
        Self {
            bytes: bytes.len() as u64,
            is_long_base64: is_base64(bytes),
            is_like_image: starts_with_one(payload, &IMAGE_HEADS) || is_data_url && says("data:image/"),
            is_like_document: starts_with_one(payload, &DOCUMENT_HEADS)
                || is_data_url && !says("data:image/") && !says("data:text/"),
        }
    }
}

/// Whether a short string may matter by how it begins: an address, a media type, data, the head of a file, the name
/// of an item, or whatever is spelled with an escape.
fn has_head(raw: &str) -> bool {
    let Some(head) = raw.as_bytes().first_chunk::<4>() else { return false };
    let is_escaped = head.contains(&b'\\');
    is_escaped
        || matches!(
            &head.map(|byte| byte | 0x20),
            b"http"
                | b"imag"
                | b"data"
                | b"item"
                | b"ivbo"
                | b"/9j/"
                | b"r0lg"
                | b"uklg"
                | b"jvbe"
                | b"uesd"
                | b"0m8r"
        )
}

/// Whether a string under this key may matter whatever it is: data, its type, a file of any kind. The others say
/// something of their value only when it begins as [`has_head`] wants it.
fn is_telling(key: &str) -> bool {
    matches!(
        key.as_bytes(),
        [b'a', b'u', ..] | [b'd', b'a' | b'o', ..] | [b'f', b'i', ..] | [b'm', b'e' | b'i', ..] | [b'v', ..]
    )
}

/// What follows `data:…;base64,`, or the whole string.
fn payload(text: Quoted<'_>) -> Quoted<'_> {
    const MARK: &str = ";base64,";
    if !begins(text, "data:") {
        return text;
    }
    let raw = text.raw();
    let head = raw.get(..raw.floor_char_boundary(128)).unwrap_or(raw);
    head.find(MARK).map_or(text, |at| text.after(at + MARK.len()))
}

/// Whether the text begins like this, in letters of either case and however it is escaped.
fn begins(text: Quoted<'_>, prefix: &str) -> bool {
    let mut chars = text.chars();
    prefix.chars().all(|wanted| chars.next().is_some_and(|char| char.eq_ignore_ascii_case(&wanted)))
}

/// Whether the text starts with one of these, however it is escaped.
fn starts_with_one(text: Quoted<'_>, heads: &[&str]) -> bool {
    let starts_with = |head: &&str| {
        let mut chars = text.chars();
        head.chars().all(|wanted| chars.next() == Some(wanted))
    };
    heads.iter().any(starts_with)
}

/// Whether there is nothing but letters of base64, of either alphabet, and padding at the end.
fn is_base64(bytes: &[u8]) -> bool {
    let unpadded = bytes.strip_suffix(b"==").or_else(|| bytes.strip_suffix(b"=")).unwrap_or(bytes);
    // Text is told by its first words.
    if !unpadded.iter().take(16).all(|byte| is_letter(*byte)) {
        return false;
    }
    // Without an early end within a chunk, which the compiler turns into vector code.
    let is_clean = |chunk: &[u8]| chunk.iter().fold(true, |is_clean, byte| is_clean & is_letter(*byte));
    let (chunks, rest) = unpadded.as_chunks::<64>();
    chunks.iter().all(|chunk| is_clean(chunk)) && is_clean(rest)
}

fn is_letter(byte: u8) -> bool {
    let letter = (byte | 0x20).wrapping_sub(b'a') < 26;
    // The slash stands before the digits.
    let digit = byte.wrapping_sub(b'/') < 11;
    letter | digit | (byte == b'+') | (byte == b'-') | (byte == b'_')
}

#[cfg(test)]
#[path = "contents_tests.rs"]
mod tests;
