"""The lists that our prices are compared with. Each answers the costs that a usage may have by it, or that it cannot say."""

import json
import re
import zipfile
from decimal import Decimal

import bodies
import genai_prices
from genai_prices import Usage

PRICES = "litellm/model_prices_and_context_window_backup.json"


class GenaiPrices:
    """The library, with its own reading of bodies and its own arithmetic."""

    name = "genai-prices"
    PROVIDERS = {"xai": "x-ai", "moonshot": "moonshotai"}
    # The shapes of bodies that a provider has, the likeliest first.
    FLAVOURS = ["default", "chat", "responses", "embeddings", "images"]

    def __init__(self, moment):
        self.moment = moment

    def cost(self, case):
        provider = self.PROVIDERS.get(case["provider"], case["provider"])
        usage, tier = self.read(case, provider) if case["body"] else self.usage(case), case["tier"]
        if usage is None:
            return None
        try:
            price = genai_prices.calc_price(
                usage,
                case["model"],
                provider_id=provider,
                genai_request_timestamp=self.moment,
                price_context=context(tier),
            )
        except (LookupError, ValueError):
            return None
        if tier not in ORDINARY and not self.has_tier(price.model, tier):
            return None
        return [price.total_price]

    @staticmethod
    def has_tier(model, tier):
        """Without a price for a tier the library takes the ordinary one, which says nothing of the tier."""
        return any(variant.when == context(tier) for variant in model.price_variants or [])

    def read(self, case, provider):
        """The usage that the library itself finds in a body, or none where it does not know the shape."""
        answer = bodies.answer(case["body"])
        for flavour in self.FLAVOURS:
            try:
                found = genai_prices.extract_usage(answer, provider_id=provider, api_flavor=flavour).usage
            except (LookupError, ValueError):
                continue
            if found.input_tokens or found.output_tokens:
                return found
        return None

    def usage(self, case):
        counts = case["usage"]
        parts = {
            "input_tokens": sum(counts.get(part, 0) for part in ("input", "cache_read", "cache_write_5m", "cache_write_1h")),
            "output_tokens": counts.get("output", 0),
            "cache_read_tokens": counts.get("cache_read", 0),
            "cache_write_tokens": counts.get("cache_write_5m", 0) + counts.get("cache_write_1h", 0),
            "cache_write_1h_tokens": counts.get("cache_write_1h", 0),
            "output_reasoning_tokens": counts.get("reasoning", 0),
            "input_audio_tokens": counts.get("audio_input", 0) + counts.get("audio_cache_read", 0),
            "cache_audio_read_tokens": counts.get("audio_cache_read", 0),
            "output_audio_tokens": counts.get("audio_output", 0),
            "input_image_tokens": counts.get("image_input", 0) + counts.get("image_cache_read", 0),
            "cache_image_read_tokens": counts.get("image_cache_read", 0),
            "output_image_tokens": counts.get("image_output", 0),
            "web_searches": counts.get("searches", 0),
        }
        return Usage(**{name: count for name, count in parts.items() if count or name in ("input_tokens", "output_tokens")})


# What responses call the tier that everybody has.
ORDINARY = (None, "default", "standard", "on_demand")


def context(tier):
    if tier == "batch":
        return {"processing": "batch"}
    if tier == "fast":
        return {"speed": "fast"}
    return {"service_tier": tier} if tier else None


class Litellm:
    """The raw list, as its keys read; the arithmetic is this one's own."""

    name = "litellm"
    SERVICE_TIERS = {"batch": "_batches", "flex": "_flex", "priority": "_priority", "ultrafast": "_ultrafast"}
    # The key of each part, and the part that it is priced as where that key is not there.
    KEYS = {
        "input": ("input_cost_per_token", None),
        "output": ("output_cost_per_token", "image_output"),
        "cache_read": ("cache_read_input_token_cost", "input"),
        "cache_write_5m": ("cache_creation_input_token_cost", "input"),
        "cache_write_1h": ("cache_creation_input_token_cost_above_1hr", "cache_write_5m"),
        "reasoning": ("output_cost_per_reasoning_token", "output"),
        "audio_input": ("input_cost_per_audio_token", "input"),
        "audio_cache_read": ("cache_read_input_audio_token_cost", "cache_read"),
        "audio_output": ("output_cost_per_audio_token", "output"),
        "image_input": ("input_cost_per_image_token", "input"),
        "image_cache_read": ("cache_read_input_image_token_cost", "cache_read"),
        "image_output": ("output_cost_per_image_token", "output"),
    }
    LONGER_LIFETIME = "cache_creation_input_token_cost_above_12hr"
    INPUT = ("input", "cache_read", "cache_write_5m", "cache_write_1h")
    PARTS_OF = {
        "input": ("audio_input", "image_input"),
        "cache_read": ("audio_cache_read", "image_cache_read"),
        "output": ("reasoning", "audio_output", "image_output"),
    }

    def __init__(self, wheels):
        (wheel,) = wheels.glob("litellm-*.whl")
        with zipfile.ZipFile(wheel) as files:
            raw = json.loads(files.read(PRICES), parse_float=Decimal, parse_int=Decimal)
        self.entries = {}
        for name, entry in raw.items():
            entry = raw.get(entry.get("alias_of"), entry)
            if entry.get("input_cost_per_token") is not None:
                self.entries.setdefault(name, []).append(entry)

    def cost(self, case):
        """Under whichever of the names that the list has for the model; it has some models twice."""
        return [cost for entry in self.find(case) if (cost := self.price(entry, case)) is not None] or None

    def find(self, case):
        """The entries of a model, by its name, or else by it without its date."""
        for model in dict.fromkeys([case["model"], re.sub(r"-(\d{4}-\d\d-\d\d|\d{8})$", "", case["model"])]):
            found = [entry for name in self.names(case["provider"], model) for entry in self.entries.get(name, [])]
            if found:
                return found
        return []

    @staticmethod
    def names(provider, model):
        prefixes = {"google": "gemini", "together": "together_ai", "fireworks": "fireworks_ai", "cohere": "cohere_chat"}
        prefixed = f"{prefixes.get(provider, provider)}/{model}"
        return [prefixed] if provider in ("groq", "openrouter") else [prefixed, model]

    def price(self, entry, case):
        usage, tier = case["usage"], case["tier"]
        ending = self.SERVICE_TIERS.get(tier, "")
        if tier == "fast":
            return None  # a factor, and no rates
        if ending and f"input_cost_per_token{ending}" not in entry:
            ending = ""
        total = sum(usage.get(part, 0) for part in self.INPUT)
        sizes = [int(found[1]) for key in entry if (found := re.fullmatch(r"input_cost_per_token_above_(\d+)k_tokens", key))]
        passed = [size for size in sizes if total > size * 1000]
        above = f"_above_{max(passed)}k_tokens" if passed else ""
        if ending and above and f"input_cost_per_token{above}{ending}" not in entry:
            return None  # the list does not say what a long context costs in this tier
        counts = {part: usage.get(part, 0) for part in self.KEYS}
        for whole, parts in self.PARTS_OF.items():
            counts[whole] -= sum(counts[part] for part in parts)
        fees = usage.get("searches", 0) * self.search(entry) + self.request(entry)
        return sum((self.rate(entry, part, above, ending) * count for part, count in counts.items() if count), fees)

    def rate(self, entry, part, above, ending):
        """As litellm's own code has it, what a tier does not list costs what it does ordinarily."""
        key, stand_in = self.KEYS[part]
        if part == "cache_write_1h" and key not in entry:
            key = self.LONGER_LIFETIME
        found = entry.get(key + above + ending) or entry.get(key + above)
        if found or not stand_in or self.KEYS[stand_in][1] == part and not entry.get(self.KEYS[stand_in][0]):
            return found or Decimal(0)
        return self.rate(entry, stand_in, above, ending)

    @staticmethod
    def search(entry):
        return (entry.get("search_context_cost_per_query") or {}).get("search_context_size_medium", Decimal(0))

    @staticmethod
    def request(entry):
        """Perplexity searches for every request; what is not known before is taken to be the most."""
        sizes = entry.get("search_context_cost_per_query") or {}
        is_by_size = entry["litellm_provider"] == "perplexity" and len(set(sizes.values())) > 1
        return max(sizes.values()) if is_by_size else Decimal(0)
