"""What is tried: how each client is started, what it is asked, and the answer and log that must come of it."""

import json
import shutil
import tempfile
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from checks import ANY, PRICES, Row, expect, expect_answer, expect_log, expect_provider_saw, expect_wire
from process import Failure

HERE = Path(__file__).parent

PONG = {"text": "PONG from the mock.", "usage": [1000, 50]}
PONG_STREAMED = PONG | {"pieces": 3}
WEATHER = {"tool": "get_weather", "arguments": {"city": "Paris"}, "text": "It is sunny in Paris."}
TOOL_RAN = "tool-ran-42"


@dataclass(frozen=True)
class Case:
    name: str
    try_it: Callable
    arguments: dict = field(default_factory=dict)


class Bench:
    """Everything a case needs: the gateway, the provider behind it, and a place for a client to run in."""

    def __init__(self, work, gateway, mock, tap, credentials, processes, base_env):
        self.work = work
        self.gateway = gateway
        self.mock = mock
        self.tap = tap
        self.credentials = credentials
        self.base_env = base_env
        self._processes = processes

    def try_case(self, case):
        self.mock.clear_journal()
        self.tap.take()
        try:
            case.try_it(self, case.name, **case.arguments)
        except Failure as failure:
            raise Failure(f"{failure}\n    requests in this agent's log: {self._logged(case.name)}") from None

    def script(self, name):
        """The command that runs a client script. Node finds packages beside a script only, so it runs a copy."""
        if name.endswith(".py"):
            return [self.work / "venv/bin/python", HERE / "cases" / name]
        copy = self.work / name
        shutil.copyfile(HERE / "cases" / name, copy)
        return ["node", copy]

    def package(self, path):
        """The command that runs a program of an npm package."""
        return ["node", self.work / "node_modules" / path]

    def client(self, command, env, timeout=60):
        """Runs a client in an empty home and returns what it printed on standard output."""
        with self.empty_folder() as home:
            return self.client_at(home, command, env, timeout)

    def client_at(self, home, command, env, timeout=60):
        finished = self.attempt_at(home, command, env, timeout)
        if finished.code != 0:
            raise Failure(f"the client failed: {finished.output()}")
        return finished.stdout

    def attempt_at(self, home, command, env, timeout=60):
        """The same for a client that may fail: how it ended, and all that it printed."""
        return self._processes.run(command, env | {"HOME": str(home)}, timeout=timeout, cwd=home)

    @contextmanager
    def empty_folder(self):
        with tempfile.TemporaryDirectory(prefix="tokfence-client-", ignore_cleanup_errors=True) as folder:
            yield Path(folder)

    def _logged(self, agent):
        try:
            return [(row["model"], row["status"], row["error_code"]) for row in self.gateway.log(agent)]
        except Failure as failure:
            return failure


# How a client gets its capability: the three ways that a user has.


def by_run(bench, agent, command):
    return bench.client(bench.gateway.run(agent, command), bench.gateway.run_environment(bench.base_env))


def by_env(bench, agent, command):
    return bench.client(command, bench.gateway.environment(agent, bench.base_env))


def by_hand(bench, command, variables):
    return bench.client(command, bench.base_env | variables)


# The SDKs.


def sdk(bench, agent, script, action, start, provider, answer, rows):
    printed = start(bench, agent, [*bench.script(script), action])
    expect_answer(printed, answer)
    # The mock keeps no journal of listed models; the wire and the log still show the request.
    expect_provider_saw(bench, provider, requests=0 if action == "models" else len(rows))
    expect_log(bench, agent, rows)


def wrong_key(bench, agent):
    """The vault's key for this provider is one that the mock does not know: the proof that the mock looks."""
    variables = sdk_variables(bench, "OPENAI", "/mistral/v1", bench.gateway.mint(agent))
    printed = by_hand(bench, [*bench.script("openai_python.py"), "chat"], variables)
    expect_answer(printed, {"error": "AuthenticationError", "status": 401, "code": "invalid_api_key"})
    expect_wire(bench.tap.take(), bench.credentials, "mistral")
    expect_log(bench, agent, [Row("gpt-4o-mini", ANY, ANY, status=401)])


def no_capability(bench, _agent, script, action, prefix, path):
    variables = sdk_variables(bench, prefix, path, "x")
    printed = by_hand(bench, [*bench.script(script), action], variables)
    expect_answer(printed, {"error": "AuthenticationError", "status": 401})
    answer = json.loads(printed)
    if answer["code"] not in ("missing_capability", "invalid_capability"):
        raise Failure(f"the refusal is not the gateway's: {answer}")
    expect("what reached the provider", bench.tap.take(), b"")


def sdk_variables(bench, prefix, path, key):
    return {f"{prefix}_BASE_URL": bench.gateway.url(path), f"{prefix}_API_KEY": key}


# The agents.

CLAUDE_CODE = "@anthropic-ai/claude-code/cli-wrapper.cjs"
CLAUDE_CODE_SILENCE = {
    "DISABLE_TELEMETRY": "1",
    "DISABLE_ERROR_REPORTING": "1",
    "DISABLE_AUTOUPDATER": "1",
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
}
CODEX = "@openai/codex/bin/codex.js"
CODEX_SILENCE = """
check_for_update_on_startup = false
[analytics]
enabled = false
[feedback]
enabled = false
"""
LAST_MESSAGE = "last-message"
AGENT_TIMEOUT_S = 45


def claude_code(bench, agent, model, text, rows, uses_tool=False):
    command, env = claude_code_asked(bench, agent, model, "say pong", ["--allowedTools", "Bash"] if uses_tool else [])
    printed = json.loads(bench.client(command, env, AGENT_TIMEOUT_S))
    expect("the agent's answer", printed["result"], text)
    expect_agent_traffic(bench, agent, "anthropic", rows, uses_tool)


def claude_code_asked(bench, agent, model, prompt, options=()):
    """The command that asks Claude Code, and its environment."""
    command = [*bench.package(CLAUDE_CODE), "-p", prompt, "--output-format", "json", "--model", model, *options]
    return bench.gateway.run(agent, command), bench.gateway.run_environment(bench.base_env | CLAUDE_CODE_SILENCE)


def codex_with_own_provider(bench, agent, model, text, rows, uses_tool=False):
    env = bench.gateway.run_environment(bench.base_env)
    printed = codex(bench, own_provider(bench, model), env, lambda command: bench.gateway.run(agent, command))
    expect("the agent's answer", printed, text)
    expect_agent_traffic(bench, agent, "openai", rows, uses_tool)


def own_provider(bench, model):
    return f"""
model = "{model}"
model_provider = "tokfence"
{CODEX_SILENCE}
[model_providers.tokfence]
name = "tokfence"
base_url = "{bench.gateway.url("/openai/v1")}"
env_key = "OPENAI_API_KEY"
wire_api = "responses"
"""


def codex_with_built_in_provider(bench, agent, model, text, rows):
    """Asks for a WebSocket first. The gateway cannot meter one and refuses it; Codex must then go on without."""
    config = f'model = "{model}"\nopenai_base_url = "{bench.gateway.url("/openai/v1")}"\n{CODEX_SILENCE}'
    env = bench.base_env | {"CODEX_API_KEY": bench.gateway.mint(agent)}
    printed = codex(bench, config, env, lambda command: command)
    expect("the agent's answer", printed, text)
    expect_agent_traffic(bench, agent, "openai", rows, refusals={"upgrade_unsupported"})


def codex(bench, config, env, started_by):
    with bench.empty_folder() as home:
        command = codex_asked(bench, home, config, "say pong")
        bench.client_at(home, started_by(command), env, AGENT_TIMEOUT_S)
        return (home / LAST_MESSAGE).read_text().strip()


def codex_asked(bench, home, config, prompt):
    """The command that asks Codex in a home with this configuration."""
    (home / ".codex").mkdir()
    (home / ".codex/config.toml").write_text(config)
    command = [*bench.package(CODEX), "exec", "--skip-git-repo-check", "--disable", "plugins", "--disable", "apps"]
    # The agent's own sandbox does not work in a home below the temporary folder, and has nothing to protect here.
    return [*command, "--sandbox", "danger-full-access", "--output-last-message", home / LAST_MESSAGE, prompt]


def expect_agent_traffic(bench, agent, provider, rows, uses_tool=False, refusals=frozenset()):
    sent = expect_provider_saw(bench, provider, requests=len(rows))
    if uses_tool and TOOL_RAN.encode() not in sent:
        raise Failure("the output of the tool did not come back in a request: the tool did not run")
    expect_log(bench, agent, rows, refusals)


# The list.


def tool_rows(model, is_streaming=True):
    return [Row(model, 300, 20, is_streaming), Row(model, 400, 30, is_streaming)]


GPT, CLAUDE, GEMINI = PRICES
RATE_LIMITED = {"error": "RateLimitError", "status": 429}

OPENAI_ACTIONS = {
    "chat": (PONG, [Row(GPT)]),
    "chat_streamed": ({"text": PONG["text"], "pieces": 3}, [Row(GPT, is_streaming=True)]),
    "chat_streamed_with_usage": (PONG_STREAMED, [Row(GPT, is_streaming=True)]),
    "responses": (PONG, [Row(GPT)]),
    "responses_streamed": (PONG_STREAMED, [Row(GPT, is_streaming=True)]),
    # The mock counts no tokens for an embedding.
    "embeddings": ({"embedding": [0.5, 0.25, 0.125]}, [Row("text-embedding-3-small", ANY, ANY)]),
    "models": ({"has_models": True}, [Row(ANY, ANY, ANY)]),
    "tool_round": (WEATHER, tool_rows(GPT, is_streaming=False)),
    "rate_limited": (RATE_LIMITED, [Row(GPT, ANY, ANY, status=429)]),
}
ANTHROPIC_ACTIONS = {
    "messages": (PONG, [Row(CLAUDE)]),
    "messages_streamed": (PONG_STREAMED, [Row(CLAUDE, is_streaming=True)]),
    "tool_round": (WEATHER, tool_rows(CLAUDE)),
    "rate_limited": (RATE_LIMITED, [Row(CLAUDE, ANY, ANY, status=429)]),
}
GOOGLE_ACTIONS = {
    "generate": (PONG, [Row(GEMINI)]),
    "generate_streamed": (PONG_STREAMED, [Row(GEMINI, is_streaming=True)]),
}
SDKS = [
    ("openai_python.py", by_run, "openai", OPENAI_ACTIONS),
    ("openai_node.mjs", by_env, "openai", OPENAI_ACTIONS),
    ("anthropic_python.py", by_run, "anthropic", ANTHROPIC_ACTIONS),
    ("anthropic_node.mjs", by_env, "anthropic", ANTHROPIC_ACTIONS),
    ("google_python.py", by_run, "google", GOOGLE_ACTIONS),
]


def sdk_cases():
    for script, start, provider, actions in SDKS:
        for action, (answer, rows) in actions.items():
            name = f"{Path(script).stem}_{action}".replace("_", "-")
            arguments = {"script": script, "action": action, "start": start, "provider": provider}
            yield Case(name, sdk, arguments | {"answer": answer, "rows": rows})


def agent_case(name, try_it, model, **more):
    return Case(name, try_it, {"model": model, "text": PONG["text"], "rows": [Row(model, is_streaming=True)]} | more)


TOOL_ROUND = {"text": "The command printed its marker.", "uses_tool": True}
CODEX_MODEL = "gpt-5-codex"

NO_CAPABILITY_OPENAI = {"script": "openai_python.py", "action": "chat", "prefix": "OPENAI", "path": "/openai/v1"}
NO_CAPABILITY_ANTHROPIC = {
    "script": "anthropic_python.py",
    "action": "messages",
    "prefix": "ANTHROPIC",
    "path": "/anthropic",
}

CASES = [
    *sdk_cases(),
    agent_case("claude-code", claude_code, CLAUDE),
    agent_case("claude-code-tool-round", claude_code, "bash-claude", rows=tool_rows("bash-claude"), **TOOL_ROUND),
    agent_case("codex", codex_with_own_provider, CODEX_MODEL),
    agent_case("codex-tool-round", codex_with_own_provider, "bash-codex", rows=tool_rows("bash-codex"), **TOOL_ROUND),
    agent_case("codex-built-in-provider", codex_with_built_in_provider, CODEX_MODEL),
    Case("wrong-key", wrong_key),
    Case("no-capability-openai", no_capability, NO_CAPABILITY_OPENAI),
    Case("no-capability-anthropic", no_capability, NO_CAPABILITY_ANTHROPIC),
]
