"""The pattern language: globs with `*` and `?`, encoded so that wildcards, variables and text can't be confused.

An encoded pattern is a string in which a lone surrogate, which no valid text contains, stands for each special token:
wildcards, wildcards that stay within one part of an ARN, a policy variable, a letter in either case.
"""

from __future__ import annotations

import re
from functools import lru_cache

STAR = "\ud800"  # any text
ANY = "\ud801"  # any one character
PART = "\ud802"  # any text without a colon
PART_ANY = "\ud803"  # any one character but a colon
NAME = "\ud804"  # any text without a colon or a slash
NAME_ANY = "\ud805"  # any one character but those
DIGIT = "\ud806"  # one digit; in shapes of what is looked for, never in a policy's own pattern
# What each token that takes any number of characters, and each that takes one, doesn't take.
RUNS = {STAR: "", PART: ":", NAME: ":/"}
ONE = {ANY: "", PART_ANY: ":", NAME_ANY: ":/"}
STARS = STAR + PART + NAME
# Policy variables, numbered in order of appearance; each is opaque until a value is chosen for it. They take the private
# planes, which no document may use (`parsing`), as there are many: placeholders of templates are read as variables too.
VARIABLE_FIRST, VARIABLE_LAST = 0xF0000, 0x10FFFD
# A letter that matches in either case: this plus its lower-case ASCII code.
_FOLDED_FIRST = 0xDC00

_SPECIAL = re.compile("[\ud800-\udfff\U000f0000-\U0010ffff]")
_VARIABLE = re.compile(f"[{chr(VARIABLE_FIRST)}-{chr(VARIABLE_LAST)}]")
_REFERENCE = re.compile(r"\$\{([^}]*)\}")
_RUN = re.compile(f"[{STAR}{ANY}]{{2,}}")
_OTHER_WILDCARD = re.compile(f"[{ANY}{PART}{PART_ANY}{NAME}{NAME_ANY}{chr(_FOLDED_FIRST)}-\udfff]")
_PLACEHOLDER = re.compile(r"\$\{[^}]*\}")


class TooManyVariables(Exception):
    """More distinct policy variables than can be told apart at one time."""

    def __init__(self) -> None:
        super().__init__(f"more than {VARIABLE_LAST - VARIABLE_FIRST + 1:,} policy variables can't be told apart")


_variables: dict[tuple[str, str | None], str] = {}
_by_symbol: dict[str, tuple[str, str | None]] = {}


def variables_known() -> int:
    """How many variables have a number."""
    return len(_variables)


def forget() -> None:
    """Forget the variables' numbers and every pattern encoded with them. Patterns made before mean nothing after."""
    _variables.clear()
    _by_symbol.clear()
    encode.cache_clear()
    encode_arn.cache_clear()


def variable_of(symbol: str) -> tuple[str, str | None]:
    """Lower-case condition key and default value (None without one) of a variable's symbol."""
    return _by_symbol[symbol]


def variables_in(pattern: str) -> list[str]:
    """Symbols of the variables in an encoded pattern."""
    return _VARIABLE.findall(pattern)


def has_wildcard(text: str) -> bool:
    """Whether plain text holds `*` or `?`."""
    return "*" in text or "?" in text


def _symbol(reference: str) -> str:
    if reference in ("*", "?", "$"):
        return reference
    key, comma, default = reference.partition(",")
    default = default.strip()
    quoted = comma and len(default) >= 2 and default[0] == default[-1] == "'"
    named = (key.strip().lower(), default[1:-1] if quoted else None)
    symbol = _variables.get(named)
    if symbol is None:
        code = VARIABLE_FIRST + len(_variables)
        if code > VARIABLE_LAST:
            raise TooManyVariables
        symbol = chr(code)
        _variables[named] = symbol
        _by_symbol[symbol] = named
    return symbol


@lru_cache(maxsize=16_384)
def encode(text: str, variables: bool = False, wildcards: bool = True) -> str:
    """The encoded pattern of a policy's text. variables: `${…}` are variables; wildcards: `*` and `?` are wildcards."""
    if not variables or "${" not in text:
        return _wildcards(text) if wildcards else text
    parts: list[str] = []
    position = 0
    for reference in _REFERENCE.finditer(text):
        before = text[position : reference.start()]
        parts.append(_wildcards(before) if wildcards else before)
        parts.append(_symbol(reference.group(1)))
        position = reference.end()
    rest = text[position:]
    parts.append(_wildcards(rest) if wildcards else rest)
    return _normal("".join(parts))


def _wildcards(text: str) -> str:
    if "*" not in text and "?" not in text:
        return text
    return _normal(text.replace("*", STAR).replace("?", ANY))


def _normal(pattern: str) -> str:
    """Runs of wildcards in one form: single characters first, then at most one star."""
    if STAR + STAR not in pattern and STAR + ANY not in pattern and ANY + STAR not in pattern:
        return pattern
    return _RUN.sub(lambda run: ANY * run.group().count(ANY) + (STAR if STAR in run.group() else ""), pattern)


@lru_cache(maxsize=4_096)
def encode_arn(text: str, variables: bool = False) -> str:
    """The encoded pattern of an ArnLike value: wildcards stay within their part of the ARN, except in the last."""
    pattern = encode(text, variables)
    *parts, last = pattern.split(":", 5)
    inner = [part.replace(STAR, PART).replace(ANY, PART_ANY) for part in parts]
    return ":".join([*inner, last])


def encode_template(template: str, *, strict: bool = False) -> str:
    """The encoded pattern of a catalogue ARN format: each `${Name}` is at least one character.

    Without strict, what stands for a name in the last part may hold a colon, and the account may be missing, as it is
    in ARNs of what AWS owns (`arn:aws:ssm:us-east-1::document/AWS-RunShellScript`). Every partition begins with `aws`.
    """
    *parts, last = template.replace("${Partition}", "aws*").split(":", 5)
    inner = [_PLACEHOLDER.sub(NAME_ANY + NAME, part).replace("*", NAME) for part in parts]
    if not strict and inner[4] == NAME_ANY + NAME:
        inner[4] = NAME
    placeholder = PART_ANY + PART if strict else ANY + STAR
    return ":".join([*inner, _normal(_PLACEHOLDER.sub(placeholder, last).replace("*", STAR))])


def by_parts(pattern: str) -> str:
    """The pattern with wildcards kept within their part of the ARN, when it has all the parts of one."""
    parts = pattern.split(":", 5)
    if len(parts) < 6:
        return pattern
    inner = [part.replace(STAR, PART).replace(ANY, PART_ANY) for part in parts[:5]]
    return ":".join([*inner, parts[5]])


def encode_folded(text: str, variables: bool = False) -> str:
    """The encoded pattern of text that matches in any case. Only ASCII letters have a case in IAM's identifiers."""
    return "".join(
        chr(_FOLDED_FIRST + ord(c.lower())) if c.isascii() and c.isalpha() else c
        for c in encode(text, variables, wildcards=False)
    )


def folded(symbol: str) -> str:
    """The lower-case letter behind a symbol that matches in either case; empty for other symbols."""
    return chr(ord(symbol) - _FOLDED_FIRST) if ord(symbol) >= _FOLDED_FIRST and ord(symbol) <= 0xDFFF else ""


def is_literal(pattern: str) -> bool:
    """Whether the encoded pattern is plain text: no wildcard, variable or folded letter."""
    return _SPECIAL.search(pattern) is None


def filled(pattern: str, text: str) -> str:
    """The pattern with `text` for each run of wildcards."""
    return re.sub(f"[{STAR}-{NAME_ANY}]+", text, pattern)


def literal_prefix(pattern: str) -> str:
    """The plain text that every match of the pattern begins with."""
    special = _SPECIAL.search(pattern)
    return pattern if special is None else pattern[: special.start()]


def substitute(pattern: str, values: dict[str, str | None]) -> str | None:
    """The pattern with variables replaced by literal values; None when one of them has no value."""
    for symbol in variables_in(pattern):
        if symbol in values:
            value = values[symbol]
            if value is None:
                return None
            pattern = pattern.replace(symbol, value)
    return pattern


def matches(pattern: str, text: str) -> bool:
    """Whether the encoded pattern (variables already replaced) matches the whole text."""
    return includes(pattern, text)


def includes(wide: str, narrow: str) -> bool:
    """Whether every text that `narrow` matches is matched by `wide`; may say no for odd mixtures of `*` and `?`."""
    if wide in (narrow, STAR):
        return True
    special = _SPECIAL.search(wide)
    if special is None:
        return False
    first = special.start()
    if not narrow.startswith(wide[:first]):
        return False
    if wide[first] == STAR and first == len(wide) - 1:
        return True
    chunks = _chunks(wide)
    if chunks is not None:
        return _in_order(chunks, narrow)
    # Plain text of the wide pattern is only matched by the same text: a quick way to say no.
    position = 0
    for text in _texts(wide):
        position = narrow.find(text, position) + len(text)
        if position < len(text):
            return False
    return _covers(wide, first, narrow)


@lru_cache(maxsize=65_536)
def _chunks(pattern: str) -> tuple[str, ...] | None:
    """The texts between the stars of a pattern without other wildcards; None for one with others."""
    return None if _OTHER_WILDCARD.search(pattern) else tuple(pattern.split(STAR))


@lru_cache(maxsize=65_536)
def _texts(pattern: str) -> tuple[str, ...]:
    """The stretches of plain text in a pattern, in order."""
    return tuple(text for text in _SPECIAL.split(pattern) if text)


def _in_order(chunks: tuple[str, ...], narrow: str) -> bool:
    """`_covers` for a pattern with stars alone: its texts occur one after the other, the first and last at the ends."""
    if len(chunks) == 1:
        return chunks[0] == narrow
    head, *middle, tail = chunks
    end = len(narrow) - len(tail)
    position = len(head)
    if end < position or not (narrow.startswith(head) and narrow.endswith(tail)):
        return False
    for chunk in middle:
        found = narrow.find(chunk, position, end)
        if found < 0:
            return False
        position = found + len(chunk)
    return True


def _covers(wide: str, first: int, narrow: str) -> bool:
    """The general case of `includes`: `narrow` read as text whose wildcards only wider wildcards match."""
    place = position = first
    star, resume = -1, 0
    size, length = len(wide), len(narrow)
    while position < length:
        token = wide[place] if place < size else ""
        symbol = narrow[position]
        if token in RUNS:
            star, resume = place, position
            place += 1
        elif token and _takes(token, symbol):
            place += 1
            position += 1
        elif star >= 0 and _run_takes(RUNS[wide[star]], narrow[resume]):
            resume += 1
            place, position = star + 1, resume
        else:
            return False
    return all(token in RUNS for token in wide[place:])


def _takes(token: str, symbol: str) -> bool:
    """Whether the token takes exactly what the symbol stands for, or more."""
    if token == symbol:
        return True
    excluded = ONE.get(token)
    if excluded is None:
        letter = folded(token)
        return bool(letter) and symbol.isascii() and symbol.lower() == letter
    if symbol == DIGIT:
        return not set(excluded) & set("0123456789")
    if symbol in ONE:
        return set(excluded) <= set(ONE[symbol])
    return not _is_run_or_variable(symbol) and symbol not in excluded


def _run_takes(excluded: str, symbol: str) -> bool:
    """Whether a run that excludes these characters takes whatever the symbol stands for."""
    if not excluded:
        return True
    if symbol in RUNS or symbol in ONE:
        return set(excluded) <= set(RUNS.get(symbol, ONE.get(symbol, "")))
    return not _is_run_or_variable(symbol) and symbol not in excluded


def _is_run_or_variable(symbol: str) -> bool:
    return symbol in RUNS or symbol >= chr(VARIABLE_FIRST)


def may_overlap(one: str, other: str) -> bool:
    """False only when no text matches both: their plain beginnings or endings disagree."""
    a, b = literal_prefix(one), literal_prefix(other)
    if not (a.startswith(b) or b.startswith(a)):
        return False
    if len(a) == len(one) and len(b) == len(other):
        return a == b
    a, b = _literal_suffix(one), _literal_suffix(other)
    return a.endswith(b) or b.endswith(a)


def _literal_suffix(pattern: str) -> str:
    for position in range(len(pattern) - 1, -1, -1):
        if _SPECIAL.match(pattern, position):
            return pattern[position + 1 :]
    return pattern
