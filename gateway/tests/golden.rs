//! Golden files: one payload in a provider's public shape, secrets removed, and beside it what the meter must make
//! of it. Each is read whole, byte by byte, cut at every byte and in every coding, and must mean the same every time.

#![expect(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use brotli::CompressorWriter;
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use gateway::catalogue::Catalogue;
use gateway::meter::{Ending, Meter, Metered};
use gateway::wire::{Decoder, Framing, WireFormat};
use policy::Usage;
use serde_json::{Map, Value, json};

const PAYLOADS_MIN: usize = 110;

#[test]
fn every_payload_means_what_is_expected_however_it_is_cut() {
    let payloads = payloads();
    assert!(payloads.len() >= PAYLOADS_MIN, "only {} payloads found", payloads.len());
    let faults: Vec<_> = payloads.iter().filter_map(|path| fault(path)).collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// The first way to cut a payload in which it does not mean what is expected.
fn fault(path: &Path) -> Option<String> {
    let body = fs::read(path).unwrap();
    let (reader, expected) = (Reader::of(path), expected(path));
    let check = |how: &str, chunks: &mut dyn Iterator<Item = &[u8]>| {
        let found = reader.read(chunks);
        (found != expected).then(|| format!("{} {how}: {found}, expected {expected}", path.display()))
    };
    let cut = |at: usize| {
        let (left, right) = body.split_at(at);
        check(&format!("cut at byte {at}"), &mut [left, right].into_iter())
    };
    check("whole", &mut std::iter::once(&body[..]))
        .or_else(|| check("byte by byte", &mut body.chunks(1)))
        .or_else(|| (0..body.len()).find_map(cut))
}

#[test]
fn every_payload_means_the_same_however_it_is_coded() {
    for path in payloads() {
        let (body, reader, expected) = (fs::read(&path).unwrap(), Reader::of(&path), expected(&path));
        for coding in ["gzip", "deflate", "br", "zstd"] {
            let coded = code(coding, &body);
            for size in [1, 7, coded.len()] {
                let mut decoder = Decoder::new(coding).unwrap();
                let plain: Vec<_> = coded.chunks(size).map(|chunk| decoder.decode(chunk).unwrap()).collect();
                let found = reader.read(&mut plain.iter().map(|chunk| &chunk[..]));
                assert_eq!(found, expected, "{} as {coding} by {size} bytes", path.display());
            }
        }
    }
}

fn code(coding: &str, body: &[u8]) -> Vec<u8> {
    let mut coded = Vec::new();
    match coding {
        "gzip" => GzEncoder::new(&mut coded, Compression::default()).write_all(body).unwrap(),
        "deflate" => ZlibEncoder::new(&mut coded, Compression::default()).write_all(body).unwrap(),
        "br" => CompressorWriter::new(&mut coded, 4096, 5, 20).write_all(body).unwrap(),
        "zstd" => coded = zstd::encode_all(body, 0).unwrap(),
        other => panic!("no coder for {other}"),
    }
    coded
}

/// How a payload is read.
struct Reader {
    wire: WireFormat,
    framing: Framing,
}

impl Reader {
    fn of(path: &Path) -> Self {
        Self { wire: wire(path), framing: framing(path) }
    }

    /// What the meter makes of a payload that comes in these chunks.
    fn read(&self, chunks: &mut dyn Iterator<Item = &[u8]>) -> Value {
        let mut meter = Meter::new(self.wire, self.framing);
        chunks.for_each(|chunk| meter.feed(chunk));
        as_json(&meter.finish())
    }
}

fn expected(payload: &Path) -> Value {
    serde_json::from_slice(&fs::read(expectation(payload)).unwrap()).unwrap()
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

/// The folder is named after the provider. Bedrock is not among those that are built in; it is read as Anthropic's
/// format, which its own shapes are added to.
fn wire(path: &Path) -> WireFormat {
    let name = path.parent().and_then(Path::file_name).and_then(|name| name.to_str()).unwrap();
    if name == "bedrock" {
        return WireFormat::Anthropic;
    }
    let providers = Catalogue::embedded().providers();
    providers.iter().find(|provider| provider.id.as_str() == name).unwrap().wire
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
