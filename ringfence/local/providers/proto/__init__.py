"""Pulumi's generated protocol modules, without importing Pulumi.

``import pulumi`` takes about half a second, which every provider process of every run would pay; the generated modules
need nothing of it. This package looks for its submodules in the installed SDK's own folder, so that
``from ringfence.local.providers.proto import provider_pb2`` is the SDK's file.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

_sdk = find_spec("pulumi")
if _sdk is None or _sdk.origin is None:
    raise ImportError("the Pulumi Python SDK is not installed: run `make up`, which installs it from requirements.lock")
__path__ = [str(Path(_sdk.origin).parent / "runtime" / "proto")]
