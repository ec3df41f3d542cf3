"""A provider that accepts every type and gives back what it is given, as the official providers do at preview.

The packs must work for types that no embedded provider makes; at preview a real provider's answer is its inputs, with
`id` and `arn` unknown. Updates are refused: nothing here ever makes anything.
"""

from __future__ import annotations

import sys
from typing import Any

from ringfence.local.providers.base import UNKNOWN, CheckFailure, DiffResult, ProviderError, ReadResult, serve


class EchoBackend:
    """Every type, preview only."""

    def configure(self, args: dict[str, Any]) -> None:
        del args

    def check(
        self, type_: str, urn: str, olds: dict[str, Any], news: dict[str, Any], random_seed: bytes
    ) -> tuple[dict[str, Any], list[CheckFailure]]:
        return news, []

    def diff(self, type_: str, urn: str, id_: str, old_inputs: Any, old_outputs: Any, news: Any) -> DiffResult:
        return DiffResult()

    def create(self, type_: str, urn: str, inputs: dict[str, Any], preview: bool) -> tuple[str, dict[str, Any]]:
        if not preview:
            raise ProviderError("this provider is for previews")
        return "", inputs | {"arn": UNKNOWN}

    def read(self, type_: str, urn: str, id_: str, inputs: Any, outputs: Any) -> ReadResult | None:
        return None

    def update(
        self, type_: str, urn: str, id_: str, old_inputs: Any, old_outputs: Any, news: Any, preview: bool
    ) -> Any:
        raise ProviderError("this provider is for previews")

    def delete(self, type_: str, urn: str, id_: str, inputs: Any, outputs: Any) -> None:
        raise ProviderError("this provider is for previews")

    def invoke(self, token: str, args: dict[str, Any]) -> dict[str, Any]:
        raise ProviderError(f"{token} is not answered at preview")

    def secret_outputs(self, type_: str) -> frozenset[str]:
        return frozenset()


if __name__ == "__main__":
    serve(EchoBackend(), sys.argv[1] if len(sys.argv) > 1 and not sys.argv[1].startswith("127") else "aws", "7.51.1")
