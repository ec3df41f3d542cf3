"""Names of one environment, and IAM's own decision on rendered documents."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ringfence.iam.document import parse
from ringfence.iam.evaluate import authorize, evaluate
from ringfence.iam.model import Permissions
from ringfence.iam.request import Principal, Request
from ringfence.names import Names


@pytest.fixture
def names() -> Names:
    return Names("ringfence", "test", "111122223333", "us-east-1")


@pytest.fixture
def identity_permits() -> Callable[..., bool]:
    """Whether identity policies, under a boundary, let an action through."""

    def permits(
        policies: list[str],
        action: str,
        resource: str,
        context: dict[str, str] | None = None,
        boundary: str | None = None,
    ) -> bool:
        request = Request(action, resource, {key: (value,) for key, value in (context or {}).items()})
        cap = parse(boundary) if boundary else None
        return evaluate(Permissions(tuple(map(parse, policies)), cap), request).allowed

    return permits


@pytest.fixture
def resource_permits() -> Callable[..., bool]:
    """Whether a resource's own policy (trust policy, key policy, bucket policy) lets a principal through that holds
    every permission itself, so that a refusal is the document's."""

    everything = parse('{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}')

    def permits(
        policy: str, principal: Principal, action: str, resource: str = "*", context: dict[str, str] | None = None
    ) -> bool:
        values = dict(principal.context()) | {key: (value,) for key, value in (context or {}).items()}
        request = Request(action, resource, values, principal)
        return authorize(
            Permissions((everything,)), request, resource_policy=parse(policy), resource_policy_required=True
        ).allowed

    return permits
