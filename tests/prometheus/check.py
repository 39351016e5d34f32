"""Reads the figures of a running gateway with promtool, and the files of conf/prometheus against them."""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

CONF = Path(__file__).resolve().parents[2] / "conf" / "prometheus"
# Figures that are there only once something has happened of which they tell.
LATER = {
    "tokfence_refusals_total",
    "tokfence_requests_total",
    "tokfence_cost_usd_total",
    "tokfence_unpriced_requests_total",
    "tokfence_estimated_requests_total",
}
NAME = re.compile(r"\b(?:tokfence|gen_ai)_[a-z_]+\b")


def fail(message: str) -> None:
    sys.exit(f"tests/prometheus: {message}")


def promtool(tool: str, *args: str, text: str | None = None) -> None:
    done = subprocess.run([tool, *args], input=text, capture_output=True, text=True, check=False)
    # Lint complaints come with success; there are none that we put up with.
    told = (done.stdout + done.stderr).strip()
    if done.returncode != 0 or (text is not None and told):
        fail(f"promtool {' '.join(args)}:\n{told}")


def figures(tokfence: str) -> str:
    with tempfile.TemporaryDirectory() as home:
        Path(home, "config.toml").write_text('[daemon]\nport = 0\n[metrics]\nlisten = "127.0.0.1:0"\n')
        passphrase = "only for this test, and long enough"
        variables = {"PATH": os.environ["PATH"], "TOKFENCE_HOME": home, "TOKFENCE_VAULT_PASSPHRASE": passphrase}

        def run(*args: str) -> str:
            done = subprocess.run([tokfence, *args], env=variables, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                fail(f"tokfence {' '.join(args)}: {done.stderr}")
            return done.stdout

        run("init", "--non-interactive")
        run("budget", "set", "global", "10", "daily")
        run("budget", "set", "global", "1M tokens", "daily")
        run("start", "-d")
        try:
            url = json.loads(run("--json", "status"))["metrics"]
            with urllib.request.urlopen(url, timeout=30) as answer:
                return answer.read().decode()
        finally:
            run("stop")


def named(text: str) -> set[str]:
    return {re.sub(r"_(bucket|sum|count)$", "", name) for name in NAME.findall(text)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--promtool", required=True)
    parser.add_argument("--tokfence", required=True)
    args = parser.parse_args()
    shown = figures(os.path.abspath(args.tokfence))
    promtool(args.promtool, "check", "metrics", text=shown)
    promtool(args.promtool, "check", "config", str(CONF / "prometheus.yml"))
    promtool(args.promtool, "test", "rules", str(CONF / "alerts_test.yml"))
    panels = json.loads((CONF / "dashboard.json").read_text())["panels"]
    for expression in (target["expr"] for panel in panels for target in panel["targets"]):
        # Grafana puts the interval in; promtool has to see one.
        rule = {"groups": [{"name": "x", "rules": [{"record": "x", "expr": expression.replace("$__rate_interval", "5m")}]}]}
        with tempfile.NamedTemporaryFile("w", suffix=".yml") as file:
            json.dump(rule, file)
            file.flush()
            promtool(args.promtool, "check", "rules", file.name)
    known = named(shown) | LATER
    spoken_of = named("".join(path.read_text() for path in sorted(CONF.iterdir())))
    unknown = sorted(name for name in spoken_of - known if not name.startswith("gen_ai_"))
    if unknown:
        fail(f"conf/prometheus speaks of figures that there are not: {', '.join(unknown)}")
    families = sum(line.startswith("# TYPE") for line in shown.splitlines())
    print(f"promtool reads {families} families, the configuration and the alerts")


main()
