"""The answers in golden files, put together as a client would have them."""

import json


def answer(path):
    """One JSON document: the body, or what the events of a stream say together about the usage."""
    text = path.read_text()
    if path.suffix == ".json":
        try:
            body = json.loads(text)
        except ValueError:
            return {}  # it broke off
        return together(body) if isinstance(body, list) else body
    lines = text.splitlines()
    if path.suffix == ".sse":
        lines = [line.partition(":")[2] for line in lines if line.startswith("data:")]
    return together(filter(None, map(parsed, lines)))


def parsed(line):
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def together(events):
    """The last word of each event on the model and on each count."""
    found = {}
    for event in events:
        for place in (event, event.get("message"), event.get("response"), event.get("x_groq")):
            if not isinstance(place, dict):
                continue
            for key in ("model", "modelVersion"):
                found |= {key: place[key]} if place.get(key) else {}
            for key in ("usage", "usageMetadata"):
                if isinstance(place.get(key), dict):
                    found[key] = found.get(key, {}) | {name: value for name, value in place[key].items() if value is not None}
    return found
