//! What must be true of any bytes that reach the gateway, for the fuzzer: the targets in `fuzz/` call these functions, and
//! a fault is a panic. The tests below try each with the fuzzer's seeds and with random bytes.

mod answer;
mod config;
mod request;
mod usage;

pub use answer::{json_leaves, mask, scan_stream, sse_frame};
pub use config::config_toml;
pub use request::{head, path_canon, req_json};
pub use usage::usage_parse;

/// Longer inputs find nothing that shorter ones do not, and what is held back has a limit of its own.
const BYTES_MAX: usize = 16 * 1024;

/// Where the rest of the bytes is cut, and the rest.
fn cuts(data: &[u8]) -> (u64, &[u8]) {
    let (cuts, rest) = data.split_at_checked(8).unwrap_or((&[], data));
    let cuts = cuts.try_into().map_or(0, u64::from_le_bytes);
    (cuts, &rest[..rest.len().min(BYTES_MAX)])
}

/// Chunks of different lengths, most of them short, the same ones again and again.
fn chunks(mut cuts: u64, mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        cuts = cuts.rotate_right(6);
        let length = match cuts & 63 {
            0 => bytes.len(),
            length @ 48.. => usize::from(u8::try_from(length).ok()?) * 20,
            length => usize::from(u8::try_from(length).ok()?),
        };
        let (chunk, rest) = bytes.split_at(length.min(bytes.len()));
        bytes = rest;
        (!chunk.is_empty()).then_some(chunk)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Target = (&'static str, fn(&[u8]));
    const TARGETS: [Target; 9] = [
        ("sse_frame", sse_frame),
        ("json_leaves", json_leaves),
        ("scan_stream", scan_stream),
        ("mask", mask),
        ("usage_parse", usage_parse),
        ("head", head),
        ("path_canon", path_canon),
        ("req_json", req_json),
        ("config_toml", config_toml),
    ];

    fn seeds(name: &str) -> Vec<Vec<u8>> {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/seeds/").to_owned() + name;
        let files = std::fs::read_dir(folder).unwrap();
        files.map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect()
    }

    #[test]
    fn the_seeds_of_the_fuzzer_are_no_faults() {
        for (name, target) in TARGETS {
            let seeds = seeds(name);
            assert!(!seeds.is_empty(), "{name}");
            seeds.iter().for_each(|seed| target(seed));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_are_a_fault(
            cuts: [u8; 8],
            kind in 0u8..8,
            bytes in "([ -~\n]|data: |\r\n|\\{\"a\":|\\[\"|\"\\}|\"\\]|[\u{1}-\u{8}]|[é\u{200b}😀]|\\\\u0041|\\\\){0,60}",
        ) {
            for (name, target) in TARGETS {
                let has_kind = matches!(name, "mask" | "scan_stream" | "usage_parse");
                let kind = if has_kind { vec![kind] } else { vec![] };
                target(&[&cuts[..], &kind, bytes.as_bytes()].concat());
            }
        }

        #[test]
        fn no_seed_with_other_bytes_in_it_is_a_fault(
            which in any::<prop::sample::Index>(),
            edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        ) {
            for (name, target) in TARGETS {
                let seeds = seeds(name);
                let mut seed = seeds[which.index(seeds.len())].clone();
                for (at, byte) in &edits {
                    let at = at.index(seed.len());
                    seed[at] = *byte;
                }
                target(&seed);
            }
        }
    }
}
