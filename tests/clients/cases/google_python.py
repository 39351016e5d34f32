"""Makes one call with Google's Gen AI SDK, as an agent would, and prints what came back: google_python.py ACTION.

The base URL and the key come from the environment, as in any program that was not written for the gateway.
"""

import json
import sys

from google import genai
from google.genai import errors, types

MODEL = "gemini-2.5-flash"
LONG = "TELL_ME_EVERYTHING"

# The SDK would ask for `/v1`, which the mock does not serve.
client = genai.Client(http_options=types.HttpOptions(api_version="v1beta", timeout=20_000))


def generate():
    answer = client.models.generate_content(model=MODEL, contents="ping")
    return {"text": answer.text, "usage": usage(answer)}


def generate_streamed():
    pieces, counted = [], None
    for chunk in client.models.generate_content_stream(model=MODEL, contents="ping"):
        pieces += [chunk.text] if chunk.text else []
        counted = usage(chunk) if chunk.usage_metadata else counted
    return {"text": "".join(pieces), "pieces": len(pieces), "usage": counted}


def over_budget():
    return {"text": client.models.generate_content(model=MODEL, contents="ping").text}


def generate_cut():
    pieces, finish = [], None
    for chunk in client.models.generate_content_stream(model=MODEL, contents=LONG):
        pieces.append(chunk.text or "")
        finish = chunk.candidates[0].finish_reason or finish
    end = {"finish": finish and finish.name, "message": pieces[-1].strip()}
    return end | {"has_text": len("".join(pieces[:-1])) > 1000}


def usage(answer):
    return [answer.usage_metadata.prompt_token_count, answer.usage_metadata.candidates_token_count]


try:
    result = globals()[sys.argv[1]]()
except errors.APIError as error:
    told = error.details.get("error", error.details) if isinstance(error.details, dict) else {}
    result = {"error": type(error).__name__, "status": error.code, "code": told.get("code")}
print(json.dumps(result))
