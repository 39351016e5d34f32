"""What must be true of a case: in the client's eyes, in the provider's, and in the gateway's log."""

import json
from dataclasses import dataclass
from decimal import Decimal

from process import Failure
from provider import CREDENTIAL_HEADERS

ANY = object()

# USD for a million input and a million output tokens, from the providers' price pages.
PRICES = {
    "gpt-4o-mini": (Decimal("0.15"), Decimal("0.60")),
    "claude-sonnet-4-5": (Decimal("3"), Decimal("15")),
    "gemini-2.5-flash": (Decimal("0.30"), Decimal("2.50")),
}


@dataclass(frozen=True)
class Row:
    """A request as `tokfence log` should show it."""

    model: object
    input_tokens: object = 1000
    output_tokens: object = 50
    is_streaming: bool = False
    status: int = 200


def expect(what, found, expected):
    if found != expected:
        raise Failure(f"{what}:\n    expected {expected}\n    found    {found}")


def expect_answer(printed, answer):
    found = json.loads(printed)
    if not answer.items() <= found.items():
        expect("the client's answer", found, answer)


def expect_provider_saw(bench, provider, requests):
    """Exactly these requests arrived, each with the vault's key in one header and nothing of the caller's."""
    journal = bench.mock.journal()
    seen = [f"{entry['method']} {entry['path']}" for entry in journal]
    if len(journal) != requests:
        raise Failure(f"expected {requests} requests at the provider, found {seen}")
    for request, entry in zip(seen, journal, strict=True):
        present = CREDENTIAL_HEADERS & entry["headers"].keys()
        if len(present) != 1:
            raise Failure(f"{request} carried {len(present)} credential headers: {sorted(present)}")
    sent = bench.tap.take()
    expect_wire(sent, bench.credentials, provider)
    return sent


def expect_wire(sent, credentials, provider):
    for name, credential in credentials.items():
        if (credential.encode() in sent) != (name == provider):
            raise Failure(f"the key of {name} {'did not reach' if name == provider else 'went to'} {provider}")
    if b"tfk_" in sent:
        raise Failure(f"a capability went to {provider}")


def expect_log(bench, agent, rows, refusals=frozenset()):
    """The log has these requests, in this order, and beside them only refusals, of each of the kinds given."""
    logged = bench.gateway.rows(agent, count=len(rows) + len(refusals))
    refused = [row for row in logged if row["error_code"] in refusals]
    answered = [row for row in logged if row not in refused]
    expect("the refusals in the log", {row["error_code"] for row in refused}, set(refusals))
    found = [Row(*(row[name] for name in Row.__dataclass_fields__)) for row in answered]
    if len(found) != len(rows) or not all(map(matches, found, rows)):
        expect("the log", found, rows)
    for row in answered:
        expect("the agent in the log", row["agent"], agent)
        expect_cost(row)


def matches(found, expected):
    return all(getattr(expected, name) in (ANY, getattr(found, name)) for name in Row.__dataclass_fields__)


def expect_cost(row):
    if row["status"] != 200 or row["model"] not in PRICES:
        return
    for_input, for_output = PRICES[row["model"]]
    cost = (row["input_tokens"] * for_input + row["output_tokens"] * for_output) / 1_000_000
    expect(f"the cost of {row['model']}", Decimal(str(row["cost_usd"])), cost)
