"""A score for text that looks like instructions to an agent. A signal: it makes the gate stricter and decides nothing.

Detectors are beaten by whoever adapts to them and flag ordinary text, so no permission hangs on this score.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

# At or above, the gate turns strict.
SUSPICIOUS = 0.5
# Only the beginning and the end are looked at in long text: that is where an instruction is heeded most. Characters.
WINDOW = 20_000


@dataclass(frozen=True, slots=True)
class Signal:
    """score: 0 to 1; reasons: names of the rules that matched."""

    score: float
    reasons: tuple[str, ...]


# Weights add up, capped at 1; a single rule short of SUSPICIOUS needs a second one.
_RULES: tuple[tuple[str, float, re.Pattern[str]], ...] = (
    ("override", 0.6, re.compile(
        r"\b(?:ignore|disregard|forget|override)\b.{0,40}\b(?:previous|prior|above|earlier|all|your|system)\b"
        r".{0,40}\b(?:instructions?|prompts?|rules?|directions?|guidelines?)\b", re.I | re.S)),
    ("role marker", 0.5, re.compile(
        r"<\|(?:im_start|im_end|system|assistant)\|>|\[/?INST\]|<</?SYS>>|^\s*(?:###\s*)?(?:system|assistant)\s*:", re.I | re.M)),
    ("addresses the agent", 0.3, re.compile(
        r"\b(?:dear|attention|note to|message (?:to|for)|instructions? (?:to|for))\b.{0,20}\b(?:ai|agent|assistant|llm|"
        r"language model|chatbot)\b|\byou are (?:now|an? (?:ai|agent|assistant))\b", re.I | re.S)),
    ("asks for a tool", 0.3, re.compile(
        r"\b(?:call|use|invoke|run|execute)\b.{0,20}\b(?:tool|function|command|api)\b|\btool_calls?\b", re.I | re.S)),
    ("asks to send", 0.3, re.compile(
        r"\b(?:send|forward|email|post|upload|exfiltrate|leak)\b.{0,60}(?:@|https?://|\bto\b.{0,20}\b(?:bucket|server|"
        r"address|domain)\b)", re.I | re.S)),
    ("asks for a secret", 0.4, re.compile(
        r"\b(?:reveal|print|show|send|output|repeat)\b.{0,40}\b(?:system prompt|credentials?|api keys?|secrets?|tokens?|"
        r"passwords?)\b", re.I | re.S)),
    ("asks for silence", 0.3, re.compile(
        r"\b(?:do not|don't|never|without)\b.{0,20}\b(?:tell|mention|inform|telling|mentioning|alert)\b.{0,20}\buser\b",
        re.I | re.S)),
    ("urgency", 0.1, re.compile(r"\b(?:important|urgent|critical|mandatory)\s*[:!]", re.I)),
    ("encoded block", 0.2, re.compile(r"(?:[A-Za-z0-9+/]{60,}={0,2})|(?:\\x[0-9a-f]{2}){12,}|(?:%[0-9a-f]{2}){12,}", re.I)),
)  # fmt: skip
_INVISIBLE = re.compile("[\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff\U000e0000-\U000e007f]")


def score(text: str) -> Signal:
    """How much a text looks like an instruction to an agent."""
    if len(text) > 2 * WINDOW:
        text = text[:WINDOW] + "\n" + text[-WINDOW:]
    reasons: list[str] = []
    total = 0.0
    if len(_INVISIBLE.findall(text)) >= 3:
        total += 0.4
        reasons.append("invisible characters")
    plain = _INVISIBLE.sub("", unicodedata.normalize("NFKC", text))
    for name, weight, pattern in _RULES:
        if pattern.search(plain):
            total += weight
            reasons.append(name)
    return Signal(min(total, 1.0), tuple(reasons))
