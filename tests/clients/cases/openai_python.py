"""Makes one call with the OpenAI SDK, as an agent would, and prints what came back: openai_python.py ACTION.

The base URL and the key come from the environment, as in any program that was not written for the gateway.
"""

import json
import sys

from openai import APIError, APIStatusError, OpenAI

MODEL = "gpt-4o-mini"
LONG = "TELL_ME_EVERYTHING"
WEATHER = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}

client = OpenAI(max_retries=0, timeout=20)
# As everybody has it: what the gateway answers must stop it from trying again.
retrying = OpenAI(timeout=20)


def ask(text, **options):
    return client.chat.completions.create(model=MODEL, messages=question(text), **options)


def question(text):
    return [{"role": "user", "content": text}]


def chat():
    answer = ask("ping")
    return {"text": answer.choices[0].message.content, "usage": chat_usage(answer)}


def chat_streamed():
    # The loop of the SDK's own documentation: it breaks on a chunk that has no choices, so the
    # usage that the gateway asks for on its own account must not reach a program that did not.
    pieces = [chunk.choices[0].delta.content for chunk in ask("ping", stream=True)]
    return joined(pieces)


def chat_streamed_with_usage():
    pieces, usage = [], None
    for chunk in ask("ping", stream=True, stream_options={"include_usage": True}):
        pieces += [choice.delta.content for choice in chunk.choices]
        usage = chat_usage(chunk) if chunk.usage else usage
    return joined(pieces) | {"usage": usage}


def responses():
    answer = client.responses.create(model=MODEL, input="ping")
    return {"text": answer.output_text, "usage": [answer.usage.input_tokens, answer.usage.output_tokens]}


def responses_streamed():
    pieces, usage = [], None
    for event in client.responses.create(model=MODEL, input="ping", stream=True):
        if event.type == "response.output_text.delta":
            pieces.append(event.delta)
        if event.type == "response.completed":
            usage = [event.response.usage.input_tokens, event.response.usage.output_tokens]
    return joined(pieces) | {"usage": usage}


def embeddings():
    answer = client.embeddings.create(model="text-embedding-3-small", input="ping")
    return {"embedding": answer.data[0].embedding}


def models():
    return {"has_models": any(model.id for model in client.models.list())}


def tool_round():
    messages = [{"role": "user", "content": "ASK_THE_TOOL"}]
    request = {"model": MODEL, "tools": [WEATHER], "messages": messages}
    message = client.chat.completions.create(**request).choices[0].message
    call = message.tool_calls[0]
    messages += [message, {"role": "tool", "tool_call_id": call.id, "content": "sunny"}]
    answer = client.chat.completions.create(**request).choices[0].message.content
    return {"tool": call.function.name, "arguments": json.loads(call.function.arguments), "text": answer}


def rate_limited():
    return {"text": ask("RATE_LIMIT_ME").choices[0].message.content}


def over_budget():
    return {"text": retrying.chat.completions.create(model=MODEL, messages=question("ping")).choices[0].message.content}


def chat_cut():
    pieces, finish = [], None
    for chunk in retrying.chat.completions.create(model=MODEL, messages=question(LONG), stream=True):
        pieces.append(chunk.choices[0].delta.content or "")
        finish = chunk.choices[0].finish_reason or finish
    return cut(pieces[:-1], {"finish": finish, "message": pieces[-1].strip()})


def responses_cut():
    pieces, last = [], None
    for event in retrying.responses.create(model=MODEL, input=LONG, stream=True):
        pieces += [event.delta] if event.type == "response.output_text.delta" else []
        last = event
    error = last.response.error
    return cut(pieces, {"event": last.type, "code": error.code, "message": error.message})


def cut(pieces, end):
    return end | {"has_text": len("".join(pieces)) > 1000}


def chat_usage(answer):
    return [answer.usage.prompt_tokens, answer.usage.completion_tokens]


def joined(pieces):
    pieces = [piece for piece in pieces if piece]
    return {"text": "".join(pieces), "pieces": len(pieces)}


try:
    result = globals()[sys.argv[1]]()
except APIStatusError as error:
    result = {"error": type(error).__name__, "status": error.status_code, "code": error.code}
except APIError as error:
    result = {"error": type(error).__name__, "code": error.code, "message": error.message}
print(json.dumps(result))
