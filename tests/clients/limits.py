"""What is tried of budgets and of what is taken back: clients that stop when they are refused, and that understand the
end of a stream which the gateway cuts.

How often a client asks is counted from the gateway's log. Each keeps the retries that it has by itself: what the gateway
answers must be what stops it.
"""

import json
import threading
import time
from collections import Counter
from contextlib import contextmanager
from datetime import datetime

from checks import expect, expect_answer
from clients import (
    AGENT_TIMEOUT_S,
    CLAUDE,
    CODEX_MODEL,
    CODEX_SILENCE,
    Case,
    by_env,
    by_run,
    claude_code_asked,
    codex_asked,
    own_provider,
)
from process import Failure
from provider import LONG_QUESTION

# Nothing costs so little.
EXHAUSTED = "0.000001"
# Room for the input and for some slices of the long answer, but not for all of it.
SDK_TOKENS = "2k tokens"
AGENT_TOKENS = "25k tokens"

REFUSED = "refused: budget_exceeded"
CUT = "cut: budget_exceeded"
REVOKED = "cut: revoked_capability"
UNAUTHORIZED = "refused: revoked_capability"
NO_WEBSOCKET = "refused: upgrade_unsupported"

# A stream is cut within this time once what it stands on is taken back.
CUT_DEADLINE_S = 1
STREAM_DEADLINE_S = 30


def expect_requests(bench, agent, expected):
    """The gateway saw just these requests of the agent, counted by what became of them."""
    found = Counter()
    for row in bench.gateway.rows(agent, count=len(expected)):
        found[f"{row['outcome']}: {row['error_code']}"] += row["repeats"]
    expect("the requests that the gateway saw", dict(found), expected)


# The SDKs.


def sdk_over_budget(bench, agent, script, start, answer):
    bench.gateway.limit(agent, EXHAUSTED)
    expect_answer(start(bench, agent, [*bench.script(script), "over_budget"]), answer)
    expect("what reached the provider", bench.tap.take(), b"")
    expect_requests(bench, agent, {REFUSED: 1})


def sdk_cut_by_budget(bench, agent, script, action, start, answer):
    bench.gateway.limit(agent, SDK_TOKENS)
    printed = start(bench, agent, [*bench.script(script), action])
    expect_end(printed, answer, f"the budget agent:{agent}/total/tokens allows 2000 tokens")
    expect_requests(bench, agent, {CUT: 1})


def sdk_revoked(bench, agent, script, action, start, answer):
    bench.gateway.mint(agent)
    with revoking(bench, agent):
        printed = start(bench, agent, [*bench.script(script), action])
    expect_end(printed, answer, f"the agent `{agent}` was revoked")
    expect_requests(bench, agent, {REVOKED: 1})


def expect_end(printed, answer, reason):
    """The client got some of the answer, and an end in its provider's own shape that tells the reason."""
    expect_answer(printed, answer | {"has_text": True})
    message = json.loads(printed)["message"]
    if not message.startswith(f"[tokfence] stopped: {reason}"):
        raise Failure(f"the end does not tell the reason: {message}")


@contextmanager
def revoking(bench, agent):
    """Revokes the agent as soon as the provider streams to it, and checks that the stream has ended soon after."""
    revoked_at = []

    def revoke():
        deadline = time.monotonic() + STREAM_DEADLINE_S
        while bench.tap.answered() < 10_000:
            if time.monotonic() > deadline:
                return
            time.sleep(0.01)
        bench.gateway.revoke(agent)
        revoked_at.append(time.time())

    thread = threading.Thread(target=revoke)
    thread.start()
    try:
        yield
    finally:
        thread.join()
    if not revoked_at:
        raise Failure("the provider never streamed")
    row = bench.gateway.rows(agent, count=1)[0]
    ended_at = datetime.fromisoformat(row["started_at"]).timestamp() + row["latency_ms"] / 1000
    if ended_at - revoked_at[0] > CUT_DEADLINE_S:
        raise Failure(f"the stream went on for {ended_at - revoked_at[0]:.2f} s after `agent revoke` had returned")


# The agents. What they print is for people, so only the reason is looked for in it.


def agent_over_budget(bench, agent, asked, says, requests):
    bench.gateway.limit(agent, EXHAUSTED)
    expect_failure(bench, agent, asked, says)
    expect("what reached the provider", bench.tap.take(), b"")
    expect_requests(bench, agent, requests)


def agent_cut_by_budget(bench, agent, asked, says, requests):
    bench.gateway.limit(agent, AGENT_TOKENS)
    expect_failure(bench, agent, asked, says)
    expect_requests(bench, agent, requests)


def agent_revoked(bench, agent, asked, says, requests):
    bench.gateway.mint(agent)
    with revoking(bench, agent):
        expect_failure(bench, agent, asked, says)
    expect_requests(bench, agent, requests)


def expect_failure(bench, agent, asked, says):
    with bench.empty_folder() as home:
        command, env = asked(bench, agent, home)
        finished = bench.attempt_at(home, command, env, AGENT_TIMEOUT_S)
    if finished.code == 0 or says not in finished.output():
        raise Failure(f"the agent did not fail with `{says}`: {finished.output()}")


def claude_code(bench, agent, _home):
    return claude_code_asked(bench, agent, CLAUDE, LONG_QUESTION)


def codex(bench, agent, home):
    command = codex_asked(bench, home, own_provider(bench, CODEX_MODEL), LONG_QUESTION)
    return bench.gateway.run(agent, command), bench.gateway.run_environment(bench.base_env)


def codex_with_built_in_provider(bench, agent, home):
    address = f'openai_base_url = "{bench.gateway.url("/openai/v1")}"'
    command = codex_asked(bench, home, f'model = "{CODEX_MODEL}"\n{address}\n{CODEX_SILENCE}', LONG_QUESTION)
    return command, bench.base_env | {"CODEX_API_KEY": bench.gateway.mint(agent)}


# The list.

OVER_BUDGET = {"error": "RateLimitError", "status": 429, "code": "budget_exceeded"}
# Google's own errors have the number there; its client is told in the details.
OVER_BUDGET_GOOGLE = {"error": "ClientError", "status": 429, "code": 429}
CHAT_END = {"finish": "content_filter"}
RESPONSE_END = {"event": "response.failed", "code": "invalid_prompt"}
GOOGLE_END = {"finish": "OTHER"}
BUDGET_ERROR = {"error": True, "type": "billing_error"}
PERMISSION_ERROR = {"error": True, "type": "permission_error"}

OPENAI_PYTHON = {"script": "openai_python.py", "start": by_run}
OPENAI_NODE = {"script": "openai_node.mjs", "start": by_env}
ANTHROPIC_PYTHON = {"script": "anthropic_python.py", "start": by_run}
ANTHROPIC_NODE = {"script": "anthropic_node.mjs", "start": by_env}
GOOGLE_PYTHON = {"script": "google_python.py", "start": by_run}

CHAT, RESPONSES = {"action": "chat_cut", "answer": CHAT_END}, {"action": "responses_cut", "answer": RESPONSE_END}
GENERATE = {"action": "generate_cut", "answer": GOOGLE_END}
MESSAGES = {"action": "messages_cut", "answer": BUDGET_ERROR}
MESSAGES_REVOKED = {"action": "messages_cut", "answer": PERMISSION_ERROR}

CASES = [
    Case("openai-python-over-budget", sdk_over_budget, OPENAI_PYTHON | {"answer": OVER_BUDGET}),
    Case("openai-node-over-budget", sdk_over_budget, OPENAI_NODE | {"answer": OVER_BUDGET}),
    Case("anthropic-python-over-budget", sdk_over_budget, ANTHROPIC_PYTHON | {"answer": OVER_BUDGET}),
    Case("anthropic-node-over-budget", sdk_over_budget, ANTHROPIC_NODE | {"answer": OVER_BUDGET}),
    Case("google-python-over-budget", sdk_over_budget, GOOGLE_PYTHON | {"answer": OVER_BUDGET_GOOGLE}),
    Case("openai-python-chat-cut", sdk_cut_by_budget, OPENAI_PYTHON | CHAT),
    Case("openai-node-chat-cut", sdk_cut_by_budget, OPENAI_NODE | CHAT),
    Case("openai-python-responses-cut", sdk_cut_by_budget, OPENAI_PYTHON | RESPONSES),
    Case("openai-node-responses-cut", sdk_cut_by_budget, OPENAI_NODE | RESPONSES),
    Case("anthropic-python-cut", sdk_cut_by_budget, ANTHROPIC_PYTHON | MESSAGES),
    Case("anthropic-node-cut", sdk_cut_by_budget, ANTHROPIC_NODE | MESSAGES),
    Case("google-python-cut", sdk_cut_by_budget, GOOGLE_PYTHON | GENERATE),
    Case("openai-python-revoked", sdk_revoked, OPENAI_PYTHON | CHAT),
    Case("openai-node-revoked", sdk_revoked, OPENAI_NODE | RESPONSES),
    Case("anthropic-python-revoked", sdk_revoked, ANTHROPIC_PYTHON | MESSAGES_REVOKED),
    Case("google-python-revoked", sdk_revoked, GOOGLE_PYTHON | GENERATE),
    # Codex says of a 429 what it always says, and nothing of the reason.
    Case(
        "claude-code-over-budget",
        agent_over_budget,
        {"asked": claude_code, "says": "the budget agent:claude-code-over-budget/total", "requests": {REFUSED: 1}},
    ),
    Case(
        "codex-over-budget",
        agent_over_budget,
        {"asked": codex, "says": "429 Too Many Requests", "requests": {REFUSED: 1}},
    ),
    # After a cut Claude Code asks once more without a stream, for which there is no room either.
    Case(
        "claude-code-cut",
        agent_cut_by_budget,
        {"asked": claude_code, "says": "the budget agent:claude-code-cut/total", "requests": {CUT: 1, REFUSED: 1}},
    ),
    Case(
        "codex-cut",
        agent_cut_by_budget,
        {"asked": codex, "says": "[tokfence] stopped: the budget agent:codex-cut/total", "requests": {CUT: 1}},
    ),
    Case(
        "claude-code-revoked",
        agent_revoked,
        {"asked": claude_code, "says": "`claude-code-revoked` was revoked", "requests": {REVOKED: 1, UNAUTHORIZED: 1}},
    ),
    Case(
        "codex-revoked",
        agent_revoked,
        {"asked": codex, "says": "[tokfence] stopped: the agent `codex-revoked` was revoked", "requests": {REVOKED: 1}},
    ),
    Case(
        "codex-built-in-provider-over-budget",
        agent_over_budget,
        {
            "asked": codex_with_built_in_provider,
            "says": "429 Too Many Requests",
            "requests": {NO_WEBSOCKET: 1, REFUSED: 1},
        },
    ),
]
