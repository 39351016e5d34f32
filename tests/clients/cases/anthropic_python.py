"""Makes one call with the Anthropic SDK, as an agent would, and prints what came back: anthropic_python.py ACTION.

The base URL and the key come from the environment, as in any program that was not written for the gateway.
"""

import json
import sys

from anthropic import Anthropic, APIError, APIStatusError

MODEL = "claude-sonnet-4-5"
WEATHER = {"name": "get_weather", "input_schema": {"type": "object"}}

LONG = "TELL_ME_EVERYTHING"

client = Anthropic(max_retries=0, timeout=20)
# As everybody has it: what the gateway answers must stop it from trying again.
retrying = Anthropic(timeout=20)


def ask(text, **options):
    return client.messages.create(**request(text), **options)


def messages():
    answer = ask("ping")
    return {"text": answer.content[0].text, "usage": [answer.usage.input_tokens, answer.usage.output_tokens]}


def messages_streamed():
    pieces, usage = [], [0, 0]
    for event in ask("ping", stream=True):
        if event.type == "message_start":
            usage[0] = event.message.usage.input_tokens
        if event.type == "content_block_delta":
            pieces.append(event.delta.text)
        if event.type == "message_delta":
            usage[1] = event.usage.output_tokens
    return {"text": "".join(pieces), "pieces": len(pieces), "usage": usage}


def tool_round():
    """Streamed, because a tool's arguments arrive in pieces that only make sense together."""
    round_trip = request("ASK_THE_TOOL") | {"tools": [WEATHER]}
    message = streamed_message(round_trip)
    call = next(block for block in message.content if block.type == "tool_use")
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "sunny"}
    round_trip["messages"] += [
        {"role": "assistant", "content": message.content},
        {"role": "user", "content": [result]},
    ]
    return {"tool": call.name, "arguments": call.input, "text": streamed_message(round_trip).content[0].text}


def rate_limited():
    return {"text": ask("RATE_LIMIT_ME").content[0].text}


def over_budget():
    return {"text": retrying.messages.create(**request("ping")).content[0].text}


def messages_cut():
    pieces, error = [], None
    try:
        for event in retrying.messages.create(**request(LONG) | {"max_tokens": 100_000}, stream=True):
            pieces += [event.delta.text] if event.type == "content_block_delta" else []
    except APIError as raised:
        error = raised
    told = error.body["error"]
    end = {"error": isinstance(error, APIError), "type": told["type"], "message": told["message"]}
    return end | {"has_text": len("".join(pieces)) > 1000}


def request(text):
    return {"model": MODEL, "max_tokens": 200, "messages": [{"role": "user", "content": text}]}


def streamed_message(parameters):
    with client.messages.stream(**parameters) as stream:
        return stream.get_final_message()


try:
    result = globals()[sys.argv[1]]()
except APIStatusError as error:
    code = error.body.get("error", {}).get("code") if isinstance(error.body, dict) else None
    result = {"error": type(error).__name__, "status": error.status_code, "code": code}
print(json.dumps(result))
