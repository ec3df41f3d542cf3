"""The one place for pinned versions of what an environment runs. Toolchain pins are in ringfence/local/toolchain."""

from __future__ import annotations
