//! How long it takes to decide on a request, by how many limits apply to it: `cargo bench -p policy --bench admit`.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use policy::{
    Ask, Budget, BudgetId, Caller, Capability, Method, MintedToken, Plan, ProviderId, Quote, RateBook,
    RateLimit, RiskVerdict, RouteClass, Rules, Scope, Subject, TokenRef, Transport, Unit, admit,
};

/// Others who have one too, so that finding the right one counts.
const CAPABILITIES: u8 = 200;
const BUDGETS: [usize; 3] = [1, 5, 20];
const NOW: i64 = 1_760_000_000_000_000;

/// What an owner laid down, and the token of one who is in all of it.
struct Laid {
    rules: Rules,
    token: String,
    provider: ProviderId,
}

impl Laid {
    /// So many budgets, in turn for everybody, the provider, the agent and the capability; and a limit on rates for
    /// each of those.
    fn new(budgets: usize) -> Self {
        let provider: ProviderId = "openai".parse().expect("a name");
        let tokens: Vec<MintedToken> =
            (0..CAPABILITIES).map(|number| MintedToken::from_random([number; 8], [number; 32])).collect();
        let capabilities = tokens.iter().map(|token| (token.id, capability(token, &provider))).collect();
        let asks = &tokens[usize::from(CAPABILITIES / 2)];
        let subjects = [
            Subject::Global,
            Subject::Provider(provider.clone()),
            Subject::Agent("bench".parse().expect("a name")),
            Subject::Capability(asks.id),
        ];
        let mut rules = Rules { capabilities, ..Rules::default() };
        for (number, subject) in (0..).zip(subjects.iter().cycle().take(budgets)) {
            rules.budgets.entry(subject.clone()).or_default().push(budget(number, subject));
        }
        let limit = RateLimit {
            requests_per_minute: Some(1_000_000),
            tokens_per_minute: Some(1_000_000_000_000),
            concurrent: Some(1_000_000),
        };
        rules.rate_limits = subjects.into_iter().map(|subject| (subject, limit)).collect();
        Self { rules, token: asks.text.clone(), provider }
    }

    fn presented(&self) -> &Capability {
        let token = TokenRef::parse(&self.token).expect("a token");
        let capability = self.rules.capabilities.get(&token.id()).expect("it was minted");
        assert!(capability.is_proven_by(&token));
        capability
    }

    fn admit(&self, capability: &Capability) -> Plan {
        let ask = Ask {
            provider: &self.provider,
            class: RouteClass::Generate,
            method: Method::Post,
            model: Some("gpt-4o-mini"),
            names_other_models: false,
            transport: Transport::Tcp,
            quote: Quote::unpriced(120, 1).with_price().with_output(1, 512),
        };
        let risk = RiskVerdict::default();
        let caller = Caller { agent: &capability.agent, capability: Some(capability), risk: &risk };
        admit(&self.rules, &caller, &ask).expect("everything is allowed")
    }

    /// What the gateway asks of this crate for one request, in its order.
    fn decide(&self, book: &mut RateBook, now: u64) -> Plan {
        let capability = self.presented();
        let (rules, agent) = (&self.rules, &capability.agent);
        rules.check_standing(Some(capability), agent, &self.provider, NOW).expect("nothing was taken back");
        let limits = rules.rate_limits_at(Some(capability), agent, &self.provider, NOW);
        let mut permit = book.enter(now, &limits).expect("there is room");
        book.take_tokens(now, &mut permit, 1_144).expect("there is room");
        let plan = self.admit(capability);
        book.finish(now, permit, 360);
        plan
    }
}

fn capability(token: &MintedToken, provider: &ProviderId) -> Capability {
    let models = vec!["gpt-4o*".parse().expect("a pattern")];
    Capability {
        id: token.id,
        secret_hash: token.secret_hash,
        agent: "bench".parse().expect("a name"),
        parent: None,
        scope: Scope { providers: vec![provider.clone()], models, ..Scope::default() },
        created_at: 0,
        expires_at: None,
        revoked_at: None,
    }
}

fn budget(number: i64, subject: &Subject) -> Budget {
    let limit = Unit::NanoUsd.of(1_000_000_000_000);
    Budget {
        id: BudgetId(number),
        subject: subject.clone(),
        period: "daily".parse().expect("a period"),
        limit,
    }
}

fn decide(bench: &mut Criterion) {
    let mut group = bench.benchmark_group("admission");
    for budgets in BUDGETS {
        let laid = Laid::new(budgets);
        let capability = laid.presented();
        group.bench_function(BenchmarkId::new("budgets that apply", budgets), |bench| {
            bench.iter(|| laid.admit(black_box(capability)));
        });
    }
    for budgets in BUDGETS {
        let laid = Laid::new(budgets);
        let (mut book, mut now) = (RateBook::default(), 0);
        group.bench_function(BenchmarkId::new("from the token to the plan, budgets", budgets), |bench| {
            bench.iter(|| {
                now += 100;
                laid.decide(&mut book, black_box(now))
            });
        });
    }
    let laid = Laid::new(0);
    group.bench_function("a token is proven", |bench| bench.iter(|| black_box(&laid).presented()));
    group.finish();
}

criterion_group!(benches, decide);
criterion_main!(benches);
