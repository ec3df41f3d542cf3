"""The `random:` types: RandomPassword, RandomString, RandomId, RandomUuid and RandomBytes, as the official plugin has them.

Values come from the system's cryptographic source (`secrets`). They are made once and kept in the state; any changed
input, `keepers` included, replaces the resource. Not provided: `bcryptHash` of a password, which needs a bcrypt library.
"""

from __future__ import annotations

import base64
import secrets
import string
import uuid
from typing import Any

from ringfence.local.providers.base import UNKNOWN, CheckFailure, DiffResult, ProviderError, ReadResult, serve
from ringfence.local.providers.paths import changed_paths, format_path

# pulumi-random's version in requirements.lock, whose inputs and outputs these are.
VERSION = "4.21.4"
SPECIAL = "!@#$%&*()-_=+[]{}<>:?"
CLASSES = {
    "lower": ("minLower", string.ascii_lowercase),
    "upper": ("minUpper", string.ascii_uppercase),
    "numeric": ("minNumeric", string.digits),
    "special": ("minSpecial", SPECIAL),
}
_STRING_DEFAULTS: dict[str, Any] = dict.fromkeys(CLASSES, True) | {minimum: 0 for minimum, _ in CLASSES.values()}
PASSWORD = "random:index/randomPassword:RandomPassword"  # noqa: S105 (a type token)
STRING = "random:index/randomString:RandomString"
ID = "random:index/randomId:RandomId"
UUID = "random:index/randomUuid:RandomUuid"
BYTES = "random:index/randomBytes:RandomBytes"
_LENGTH_KEY = {PASSWORD: "length", STRING: "length", BYTES: "length", ID: "byteLength"}
_SECRET_OUTPUTS = {PASSWORD: frozenset({"result", "bcryptHash"}), BYTES: frozenset({"base64", "hex"})}
# The id of a thing whose value is secret; ids are shown everywhere.
NO_ID = "none"


def make_string(inputs: dict[str, Any]) -> str:
    """A string of exactly `length` characters that has at least the minimum of each class."""
    alphabets = {name: alphabet for name, (_, alphabet) in CLASSES.items()}
    if inputs.get("overrideSpecial"):
        alphabets["special"] = inputs["overrideSpecial"]
    characters = [
        secrets.choice(alphabets[name]) for name, (minimum, _) in CLASSES.items() for _ in range(inputs[minimum])
    ]
    everything = "".join(alphabet for name, alphabet in alphabets.items() if inputs[name])
    characters += [secrets.choice(everything) for _ in range(inputs["length"] - len(characters))]
    secrets.SystemRandom().shuffle(characters)
    return "".join(characters)


def make_id(inputs: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Random bytes in the notations that RandomId has; the id is URL-safe base64 without padding, and has no prefix."""
    value = secrets.token_bytes(inputs["byteLength"])
    prefix = inputs.get("prefix") or ""
    plain_url = base64.urlsafe_b64encode(value).decode().rstrip("=")
    notations = {
        "b64Std": base64.b64encode(value).decode(),
        "b64Url": plain_url,
        "dec": str(int.from_bytes(value)),
        "hex": value.hex(),
    }
    return plain_url, {name: prefix + text for name, text in notations.items()}


def _check_string(inputs: dict[str, Any]) -> list[CheckFailure]:
    failures = []
    known = {key: value for key, value in inputs.items() if value is not UNKNOWN}
    if not any(inputs[name] is UNKNOWN or inputs[name] for name in CLASSES):
        failures.append(
            CheckFailure("lower", "every class of characters is off: turn on lower, upper, numeric or special")
        )
    least = sum(known.get(minimum, 0) for minimum, _ in CLASSES.values())
    if known.get("length", least) < least:
        reason = f"length {known['length']} is less than the sum of the minimums, {least}: make it at least {least}"
        failures.append(CheckFailure("length", reason))
    return failures


class RandomBackend:
    """Everything is in the state: nothing can drift, and deleting is forgetting."""

    def configure(self, args: dict[str, Any]) -> None:
        return

    def check(
        self, type_: str, urn: str, olds: dict[str, Any], news: dict[str, Any], random_seed: bytes
    ) -> tuple[dict[str, Any], list[CheckFailure]]:
        if type_ not in _LENGTH_KEY and type_ != UUID:
            known = ", ".join(sorted(name.rsplit(":", 1)[-1] for name in (*_LENGTH_KEY, UUID)))
            return news, [CheckFailure("", f"{type_} is not supported on the embedded target; {known} are")]
        inputs = {key: value for key, value in news.items() if value is not None}
        failures = []
        if type_ in _LENGTH_KEY:
            key = _LENGTH_KEY[type_]
            length = inputs.get(key)
            if length is not UNKNOWN and (not isinstance(length, int) or isinstance(length, bool) or length < 1):
                failures.append(CheckFailure(key, f"{length!r} is no length: write a whole number of at least 1"))
        if type_ in (PASSWORD, STRING):
            if "number" in inputs:  # the deprecated name
                inputs.setdefault("numeric", inputs.pop("number"))
            inputs = _STRING_DEFAULTS | inputs
            failures = failures or _check_string(inputs)
        return inputs, failures

    def diff(
        self,
        type_: str,
        urn: str,
        id_: str,
        old_inputs: dict[str, Any],
        old_outputs: dict[str, Any],
        news: dict[str, Any],
    ) -> DiffResult:
        changed = tuple(format_path(path) for path in changed_paths(old_inputs, news))
        return DiffResult(changed, replaces=changed)

    def create(self, type_: str, urn: str, inputs: dict[str, Any], preview: bool) -> tuple[str, dict[str, Any]]:
        if preview:
            names = {
                PASSWORD: ("result",),
                STRING: ("result",),
                UUID: ("result",),
                BYTES: ("base64", "hex"),
                ID: ("b64Std", "b64Url", "dec", "hex"),
            }
            return "", inputs | dict.fromkeys(names[type_], UNKNOWN)
        if type_ == ID:
            id_, made = make_id(inputs)
        elif type_ == UUID:
            id_ = str(uuid.UUID(bytes=secrets.token_bytes(16), version=4))
            made = {"result": id_}
        elif type_ == BYTES:
            value = secrets.token_bytes(inputs["length"])
            id_, made = NO_ID, {"base64": base64.b64encode(value).decode(), "hex": value.hex()}
        else:
            made = {"result": make_string(inputs)}
            id_ = NO_ID if type_ == PASSWORD else made["result"]
        return id_, inputs | made

    def read(
        self, type_: str, urn: str, id_: str, inputs: dict[str, Any], outputs: dict[str, Any]
    ) -> ReadResult | None:
        if not inputs and not outputs:
            raise ProviderError("a random value stands nowhere but in the state, so it can't be imported: declare it")
        return ReadResult(id_, inputs, outputs)

    def update(
        self,
        type_: str,
        urn: str,
        id_: str,
        old_inputs: dict[str, Any],
        old_outputs: dict[str, Any],
        news: dict[str, Any],
        preview: bool,
    ) -> dict[str, Any]:
        return old_outputs | news

    def delete(self, type_: str, urn: str, id_: str, inputs: dict[str, Any], outputs: dict[str, Any]) -> None:
        return

    def invoke(self, token: str, args: dict[str, Any]) -> dict[str, Any]:
        raise ProviderError(f"the function {token} is not supported on the embedded target")

    def secret_outputs(self, type_: str) -> frozenset[str]:
        return _SECRET_OUTPUTS.get(type_, frozenset())


if __name__ == "__main__":
    serve(RandomBackend(), "random", VERSION)
