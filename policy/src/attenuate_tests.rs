use std::collections::HashSet;

use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::*;
use crate::fuzzing::{Request, capability, id, may, rules};

const PROVIDERS: [&str; 4] = ["openai", "anthropic", "groq", "google"];
const GLOBS: [&str; 12] = [
    "*",
    "gpt-*",
    "gpt-4o*",
    "gpt-4o",
    "gpt-4o-mini",
    "*-mini",
    "g*o*",
    "claude-*",
    "claude-*-4*",
    "**",
    "gpt-4*-mini",
    "o3",
];
const MODELS: [&str; 8] =
    ["gpt-4o", "gpt-4o-mini", "gpt-5", "claude-opus-4-5", "claude-3", "o3", "gpt-4.1-mini", "x"];

fn parsed<T: std::str::FromStr<Err: std::fmt::Debug>>(texts: &[&str]) -> Vec<T> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[track_caller]
fn check(scope: Scope, wanted: Narrowing, code: Option<DenialCode>) {
    let parent = capability(1, None, scope);
    let result = attenuate(&rules([parent.clone()]), &parent, &wanted, 10);
    assert_eq!(result.as_ref().err().map(Denial::code), code, "{result:?}");
}

#[test]
fn what_is_left_out_is_taken_over() {
    let scope = Scope {
        providers: parsed(&["openai"]),
        models: parsed(&["gpt-*"]),
        routes: vec![RouteClass::Generate, RouteClass::File],
        methods: vec![Method::Post],
        requires_unix_socket: true,
    };
    let parent = capability(1, None, scope.clone());
    let narrowed = attenuate(&rules([parent.clone()]), &parent, &Narrowing::default(), 10).unwrap();
    assert_eq!(narrowed, Narrowed { scope, expires_at: Some(1_000), rate: RateLimit::default() });
}

#[test]
fn nothing_gets_wider() {
    let out = Some(DenialCode::OutOfScope);
    let scope = || Scope { providers: parsed(&["openai", "groq"]), ..Scope::default() };
    let providers = |names| Narrowing { providers: Some(parsed(names)), ..Narrowing::default() };
    check(scope(), providers(&["openai"]), None);
    check(scope(), providers(&["openai", "google"]), out);
    check(Scope::OPEN, providers(&["google"]), None);
    let scope = || Scope { models: parsed(&["gpt-4*", "o3"]), ..Scope::default() };
    let models = |globs| Narrowing { models: Some(parsed(globs)), ..Narrowing::default() };
    check(scope(), models(&["gpt-4o*", "o3", "gpt-4*"]), None);
    check(scope(), models(&["gpt-*"]), out);
    check(scope(), models(&["*"]), out);
    check(scope(), models(&["o*"]), out);
    let routes = |routes: &[RouteClass]| Narrowing { routes: Some(routes.to_vec()), ..Narrowing::default() };
    check(Scope::OPEN, routes(&[RouteClass::Generate]), None);
    check(Scope::OPEN, routes(&[RouteClass::File]), out);
    check(Scope { routes: vec![RouteClass::Mint], ..Scope::OPEN }, routes(&[RouteClass::Generate]), out);
    let methods = Narrowing { methods: Some(vec![Method::Get, Method::Post]), ..Narrowing::default() };
    check(Scope { methods: vec![Method::Get], ..Scope::OPEN }, methods, out);
    let socket = |is_required| Narrowing { requires_unix_socket: Some(is_required), ..Narrowing::default() };
    check(Scope { requires_unix_socket: true, ..Scope::OPEN }, socket(false), out);
    check(Scope::OPEN, socket(true), None);
}

#[test]
fn an_empty_list_is_no_limit_by_the_back_door() {
    let limited =
        || Scope { models: parsed(&["gpt-4*"]), providers: parsed(&["openai"]), ..Scope::default() };
    let invalid = Some(DenialCode::InvalidRequest);
    check(limited(), Narrowing { models: Some(Vec::new()), ..Narrowing::default() }, invalid);
    check(limited(), Narrowing { providers: Some(Vec::new()), ..Narrowing::default() }, invalid);
    check(Scope::OPEN, Narrowing { routes: Some(Vec::new()), ..Narrowing::default() }, invalid);
}

#[test]
fn no_child_outlives_an_ancestor() {
    let root = Capability { expires_at: Some(500), ..capability(1, None, Scope::OPEN) };
    let parent = Capability { expires_at: None, ..capability(2, Some(1), Scope::OPEN) };
    let rules = rules([root, parent.clone()]);
    let end = |ttl_us| {
        let wanted = Narrowing { ttl_us, ..Narrowing::default() };
        attenuate(&rules, &parent, &wanted, 100).map(|narrowed| narrowed.expires_at)
    };
    assert_eq!(end(None).unwrap(), Some(500));
    assert_eq!(end(Some(400)).unwrap(), Some(500));
    assert_eq!(end(Some(401)).unwrap_err().code(), DenialCode::OutOfScope);
    assert!(end(Some(u64::MAX)).is_err());
}

#[test]
fn no_limit_is_above_that_of_an_ancestor() {
    let parent = capability(2, Some(1), Scope::OPEN);
    let mut rules = rules([capability(1, None, Scope::OPEN), parent.clone()]);
    let limit = |requests, tokens, concurrent| RateLimit {
        requests_per_minute: requests,
        tokens_per_minute: tokens,
        concurrent,
    };
    rules.rate_limits.insert(Subject::Capability(id(1)), limit(Some(10), None, Some(2)));
    rules.rate_limits.insert(Subject::Capability(id(2)), limit(None, Some(1_000), None));
    let ask = |rate| attenuate(&rules, &parent, &Narrowing { rate, ..Narrowing::default() }, 10).is_ok();
    assert!(ask(RateLimit::default()));
    assert!(ask(limit(Some(10), Some(1_000), Some(2))));
    assert!(!ask(limit(Some(11), None, None)));
    assert!(!ask(limit(None, Some(1_001), None)));
    assert!(!ask(limit(None, None, Some(3))));
}

#[test]
fn a_line_has_its_length_and_a_parent_its_children() {
    let line: Vec<Capability> =
        (0..5).map(|number: usize| capability(number, number.checked_sub(1), Scope::OPEN)).collect();
    let all = rules(line.clone());
    let is_ok = |rules: &Rules, parent: &Capability, now| {
        attenuate(rules, parent, &Narrowing::default(), now).is_ok()
    };
    assert_eq!(
        line.iter().map(|one| is_ok(&all, one, 10)).collect::<Vec<_>>(),
        [true, true, true, true, false]
    );

    let parent = capability(0, None, Scope::OPEN);
    let children = (1..=CHILDREN_MAX).map(|number| capability(number, Some(0), Scope::OPEN));
    let mut full = rules(children.chain([parent.clone()]));
    assert!(!is_ok(&full, &parent, 10));
    assert!(is_ok(&full, &full.capabilities[&id(1)], 10), "its children have room of their own");
    full.capabilities.get_mut(&id(7)).unwrap().revoked_at = Some(5);
    assert!(is_ok(&full, &parent, 10), "one that has ended makes room");

    let many =
        (1..=DESCENDANTS_MAX).map(|number| capability(number, Some(number / CHILDREN_MAX), Scope::OPEN));
    let crowded = rules(many.chain([parent]));
    let last = crowded.capabilities[&id(DESCENDANTS_MAX)].clone();
    assert!(!is_ok(&crowded, &last, 10));
}

fn scopes() -> impl Strategy<Value = Scope> {
    (wanted(), any::<bool>()).prop_map(|(wanted, _)| Scope {
        providers: wanted.providers.unwrap_or_default(),
        models: wanted.models.unwrap_or_default(),
        routes: wanted.routes.unwrap_or_default(),
        methods: wanted.methods.unwrap_or_default(),
        requires_unix_socket: wanted.requires_unix_socket.unwrap_or_default(),
    })
}

fn some<T: Clone + std::fmt::Debug + 'static>(all: Vec<T>) -> impl Strategy<Value = Option<Vec<T>>> {
    let count = all.len();
    proptest::option::weighted(0.4, subsequence(all, 1..=count))
}

fn wanted() -> impl Strategy<Value = Narrowing> {
    let lists = (
        some(parsed(&PROVIDERS)),
        some(parsed(&GLOBS)),
        some(RouteClass::ALL.to_vec()),
        some(Method::ALL.to_vec()),
        proptest::option::weighted(0.2, any::<bool>()),
    );
    (lists, proptest::option::of(1..1_200_u64)).prop_map(
        |((providers, models, routes, methods, requires_unix_socket), ttl_us)| Narrowing {
            budgets: Vec::new(),
            providers,
            models,
            routes,
            methods,
            ttl_us,
            rate: RateLimit::default(),
            requires_unix_socket,
        },
    )
}

fn requests() -> impl Strategy<Value = Request> {
    let what = (
        select(parsed::<ProviderId>(&PROVIDERS)),
        select(RouteClass::ALL.to_vec()),
        select(Method::ALL.to_vec()),
        proptest::option::weighted(0.9, select(MODELS.to_vec())),
    );
    (what, proptest::bool::weighted(0.1), any::<bool>(), 0..1_500_i64).prop_map(
        |((provider, class, method, model), names_other_models, is_unix, at)| Request {
            provider,
            class,
            method,
            model: model.map(str::to_owned),
            names_other_models,
            is_unix,
            at,
        },
    )
}

proptest! {
    /// 256 chains and 400 requests each.
    #[test]
    fn what_a_child_may_its_parent_may(
        scope in scopes(),
        chain in proptest::collection::vec(wanted(), 1..12),
        requests in proptest::collection::vec(requests(), 400),
    ) {
        let mut line = vec![capability(0, None, scope)];
        for wanted in chain {
            let rules = rules(line.clone());
            let parent = line.last().unwrap();
            // One that would be wider is refused, and the next is tried.
            let Ok(narrowed) = attenuate(&rules, parent, &wanted, 10) else { continue };
            let number = line.len();
            let child = capability(number, Some(number - 1), narrowed.scope);
            line.push(Capability { expires_at: narrowed.expires_at, ..child });
        }
        prop_assert!(line.len() <= ANCESTORS_MAX + 1);
        for pair in line.windows(2) {
            for request in &requests {
                prop_assert!(!may(&pair[1], request) || may(&pair[0], request), "{request:?} {pair:#?}");
            }
        }
    }

    /// A pattern that is covered matches nothing else, over all names of a small alphabet.
    #[test]
    fn a_covered_pattern_matches_no_more(wide in "[ab*]{1,5}", narrow in "[ab*]{1,5}") {
        let scope = Scope { models: parsed(&[wide.as_str()]), ..Scope::default() };
        let glob: ModelGlob = narrow.parse().unwrap();
        prop_assume!(covers(&scope, &glob));
        let mut names: HashSet<String> = HashSet::from([String::new()]);
        for _ in 0..6 {
            let longer: Vec<String> =
                names.iter().flat_map(|name| [format!("{name}a"), format!("{name}b")]).collect();
            names.extend(longer);
        }
        for name in names.iter().filter(|name| glob.matches(name)) {
            prop_assert!(scope.models[0].matches(name), "{wide} covers {narrow} but not {name}");
        }
    }
}
