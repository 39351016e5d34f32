"""Prices the same usages by `tokfence pricing show`, by genai-prices' own code, and by litellm's list.

The usages are those of the golden files, whose bodies genai-prices reads by itself, and a few made up for every model
that a list has. A difference must be in the table of docs/prices.md, with its reason; a row of that table that no
difference needs fails as well, so that it says what is so.
"""

import argparse
import fnmatch
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from decimal import ROUND_CEILING, Decimal

sys.dont_write_bytecode = True
import lists

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
GOLDEN = ROOT / "gateway" / "tests" / "golden"
EXPLAINED = ROOT / "docs" / "prices.md"
NANO = Decimal("0.000000001")

# Usages that tell one rate from another, since no two of these counts have a factor in common.
MIXES = {
    "plain": {"input": 1_009, "output": 211},
    "cached": {"input": 1_009, "cache_read": 503, "output": 211},
    "long": {"input": 300_007, "cache_read": 503, "output": 211},
    "cache_write": {"input": 1_009, "cache_write_5m": 307, "cache_write_1h": 401, "output": 211},
    "audio": {"input": 1_009, "audio_input": 307, "output": 211, "audio_output": 101},
    "image": {"input": 1_009, "image_input": 307, "output": 211, "image_output": 101},
    "reasoning": {"input": 1_009, "output": 211, "reasoning": 101},
}
# What a model must list for a mix to be about it.
NEEDS = {"cached": ["cache_read"], "audio": ["audio_input"], "image": ["image_input", "image_output"], "reasoning": ["reasoning"]}
# DeepSeek's night is cheaper, which litellm's list says beside its rates, and genai-prices by the clock.
PEAK_HOUR = 8
# Of the models of OpenRouter, whose prices are genai-prices' own, one in so many.
OPENROUTER_STEP = 7


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--tokfence", default=ROOT / "target" / "release" / "tokfence", type=pathlib.Path)
    arguments.add_argument("--wheels", required=True, type=pathlib.Path)
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as home:
        tokfence = Tokfence(options.tokfence, home)
        listed = tokfence.ask("pricing", "list")
        moment = datetime.fromisoformat(listed["date"]).replace(hour=PEAK_HOUR, tzinfo=timezone.utc)
        oracles = [lists.GenaiPrices(moment), lists.Litellm(options.wheels)]
        cases = list(golden_cases()) + list(made_up_cases(listed["prices"]))
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            costs = list(pool.map(tokfence.cost, cases))
    differences, compared = compare(cases, costs, oracles)
    verdict(differences, compared, len(cases))


class Tokfence:
    def __init__(self, program, home):
        self.command = [program, "--home", home, "--json"]

    def ask(self, *arguments):
        answered = subprocess.run([*self.command, *arguments], capture_output=True, text=True)
        if answered.returncode:
            raise SystemExit(f"{' '.join(arguments)}: {answered.stderr}")
        return json.loads(answered.stdout)

    def cost(self, case):
        """What a case costs, where the model has a price."""
        counts = [f"--{name.replace('_', '-')}={count}" for name, count in case["usage"].items() if count]
        tier = [f"--service-tier={case['tier']}"] if case["tier"] else []
        counts = counts or ["--input=0"]
        answered = self.ask("pricing", "show", case["model"], "--provider", case["provider"], *tier, *counts)
        (price,) = answered["prices"]
        return Decimal(price["bill"]["cost_usd"])


def golden_cases():
    """The usages of the golden files whose model has a price, with the bodies for who can read them."""
    for expectation in sorted(GOLDEN.glob("*/*.expected.json")):
        expected = json.loads(expectation.read_text())
        payload = expectation.with_name(expectation.name.removesuffix(".expected.json"))
        provider = payload.parent.name
        if "usage" not in expected or "cost_nano_usd" in expected or not has_price(provider, expected.get("model")):
            continue
        yield {
            "name": f"golden {provider}/{payload.name}",
            "provider": provider,
            "model": expected["model"],
            "mix": f"golden/{payload.name}",
            "usage": expected["usage"],
            "tier": expected.get("service_tier"),
            "body": payload,
        }


TABLE = json.loads((ROOT / "conf" / "prices.json").read_text())


def has_price(provider, model):
    names = [model, re.sub(r"-(\d{4}-\d\d-\d\d|\d{8})$", "", model or "")]
    return any(name in TABLE["providers"].get(provider, {}) or name in TABLE["aliases"].get(provider, {}) for name in names)


def made_up_cases(prices):
    prices = sorted(prices, key=lambda price: (price["provider"], price["model"]))
    openrouter = [price["model"] for price in prices if price["provider"] == "openrouter"][::OPENROUTER_STEP]
    for price in prices:
        if price["provider"] == "openrouter" and price["model"] not in openrouter:
            continue
        for mix, usage in MIXES.items():
            # Who asks for embeddings gets no tokens back.
            if Decimal(price["usd_per_mtok"]["output"]) == 0:
                usage = {part: count for part, count in usage.items() if "output" not in part}
            if is_about(price, mix):
                yield made_up(price, mix, usage, None)
        for tier, ladder in price["service_tiers"].items():
            yield made_up(price, "cached", MIXES["cached"], tier)
            if ladder["tiers"]:
                yield made_up(price, "long", MIXES["long"], tier)


def is_about(price, mix):
    if mix == "plain":
        return True
    if mix == "long":
        return bool(price["tiers"])
    if mix == "cache_write":
        return any(name.startswith("cache_write") for name in TABLE["providers"][price["provider"]][price["model"]])
    return any(name in TABLE["providers"][price["provider"]][price["model"]] for name in NEEDS[mix])


def made_up(price, mix, usage, tier):
    mix = mix if tier is None else f"{mix}/{tier}"
    provider, model = price["provider"], price["model"]
    name = f"{provider}/{model} {mix}"
    return {"name": name, "provider": provider, "model": model, "mix": mix, "usage": usage, "tier": tier, "body": None}


def compare(cases, costs, oracles):
    differences, compared = [], {oracle.name: 0 for oracle in oracles}
    for case, ours in zip(cases, costs):
        for oracle in oracles:
            theirs = oracle.cost(case)
            if theirs is None:
                continue
            compared[oracle.name] += 1
            if not any(ours == cost.quantize(NANO, ROUND_CEILING) for cost in theirs):
                differences.append((oracle.name, case, ours, theirs[0]))
    return differences, compared


def explanations():
    """The rows of the table: list, models, usages, and why."""
    section = EXPLAINED.read_text().partition("## Differences")[2]
    for line in section.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `") and len(cells) == 4:
            yield tuple(re.findall(r"`([^`]+)`", cell) for cell in cells[:3]) + (cells[3],)


def verdict(differences, compared, cases):
    rows = list(explanations())
    used, unexplained = set(), []
    for name, case, ours, theirs in differences:
        model = f"{case['provider']}/{case['model']}"
        matching = [
            number
            for number, (lists_, models, mixes, _) in enumerate(rows)
            if name in lists_
            and any(fnmatch.fnmatchcase(model, pattern) for pattern in models)
            and any(fnmatch.fnmatchcase(case["mix"], pattern) for pattern in mixes)
        ]
        used.update(matching[:1])
        if not matching:
            unexplained.append(f"{case['name']}: ${ours}, and by {name} ${theirs.normalize():f}")
    stale = [rows[number] for number in range(len(rows)) if number not in used]
    for text in unexplained:
        print(f"not explained in docs/prices.md: {text}", file=sys.stderr)
    for row in stale:
        print(f"docs/prices.md explains what is no difference: {row}", file=sys.stderr)
    for name, count in compared.items():
        print(f"{name}: {count} of {cases} usages priced by both, {sum(row[0] == name for row in differences)} differ, as docs/prices.md says")
    if unexplained or stale or not all(compared.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
