"""OpenRouter's prices from genai-prices' wheel, as litellm lists none.

The list is Python source that only builds values; it is read as a syntax tree and never run. OpenRouter reports the
cost of each answer, so these prices matter before it: they decide what is reserved.
"""

import ast
from datetime import date
from decimal import ROUND_CEILING, Decimal

PRICES = "genai_prices/data.py"
NANO_USD_PER_MTOK = Decimal(10) ** 9

RATES = {
    "input": "input_mtok",
    "output": "output_mtok",
    "cache_read": "cache_read_mtok",
    "cache_write_5m": "cache_write_mtok",
    "cache_write_1h": "cache_write_1h_mtok",
}


def read(source, today):
    """The models, their other names, and the names of those without a usable price."""
    models, aliases, unpriced = {}, {}, []
    for model in calls(ast.parse(source), "Provider", id="openrouter")["models"]:
        price = current(model["prices"], today)
        if not price.get("input_mtok") or not price.get("output_mtok"):
            unpriced.append(model["id"])
            continue
        converted = convert(price)
        if converted.get("cache_read", 0) > converted["input"]:
            unpriced.append(model["id"])  # a slip in the list, or figures of two models
            continue
        models[model["id"]] = converted
        aliases |= {name: model["id"] for name in names(model["match"]) if name != model["id"]}
    return models, {name: target for name, target in aliases.items() if name not in models}, unpriced


def convert(price):
    sizes = sorted({tier["start"] for rate in price.values() if isinstance(rate, dict) for tier in rate["tiers"]})
    tiers = [{"above_input_tokens": size, **rates(price, size)} for size in sizes]
    return rates(price, 0) | ({"tiers": tiers} if tiers else {})


def rates(price, size):
    """The rates above a size of the input."""
    found = {}
    for rate, key in RATES.items():
        value = price.get(key)
        if isinstance(value, dict):
            reached = [tier["price"] for tier in value["tiers"] if tier["start"] <= size]
            value = reached[-1] if reached else value["base"]
        if value:
            found[rate] = int((value * NANO_USD_PER_MTOK).to_integral_value(ROUND_CEILING))
    # For Gemini what is listed is the storage, which comes on top of the input.
    if found.get("cache_write_5m", found["input"]) < found["input"]:
        found["cache_write_5m"] += found["input"]
    return found


def current(prices, today):
    """Of prices that begin on a date, the last that has begun."""
    if isinstance(prices, dict):
        return prices
    begun = [entry["prices"] for entry in prices if has_begun(entry.get("constraint"), today)]
    return begun[-1] if begun else {}


def has_begun(constraint, today):
    return constraint is None or ("start_date" in constraint and constraint["start_date"] <= today)


def names(match):
    """The names that a match takes literally."""
    clauses = match.get("or_", [match])
    return [clause["equals"] for clause in clauses if "equals" in clause]


def calls(tree, name, **wanted):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", None) == name:
            found = {argument.arg: argument.value for argument in node.keywords}
            if all(value(found[key]) == expected for key, expected in wanted.items()):
                return value(node)
    raise SystemExit(f"no {name} with {wanted}: the list has another shape now")


def value(node):
    """What an expression of constants, lists, decimals, dates and constructors builds; a constructor is a dict."""
    match node:
        case ast.Constant():
            return node.value
        case ast.List():
            return [value(element) for element in node.elts]
        case ast.Dict():
            return {value(key): value(item) for key, item in zip(node.keys, node.values)}
        case ast.Call(func=ast.Name(id="Decimal"), args=[text]):
            return Decimal(value(text))
        case ast.Call(func=ast.Attribute(attr="date"), args=parts):
            return date(*map(value, parts))
        case ast.Call(keywords=arguments):
            return {argument.arg: value(argument.value) for argument in arguments}
    raise SystemExit(f"line {node.lineno}: the list has another shape now")
