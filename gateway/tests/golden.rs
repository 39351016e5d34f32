//! Golden files: one payload in a provider's public shape, secrets removed, and beside it what the meter must make
//! of it. Each is read whole, byte by byte, and cut at every byte, and must mean the same every time.

#![expect(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

use std::fs;
use std::path::{Path, PathBuf};

use gateway::meter::{Ending, Meter, Metered};
use gateway::wire::{Framing, WireFormat};
use policy::Usage;
use serde_json::{Map, Value, json};

const PAYLOADS_MIN: usize = 60;

#[test]
fn every_payload_means_what_is_expected_however_it_is_cut() {
    let payloads = payloads();
    assert!(payloads.len() >= PAYLOADS_MIN, "only {} payloads found", payloads.len());
    for path in payloads {
        let body = fs::read(&path).unwrap();
        let expected: Value = serde_json::from_slice(&fs::read(expectation(&path)).unwrap()).unwrap();
        let (wire, framing) = (wire(&path), framing(&path));
        let check = |how: &str, chunks: &mut dyn Iterator<Item = &[u8]>| {
            let mut meter = Meter::new(wire, framing);
            chunks.for_each(|chunk| meter.feed(chunk));
            assert_eq!(as_json(&meter.finish()), expected, "{} {how}", path.display());
        };
        check("whole", &mut std::iter::once(&body[..]));
        check("byte by byte", &mut body.chunks(1));
        for cut in 0..body.len() {
            let (left, right) = body.split_at(cut);
            check(&format!("cut at byte {cut}"), &mut [left, right].into_iter());
        }
    }
}

#[test]
fn no_expectation_is_without_its_payload() {
    let expectations = files().into_iter().filter(|path| is_expectation(path)).count();
    assert_eq!(expectations, payloads().len());
}

fn payloads() -> Vec<PathBuf> {
    files().into_iter().filter(|path| !is_expectation(path)).collect()
}

fn expectation(payload: &Path) -> PathBuf {
    let mut name = payload.as_os_str().to_owned();
    name.push(".expected.json");
    name.into()
}

fn is_expectation(path: &Path) -> bool {
    path.to_string_lossy().ends_with(".expected.json")
}

fn files() -> Vec<PathBuf> {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let entries =
        |folder: &Path| fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    let folders = entries(&golden).into_iter().filter(|path| path.is_dir());
    let mut files: Vec<_> = folders.flat_map(|folder| entries(&folder)).collect();
    files.sort();
    files
}

/// The folder is named after the provider.
fn wire(path: &Path) -> WireFormat {
    match path.parent().and_then(Path::file_name).and_then(|name| name.to_str()).unwrap() {
        "openai" | "mistral" | "groq" | "openrouter" | "deepseek" => WireFormat::OpenAi,
        other => other.parse().unwrap(),
    }
}

fn framing(path: &Path) -> Framing {
    match path.extension().and_then(|extension| extension.to_str()).unwrap() {
        "sse" => Framing::Sse,
        "ndjson" => Framing::Ndjson,
        "json" => Framing::Json,
        other => panic!("no framing for `.{other}`"),
    }
}

/// What is nothing is left out.
fn as_json(metered: &Metered) -> Value {
    let mut out = Map::new();
    if let Some(usage) = metered.usage {
        out.insert("usage".into(), usage_as_json(usage));
    }
    if let Some(model) = &metered.model {
        out.insert("model".into(), json!(model));
    }
    if let Some(tier) = &metered.service_tier {
        out.insert("service_tier".into(), json!(tier));
    }
    if let Some(cost) = metered.reported_cost {
        out.insert("cost_nano_usd".into(), json!(cost.nanos()));
    }
    if metered.has_bad_numbers {
        out.insert("has_bad_numbers".into(), json!(true));
    }
    out.insert("output_text_bytes".into(), json!(metered.output_text_bytes));
    let ending = match metered.ending {
        Ending::Open => "open",
        Ending::Complete => "complete",
        Ending::Error => "error",
    };
    out.insert("ending".into(), json!(ending));
    Value::Object(out)
}

fn usage_as_json(usage: Usage) -> Value {
    let mut out = json!({
        "input": usage.input,
        "cache_read": usage.cache_read,
        "cache_write_5m": usage.cache_write_5m,
        "cache_write_1h": usage.cache_write_1h,
        "output": usage.output,
        "reasoning": usage.reasoning,
    });
    for (name, count) in [
        ("audio_input", usage.audio_input),
        ("audio_cache_read", usage.audio_cache_read),
        ("audio_output", usage.audio_output),
        ("image_input", usage.image_input),
        ("image_cache_read", usage.image_cache_read),
        ("image_output", usage.image_output),
        ("searches", usage.searches),
    ] {
        if count > 0 {
            out[name] = json!(count);
        }
    }
    out
}
