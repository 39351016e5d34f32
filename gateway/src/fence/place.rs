//! Where a text stands in an answer. What stands at one place, event after event, is one text.
//!
//! A place is the path of keys that leads there, without the positions in lists, but with what the objects on the way
//! say of their own position: providers number the choices, blocks, items and tool calls of a stream, and send the
//! pieces of several by turns.

/// Objects of one event whose positions are remembered.
const OBJECTS_MAX: usize = 16;

/// Where a value stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    hash: u64,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Nowhere,
    /// The event itself, or the answer within it.
    Top,
    Value,
    /// A part of the request that is repeated.
    Echo,
    /// What an object, whose hash this is, says of its position.
    Position,
}

/// What the objects of an event said of their positions so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Positions {
    objects: [(u64, u64); OBJECTS_MAX],
    count: usize,
}

impl Place {
    // Any number will do by which its id is not that of nowhere, which what is no text has.
    pub(super) const ROOT: Self = Self { hash: 0xcbf2_9ce4_8422_2325, kind: Kind::Top };
    pub(super) const NOWHERE: Self = Self { hash: 0, kind: Kind::Nowhere };

    /// By which the places of different texts are told apart.
    pub(super) fn id(self) -> u64 {
        mix(self.hash, self.kind as u64)
    }

    /// Whether the text repeats what the request said.
    pub(super) fn is_echo(self) -> bool {
        self.kind == Kind::Echo
    }

    /// The place of the member `key` of the object here.
    pub(super) fn member(self, key: &[u8], positions: &Positions) -> Self {
        if tells_position(key) {
            return Self { hash: self.hash, kind: Kind::Position };
        }
        let kind = match self.kind {
            Kind::Top if key == b"response" => Kind::Top,
            Kind::Top if repeats_request(key) => Kind::Echo,
            Kind::Echo => Kind::Echo,
            _ => Kind::Value,
        };
        Self { hash: mix(mix(self.hash, positions.of(self.hash)), hash(key)), kind }
    }
}

impl Positions {
    /// A value ended; if it tells the position of its object, that is remembered.
    pub(super) fn note(&mut self, place: Place, value: &[u8]) {
        if place.kind != Kind::Position {
            return;
        }
        let known = self.objects[..self.count].iter_mut().find(|(object, _)| *object == place.hash);
        match (known, self.count) {
            (Some((_, position)), _) => *position = mix(position.rotate_left(7), hash(value)),
            (None, OBJECTS_MAX) => {}
            (None, count) => {
                self.objects[count] = (place.hash, hash(value));
                self.count += 1;
            }
        }
    }

    /// The event is over.
    pub(super) fn clear(&mut self) {
        self.count = 0;
    }

    fn of(&self, object: u64) -> u64 {
        let known = self.objects[..self.count].iter().find(|(other, _)| *other == object);
        known.map_or(0, |(_, position)| *position)
    }
}

/// The keys by which objects tell their position.
fn tells_position(key: &[u8]) -> bool {
    matches!(key, b"index" | b"output_index" | b"content_index" | b"summary_index" | b"item_id")
}

/// The keys of what providers repeat of a request in their answer: no words of the model's.
fn repeats_request(key: &[u8]) -> bool {
    matches!(key, b"instructions" | b"tools" | b"metadata" | b"prompt")
}

/// Places are told apart; nobody is kept from making two of them alike.
fn hash(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks();
    let rest = rest.iter().fold(bytes.len() as u64, |word, byte| word << 8 | u64::from(*byte));
    words.iter().fold(mix(0, rest), |hash, word| mix(hash, u64::from_le_bytes(*word)))
}

fn mix(hash: u64, with: u64) -> u64 {
    (hash ^ with).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(keys: &[&str], positions: &Positions) -> Place {
        keys.iter().fold(Place::ROOT, |place, key| place.member(key.as_bytes(), positions))
    }

    #[test]
    fn objects_that_number_themselves_have_places_of_their_own() {
        let keys = ["choices", "delta", "content"];
        let choice = |index: &str| {
            let mut positions = Positions::default();
            let object = Place::ROOT.member(b"choices", &positions);
            positions.note(object.member(b"index", &positions), index.as_bytes());
            at(&keys, &positions).id()
        };
        assert_eq!(choice("0"), choice("0"));
        assert_ne!(choice("0"), choice("1"));
        assert_ne!(choice("0"), at(&["choices", "delta", "refusal"], &Positions::default()).id());
    }

    #[test]
    fn what_stands_outermost_stands_somewhere() {
        assert_ne!(Place::ROOT.id(), Place::NOWHERE.id());
    }

    #[test]
    fn several_positions_of_an_object_count_together() {
        let item = |output: &str, content: &str| {
            let mut positions = Positions::default();
            positions.note(Place::ROOT.member(b"output_index", &positions), output.as_bytes());
            positions.note(Place::ROOT.member(b"content_index", &positions), content.as_bytes());
            at(&["delta"], &positions).id()
        };
        assert_ne!(item("0", "1"), item("1", "0"));
        assert_eq!(item("1", "0"), item("1", "0"));
    }

    #[test]
    fn what_is_repeated_of_the_request_is_an_echo() {
        let positions = Positions::default();
        assert!(at(&["response", "instructions"], &positions).is_echo());
        assert!(at(&["tools", "function", "description"], &positions).is_echo());
        assert!(!at(&["content", "input", "instructions"], &positions).is_echo());
    }
}
