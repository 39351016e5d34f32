//! What must be true of any bytes where a token, a scope or a usage is read, for the fuzzer: the targets in `fuzz/` call
//! these functions, and a fault is a panic. The tests below try each with the fuzzer's seeds and with random bytes.

use arbitrary::{Result as Drawn, Unstructured};

use crate::{
    ANCESTORS_MAX, Ask, Caller, Capability, CapabilityId, Method, MintedToken, ModelGlob, Narrowing,
    Overflow, Part, Price, ProviderId, Quote, RateLimit, Rates, RiskVerdict, RouteClass, Rules, Scope,
    TimestampUs, TokenPrice, TokenRef, Transport, Usage, admit, attenuate,
};

const PROVIDERS: [&str; 4] = ["openai", "anthropic", "groq", "google"];
/// What the names of models and patterns for them consist of: few letters, so that they meet.
const LETTERS: [&str; 8] = ["*", "a", "b", "-", "gpt", "4", "o", "mini"];
/// Narrowings that are tried one after the other; more than a line may have.
const LINE_TRIES: usize = 2 * ANCESTORS_MAX;
const MILLION: u128 = 1_000_000;

/// A token is read in one way only: an edited one is refused, or stands for something else.
pub fn token_parse(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if TokenRef::parse(&text).is_ok() {
        assert!(TokenRef::looks_like(&text) && text.len() == 62);
        assert!(TokenRef::is_within(&format!("tfk_é{text}tfk_")));
    }
    let mut bytes = Unstructured::new(data);
    let (Ok(id), Ok(secret)) = (bytes.arbitrary::<[u8; 8]>(), bytes.arbitrary::<[u8; 32]>()) else { return };
    let minted = MintedToken::from_random(id, secret);
    let mut edited = minted.text.clone().into_bytes();
    while let (Ok(at), Ok(byte)) = (bytes.choose_index(edited.len()), bytes.arbitrary()) {
        edited[at] = byte;
        if bytes.is_empty() {
            break;
        }
    }
    let Ok(edited) = String::from_utf8(edited) else { return };
    let Ok(read) = TokenRef::parse(&edited) else { return assert_ne!(edited, minted.text) };
    let is_same = (read.id(), read.secret_hash()) == (minted.id, minted.secret_hash);
    assert_eq!(is_same, edited == minted.text, "{edited}");
}

/// Whatever a capability is made from another with, it may do nothing that the other may not.
pub fn scope_eval(data: &[u8]) {
    // Where the bytes end, the line is as long as it is.
    let _ = play_line(&mut Unstructured::new(data));
}

fn play_line(bytes: &mut Unstructured<'_>) -> Drawn<()> {
    let first = narrowing(bytes)?;
    let scope = Scope {
        providers: first.providers.unwrap_or_default(),
        models: first.models.unwrap_or_default(),
        routes: first.routes.unwrap_or_default(),
        methods: first.methods.unwrap_or_default(),
        requires_unix_socket: first.requires_unix_socket.unwrap_or_default(),
    };
    let mut line = vec![capability(0, None, scope)];
    for _ in 0..LINE_TRIES {
        // Bytes that have ended are zeros for ever after.
        if bytes.is_empty() {
            break;
        }
        let wanted = narrowing(bytes)?;
        let (rules, parent) = (rules(line.clone()), line.last().expect("it has a root"));
        // One that would be wider is refused, and the next is tried.
        if let Ok(narrowed) = attenuate(&rules, parent, &wanted, 10) {
            let child = capability(line.len(), Some(line.len() - 1), narrowed.scope);
            line.push(Capability { expires_at: narrowed.expires_at, ..child });
        }
        for _ in 0..4 {
            let request = request(bytes)?;
            for pair in line.windows(2) {
                assert!(!may(&pair[1], &request) || may(&pair[0], &request), "{request:?} {pair:#?}");
            }
        }
    }
    Ok(())
}

/// A cost is the exact sum of its parts, rounded up once; each token is in one part; and more is never cheaper.
pub fn cost(data: &[u8]) {
    let mut bytes = Unstructured::new(data);
    let (Ok(rates), Ok(usage)) = (rates(&mut bytes), usage(&mut bytes)) else { return };
    let price = Price::flat(rates);
    let total = check_bill(&price, &usage);
    let (Ok(which), Ok(more)) = (bytes.int_in_range(0..=4), bytes.arbitrary::<u32>()) else { return };
    let mut longer = usage;
    let field = match which {
        0 => &mut longer.input,
        1 => &mut longer.cache_read,
        2 => &mut longer.cache_write_1h,
        3 => &mut longer.output,
        _ => &mut longer.searches,
    };
    *field = field.saturating_add(u64::from(more));
    if let Ok(dearer) = check_bill(&price, &longer) {
        assert!(total.is_ok_and(|total| total <= dearer), "{total:?} for {usage:?}, {dearer} for {longer:?}");
    }
}

/// The cost in nano-dollars, worked out in another way than the bill does it.
fn check_bill(price: &Price, usage: &Usage) -> Result<i64, Overflow> {
    let bill = price.bill(usage, None);
    let (mut whole, mut rest, mut tokens) = (0u128, 0u128, 0u128);
    for line in bill.lines() {
        let product = u128::from(line.count) * u128::from(line.price.nanos_per_mtok());
        (whole, rest) = (whole + product / MILLION, rest + product % MILLION);
        tokens += if line.part.is_by_the_piece() { 0 } else { u128::from(line.count) };
    }
    let wholes = [usage.input, usage.cache_read, usage.cache_write_5m, usage.cache_write_1h, usage.output];
    assert_eq!(tokens, wholes.map(u128::from).into_iter().sum::<u128>());
    let expected = i64::try_from(whole + rest.div_ceil(MILLION)).map_err(|_| Overflow);
    let charged = price.cost(usage, None).map(|amount| amount.nanos());
    assert_eq!(charged, expected, "{usage:?} {bill:?}");
    charged
}

/// A capability of a number, made from that of another.
pub(crate) fn capability(number: usize, parent: Option<usize>, scope: Scope) -> Capability {
    Capability {
        id: id(number),
        secret_hash: [0; 32],
        agent: "ci".parse().expect("a name"),
        parent: parent.map(id),
        scope,
        created_at: 0,
        expires_at: Some(1_000),
        revoked_at: None,
    }
}

/// The id of the capability of a number.
pub(crate) fn id(number: usize) -> CapabilityId {
    format!("{number:08}").parse().expect("eight digits")
}

/// Rules that know these capabilities and nothing else.
pub(crate) fn rules(capabilities: impl IntoIterator<Item = Capability>) -> Rules {
    let capabilities = capabilities.into_iter().map(|capability| (capability.id, capability)).collect();
    Rules { capabilities, ..Rules::default() }
}

/// What a request wants, as far as a scope is asked.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) provider: ProviderId,
    pub(crate) class: RouteClass,
    pub(crate) method: Method,
    pub(crate) model: Option<String>,
    pub(crate) names_other_models: bool,
    pub(crate) is_unix: bool,
    pub(crate) at: TimestampUs,
}

/// Whether this capability alone, whatever it was made from, may do that.
pub(crate) fn may(capability: &Capability, request: &Request) -> bool {
    let alone = Capability { parent: None, ..capability.clone() };
    let ask = Ask {
        provider: &request.provider,
        class: request.class,
        method: request.method,
        model: request.model.as_deref(),
        names_other_models: request.names_other_models,
        transport: if request.is_unix { Transport::Unix } else { Transport::Tcp },
        quote: Quote::FREE,
    };
    let risk = RiskVerdict::default();
    let caller = Caller { agent: &alone.agent, capability: Some(&alone), risk: &risk };
    let rules = Rules::default();
    rules.check_caller(Some(&alone), &alone.agent, request.at).is_ok() && admit(&rules, &caller, &ask).is_ok()
}

fn request(bytes: &mut Unstructured<'_>) -> Drawn<Request> {
    Ok(Request {
        provider: provider(bytes)?,
        class: *bytes.choose(&RouteClass::ALL)?,
        method: *bytes.choose(&Method::ALL)?,
        model: if bytes.ratio(9u8, 10u8)? { Some(name(bytes)?.replace('*', "x")) } else { None },
        names_other_models: bytes.ratio(1u8, 10u8)?,
        is_unix: bytes.arbitrary()?,
        at: bytes.int_in_range(0..=1_500)?,
    })
}

fn narrowing(bytes: &mut Unstructured<'_>) -> Drawn<Narrowing> {
    Ok(Narrowing {
        providers: some(bytes, provider)?,
        models: some(bytes, |bytes| Ok(name(bytes)?.parse::<ModelGlob>().expect("visible and short")))?,
        routes: some(bytes, |bytes| bytes.choose(&RouteClass::ALL).copied())?,
        methods: some(bytes, |bytes| bytes.choose(&Method::ALL).copied())?,
        ttl_us: if bytes.arbitrary()? { Some(bytes.int_in_range(1..=1_200)?) } else { None },
        rate: RateLimit::default(),
        budgets: Vec::new(),
        requires_unix_socket: if bytes.ratio(1u8, 5u8)? { Some(bytes.arbitrary()?) } else { None },
    })
}

/// A list of up to three, an empty one too, or none.
fn some<T>(
    bytes: &mut Unstructured<'_>,
    draw: impl Fn(&mut Unstructured<'_>) -> Drawn<T>,
) -> Drawn<Option<Vec<T>>> {
    let count = bytes.int_in_range(0..=6)?;
    if count > 3 {
        return Ok(None);
    }
    (0..count).map(|_| draw(bytes)).collect::<Drawn<Vec<T>>>().map(Some)
}

fn provider(bytes: &mut Unstructured<'_>) -> Drawn<ProviderId> {
    Ok(bytes.choose(&PROVIDERS)?.parse().expect("a name"))
}

fn name(bytes: &mut Unstructured<'_>) -> Drawn<String> {
    (0..bytes.int_in_range(1..=6)?).map(|_| bytes.choose(&LETTERS).copied()).collect()
}

fn rates(bytes: &mut Unstructured<'_>) -> Drawn<Rates> {
    let mut rates = Rates::default();
    for part in Part::ALL {
        if bytes.arbitrary()? {
            rates = rates.with(part, TokenPrice::from_nanos_per_mtok(number(bytes)?));
        }
    }
    Ok(rates)
}

fn usage(bytes: &mut Unstructured<'_>) -> Drawn<Usage> {
    Ok(Usage {
        input: number(bytes)?,
        cache_read: number(bytes)?,
        cache_write_5m: number(bytes)?,
        cache_write_1h: number(bytes)?,
        output: number(bytes)?,
        reasoning: number(bytes)?,
        audio_input: number(bytes)?,
        audio_cache_read: number(bytes)?,
        audio_output: number(bytes)?,
        image_input: number(bytes)?,
        image_cache_read: number(bytes)?,
        image_output: number(bytes)?,
        searches: number(bytes)?,
    })
}

/// A number of any size, small ones as often as great ones.
fn number(bytes: &mut Unstructured<'_>) -> Drawn<u64> {
    Ok(match bytes.int_in_range(0..=3)? {
        0 => u64::from(bytes.arbitrary::<u8>()?),
        1 => u64::from(bytes.arbitrary::<u32>()?),
        2 => bytes.arbitrary()?,
        _ => u64::MAX - u64::from(bytes.arbitrary::<u8>()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Target = (&'static str, fn(&[u8]));
    const TARGETS: [Target; 3] = [("token_parse", token_parse), ("scope_eval", scope_eval), ("cost", cost)];

    #[test]
    fn the_seeds_of_the_fuzzer_are_no_faults() {
        for (name, target) in TARGETS {
            let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/seeds/").to_owned() + name;
            let files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
            assert!(!files.is_empty(), "{name}");
            files.iter().for_each(|file| target(&std::fs::read(file).unwrap()));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_are_a_fault(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            TARGETS.iter().for_each(|(_, target)| target(&bytes));
        }
    }
}
