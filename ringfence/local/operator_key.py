"""The key of whoever operates the embedded target: the one long-lived key that its AWS server takes.

Made per home and kept in a file that only its owner may read, so that code in a sandbox, which reaches the server through
a relay, can't sign as the operator. Trust zone: operator.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass, field

from ringfence.errors import RingfenceError
from ringfence.local.state import Home, read_json, write_atomic

# The key's id is no secret; what signs is made per home.
ACCESS_KEY_ID = "ringfence-embedded"
FILE = "aws-operator.json"
# 40 characters, as AWS's own secret keys have.
_SECRET_BYTES = 30


@dataclass(frozen=True, slots=True)
class OperatorKey:
    """An access key without session token."""

    access_key_id: str
    secret_access_key: str = field(repr=False)


def operator_key(home: Home) -> OperatorKey:
    """The home's key, made on first use. Raises RingfenceError when others can read it."""
    path = home.root / FILE
    with home.lock("aws-operator"):
        kept = read_json(path)
        if not all(isinstance(kept.get(name), str) and kept[name] for name in ("accessKeyId", "secretAccessKey")):
            kept = {"accessKeyId": ACCESS_KEY_ID, "secretAccessKey": secrets.token_urlsafe(_SECRET_BYTES)}
            write_atomic(path, json.dumps(kept) + "\n")
    mode = path.stat().st_mode & 0o777
    if mode & 0o077:
        raise RingfenceError(f"{path} has mode {mode:04o}: others can read the key.\n    remedy: chmod 600 {path}")
    return OperatorKey(kept["accessKeyId"], kept["secretAccessKey"])
