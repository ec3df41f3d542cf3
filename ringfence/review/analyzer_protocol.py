"""The messages of the engine's analyzer protocol: `from ringfence.review.analyzer_protocol import analyzer_pb2`.

They come with Pulumi's SDK as `pulumi.runtime.proto`. To import them under that name runs the whole SDK, 0.35 s, while the
engine waits for the pack and the program isn't started yet. So this module is a package over the same files, which import
each other relatively and nothing else of the SDK. Raises ImportError where the SDK isn't installed.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

# Finding a package, unlike importing from it, runs nothing of it.
_sdk = importlib.util.find_spec("pulumi")
if _sdk is None or not _sdk.submodule_search_locations:
    raise ImportError("Pulumi's SDK for Python is not installed; remedy: run `make setup`")
__path__ = [str(Path(place, "runtime", "proto")) for place in _sdk.submodule_search_locations]
