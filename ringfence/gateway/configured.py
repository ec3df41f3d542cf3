"""The upstreams that the control side's own environment has keys for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import botocore.session

from ringfence.gateway.providers import Anthropic, Bedrock, OpenAI
from ringfence.gateway.scripted import Scripted, load
from ringfence.gateway.upstream import Upstream


def upstreams(environ: Mapping[str, str], script: Path | None = None) -> tuple[Upstream, ...]:
    """OpenAI for OPENAI_API_KEY, Anthropic for ANTHROPIC_API_KEY, Bedrock for RINGFENCE_BEDROCK_REGION (with whatever
    credentials botocore finds at the call), and the model ``scripted`` for a script.

    OPENAI_BASE_URL and ANTHROPIC_BASE_URL name another address; RINGFENCE_MODEL_PROXY the control side's way out. Keys
    are read again at each call. Raises InputError for a bad script or address.
    """
    proxy = environ.get("RINGFENCE_MODEL_PROXY") or None
    found: list[Upstream] = []
    if script is not None:
        found.append(Scripted(load(script)))
    if environ.get("OPENAI_API_KEY"):
        base = environ.get("OPENAI_BASE_URL") or "https://api.openai.com"
        found.append(OpenAI(lambda: environ.get("OPENAI_API_KEY", ""), base.removesuffix("/v1"), proxy))
    if environ.get("ANTHROPIC_API_KEY"):
        base = environ.get("ANTHROPIC_BASE_URL") or "https://api.anthropic.com"
        found.append(Anthropic(lambda: environ.get("ANTHROPIC_API_KEY", ""), base, proxy))
    if region := environ.get("RINGFENCE_BEDROCK_REGION"):
        session = botocore.session.Session()
        found.append(Bedrock(session.get_credentials, region, proxy=proxy))
    return tuple(found)
