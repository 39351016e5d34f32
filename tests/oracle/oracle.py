"""Asks two scanners that others wrote about every text of the corpus, and holds their answers against ours."""

import argparse
import json
import sys
import time
from collections import Counter, defaultdict

from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class
from detect_secrets.plugins.base import RegexBasedDetector
from kingfisher_sdk.rules import Rules
from kingfisher_sdk.scanner import Scanner

# Its rule wants twenty letters or digits next to the mark in the middle, where newer keys may have dashes.
SOMETIMES = "sometimes"

# What a scanner must call a key of each shape; a key that it only finds under another name it does not know. `None`
# where it has no rule; if it finds all keys of such a shape after an update, that is a fault of this table.
KNOWN = {
    "kingfisher": {
        "openai_project": "betterleaks.openai-api-key",
        "openai_service_account": "betterleaks.openai-api-key",
        "openai_admin": "betterleaks.openai-api-key",
        "openai_legacy": "betterleaks.openai-api-key",
        "anthropic": "betterleaks.anthropic-api-key",
        "anthropic_admin": "betterleaks.anthropic-admin-api-key",
        "google": "betterleaks.gcp-api-key",
        "groq": "betterleaks.groq-api-key",
        "openrouter": "veles.secrets/openrouter",
        "huggingface": "betterleaks.huggingface-access-token",
        "github_personal": "betterleaks.github-pat",
        "github_oauth": "betterleaks.github-oauth",
        "github_app": "betterleaks.github-app-token",
        "github_fine_grained": "betterleaks.github-fine-grained-pat",
        # It wants the key beside its id.
        "aws_key_id": None,
        "slack": "betterleaks.slack-bot-token",
        "stripe_live": "betterleaks.stripe-access-token",
        "private_key": "betterleaks.private-key",
        "capability": None,
    },
    "detect-secrets": {
        "openai_project": SOMETIMES,
        "openai_service_account": SOMETIMES,
        "openai_admin": SOMETIMES,
        "openai_legacy": "OpenAI Token",
        "anthropic": None,
        "anthropic_admin": None,
        "google": None,
        "groq": None,
        "openrouter": None,
        "huggingface": None,
        "github_personal": "GitHub Token",
        "github_oauth": "GitHub Token",
        "github_app": "GitHub Token",
        "github_fine_grained": None,
        "aws_key_id": "AWS Access Key",
        "slack": "Slack Token",
        "stripe_live": "Stripe Access Key",
        "private_key": "Private Key",
        "capability": None,
    },
}


class Kingfisher:
    name = "kingfisher"

    def __init__(self):
        self.scanner = Scanner(Rules(confidence="low"), base64=False)

    def names(self, text):
        return {finding.rule_id for finding in self.scanner.scan(text) if finding.visible}


class DetectSecrets:
    """Its rules for kinds of keys; those that guess by entropy or by the name of a variable know no kind."""

    name = "detect-secrets"

    def __init__(self):
        plugins = get_mapping_from_secret_type_to_class().values()
        self.plugins = [plugin() for plugin in plugins if issubclass(plugin, RegexBasedDetector)]

    def names(self, text):
        lines = text.splitlines()
        return {
            plugin.secret_type
            for plugin in self.plugins
            for line in lines
            if any(True for _ in plugin.analyze_string(line))
        }


def planted_faults(oracle, planted):
    """Differences between what the scanner finds and what the table says of it."""
    answers = defaultdict(list)
    for case in planted:
        answers[case["shape"]].append((case["id"], oracle.names(case["text"])))
    for shape, found in answers.items():
        expected = KNOWN[oracle.name][shape]
        missed = [(case, names) for case, names in found if expected not in names]
        if expected is None and all(names for _, names in found):
            yield f"{oracle.name} knows {shape} now: {sorted(found[0][1])}"
        elif expected not in (None, SOMETIMES):
            yield from (f"{oracle.name} does not find {case}, but {sorted(names)}" for case, names in missed)


def run(corpus):
    cases = [json.loads(line) for line in corpus]
    planted = [case for case in cases if "shape" in case]
    benign = [case for case in cases if "shape" not in case]
    faults = [f"we do not find {case['id']}" for case in planted if case["shape"] not in case["ours"]]
    faults += [f"we find {case['ours']} in {case['id']}" for case in benign if case["ours"]]
    print(f"{len(planted)} keys of {len({case['shape'] for case in planted})} shapes, {len(benign)} ordinary texts")
    print(f"{'tokfence':16} finds {sum(case['shape'] in case['ours'] for case in planted)} keys; "
          f"false alarms in {sum(bool(case['ours']) for case in benign)} texts")
    for oracle in (Kingfisher(), DetectSecrets()):
        start = time.monotonic()
        faults += planted_faults(oracle, planted)
        found = sum(bool(oracle.names(case["text"])) for case in planted)
        answers = [oracle.names(case["text"]) for case in benign]
        alarms = Counter(name for names in answers for name in names)
        unknown = [shape for shape, expected in KNOWN[oracle.name].items() if expected is None]
        print(f"{oracle.name:16} finds {found} keys; false alarms in {sum(map(bool, answers))} texts: "
              + ", ".join(f"{name} {count}" for name, count in alarms.most_common()))
        print(f"{'':16} does not know: {', '.join(unknown)} ({time.monotonic() - start:.0f} s)")
    return faults


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpus", type=argparse.FileType(encoding="utf-8"))
    faults = run(parser.parse_args().corpus)
    for fault in faults:
        print(f"oracle: {fault}", file=sys.stderr)
    sys.exit(1 if faults else 0)
