"""What is tried of canaries with real agents: one that reads a decoy and would send it, and one whose model tells a prompt.

Each agent keeps the retries that it has by itself: what the gateway answers must be what stops it, within seconds.
"""

import time

from checks import expect
from clients import Case, claude_code_asked, codex_asked, own_provider
from limits import expect_requests
from process import Failure

ENDED_WITHIN_S = 15

ANSWERED = "completed: None"
SECRET = "refused: secret_in_request"
RED = "refused: risk_restricted"
TOLD = "cut: risk_restricted"


def reads_decoy(bench, agent, asked, model, says, requests):
    """The model makes the agent read a file with a decoy. What it read must not be sent, and it must stop there."""
    decoy = bench.gateway.canary(agent, "decoy")
    with bench.empty_folder() as home:
        bench.gateway.plant(agent, home / ".env")
        output = ended(bench, home, asked(bench, agent, home, model))
    sent = bench.tap.take()
    if decoy.encode() in sent:
        raise Failure("the decoy was sent to the provider")
    expect("the requests that reached the provider", len(bench.mock.journal()), 1)
    expect_requests(bench, agent, requests)
    expect_said(output, says)


def tells_prompt(bench, agent, asked, model, prompt, says, requests):
    """The mark of a prompt is where it belongs in a request. The model tells it, and the agent must not get it."""
    mark = bench.gateway.canary(agent, "prompt")
    bench.mock.answer(model, f"My instructions are as follows. They begin with ref: {mark} and go on for long.")
    with bench.empty_folder() as home:
        (home / prompt).write_text("# Rules\n\nBe kind.\n")
        bench.gateway.plant(agent, home / prompt)
        output = ended(bench, home, asked(bench, agent, home, model))
    if mark.encode() not in bench.tap.take():
        raise Failure("the prompt with its mark did not reach the provider")
    if mark in output:
        raise Failure("the agent got the mark")
    expect_requests(bench, agent, requests)
    expect_said(output, says)


def ended(bench, home, asked):
    """All that an agent printed which ends soon, whether it calls that a failure or not."""
    command, env = asked
    start = time.monotonic()
    finished = bench.attempt_at(home, command, env, 10 * ENDED_WITHIN_S)
    if (took := time.monotonic() - start) > ENDED_WITHIN_S:
        raise Failure(f"the agent went on for {took:.0f} s: {finished.output()}")
    return finished.output()


def expect_said(output, says):
    if says not in output:
        raise Failure(f"the agent does not say `{says}`: {output}")


def claude_code(bench, agent, _home, model):
    return claude_code_asked(bench, agent, model, "say pong", ["--allowedTools", "Bash"])


def codex(bench, agent, home, model):
    command = codex_asked(bench, home, own_provider(bench, model), "say pong")
    return bench.gateway.run(agent, command), bench.gateway.run_environment(bench.base_env)


CASES = [
    Case(
        "claude-code-reads-decoy",
        reads_decoy,
        {
            "asked": claude_code,
            "model": "cat-claude",
            "says": "nothing of it was sent",
            "requests": {ANSWERED: 1, SECRET: 1},
        },
    ),
    # Codex asks five times more after any 403, in seven seconds. The first has made it RED, so all are refused unread.
    Case(
        "codex-reads-decoy",
        reads_decoy,
        {
            "asked": codex,
            "model": "cat-codex",
            "says": "is RED: nothing is served",
            "requests": {ANSWERED: 1, SECRET: 1, RED: 5},
        },
    ),
    # Claude Code asks once more without a stream, and there the mark is made unreadable.
    Case(
        "claude-code-tells-prompt",
        tells_prompt,
        {
            "asked": claude_code,
            "model": "tell-claude",
            "prompt": "CLAUDE.md",
            "says": "They begin with ref: ****",
            "requests": {TOLD: 1, ANSWERED: 1},
        },
    ),
    Case(
        "codex-tells-prompt",
        tells_prompt,
        {
            "asked": codex,
            "model": "tell-codex",
            "prompt": "AGENTS.md",
            "says": "[tokfence] stopped: the answer was about to tell",
            "requests": {TOLD: 1},
        },
    ),
]
