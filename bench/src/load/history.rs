//! What was said before the question: turns of a chat in which code was pasted and explained, which is what makes the
//! prompts of agents long. Made by counting, so that each run sends the same bytes.

/// Sentences, so that no two turns are alike and none is a row of one letter.
const SENTENCES: [&str; 7] = [
    "The test fails only when the cache is cold, so the order of the two calls must matter.",
    "I moved the lock out of the loop, and the counter is now read once for each batch.",
    "Could you look at the second branch again? It returns early although the list isn't empty.",
    "That error says \"unexpected end of input\", which points at the reader and not at the parser.",
    "Rename the field first, then change its type; two small commits are easier to review than one.",
    "Nothing in the log explains why the retry took 30 s \u{2013} the limit is 5 s, as far as I can see.",
    "Here is the file as it is now:",
];
const CODE: &str = "```rust\nfn lines(path: &Path) -> io::Result<Vec<String>> {\n\tlet file = File::open(path)?;\n\
    \tBufReader::new(file).lines().filter(|line| !matches!(line, Ok(l) if l.is_empty())).collect()\n}\n```\n";
/// Small for talk; what is pasted is larger, but a turn's length makes no difference to who reads it to its end.
const TURN_BYTES: usize = 3000;

/// At least `bytes` of turns as JSON, each followed by a comma; the last is the assistant's.
pub(super) fn history(bytes: usize) -> String {
    let mut turns = String::with_capacity(bytes + 2 * TURN_BYTES);
    let mut at = 0_usize;
    while turns.len() < bytes || !at.is_multiple_of(2) {
        let role = if at.is_multiple_of(2) { "user" } else { "assistant" };
        // A value of text can always be written.
        turns += &format!(r#"{{"role":"{role}","content":{}}},"#, serde_json::Value::from(text(at)));
        at += 1;
    }
    turns
}

fn text(turn: usize) -> String {
    let mut text = format!("Step {turn}. ");
    let mut at = turn;
    while text.len() < TURN_BYTES {
        text += SENTENCES[at % SENTENCES.len()];
        text += if at.is_multiple_of(5) { "\n\n" } else { " " };
        if at.is_multiple_of(7) {
            text += CODE;
        }
        at += 1;
    }
    text
}
