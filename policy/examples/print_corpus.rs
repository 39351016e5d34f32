//! Prints what the tests of scanning try, a JSON object a line, for scanners that others have written:
//! its `id`, its `text`, what is `ours` to say of it, and the `shape` of the key where one stands in it.
//!
//! `print_corpus SEEDS`: so many ordinary texts, then as many keys of each shape as there are ways to write them down.

#[path = "../tests/corpus/mod.rs"]
mod corpus;

use std::io::{self, Write};

use policy::scan::{Shape, shapes};
use serde_json::json;

use corpus::Draw;

/// How a key is written down.
const WAYS: [(&str, &str); 4] =
    [("API_KEY=\"", "\"\n"), ("export TOKEN='", "'\n"), ("{\n  \"api_key\": \"", "\"\n}\n"), ("", "\n")];

fn main() -> io::Result<()> {
    let seeds = std::env::args().nth(1).and_then(|seeds| seeds.parse().ok()).unwrap_or(10_000);
    let mut out = io::stdout().lock();
    for seed in 0..seeds {
        let text = corpus::text(&mut Draw::new(seed));
        writeln!(out, "{}", json!({ "id": format!("benign-{seed}"), "ours": found(&text), "text": text }))?;
    }
    let mut draw = Draw::new(1);
    for shape in Shape::ALL {
        for (at, (before, after)) in WAYS.iter().enumerate() {
            let text = format!("{before}{}{after}", corpus::key(shape, &mut draw));
            let id = format!("{}-{at}", shape.as_str());
            writeln!(
                out,
                "{}",
                json!({ "id": id, "shape": shape.as_str(), "ours": found(&text), "text": text })
            )?;
        }
    }
    out.flush()
}

/// What we take it for.
fn found(text: &str) -> Vec<&'static str> {
    let mut found = Vec::new();
    shapes(text.as_bytes(), |shape, _| found.push(shape.as_str()));
    found
}
