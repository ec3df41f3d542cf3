"""The estimate: its two promises, its sources, and that it moves with the settings."""

from __future__ import annotations

import pytest

from ringfence.cost import estimate
from ringfence.errors import InputError
from ringfence.settings import load


def settings(**extra: object):
    good = {"accountId": "123456789012", "clusterAdmins": ["arn:aws:iam::123456789012:role/operators"]}
    return load(good | extra, "dev")


REGISTRY = "123456789012.dkr.ecr.us-east-1.amazonaws.com"
SERVICE = {
    "sandboxImage": f"{REGISTRY}/ringfence-dev/agent-runtime@sha256:{'a' * 64}",
    "serviceImage": f"{REGISTRY}/ringfence-dev/control@sha256:{'b' * 64}",
    "oidcIssuer": "https://id.example.com",
    "oidcAudience": "ringfence",
}


def test_lean_costs_at_most_125_and_production_at_most_330_a_month():
    assert 100 < estimate(settings(**SERVICE)).total_usd <= 125
    production = settings(profile="production", sandboxMinOnDemandNodes=1, sandboxMaxOnDemandNodes=4, **SERVICE)
    assert 200 < estimate(production).total_usd <= 330


def test_every_line_has_a_source_and_adds_up():
    for line in estimate(settings(profile="production")).lines:
        assert line.source
        assert line.usd == pytest.approx(line.quantity * line.unit_usd, abs=0.01)


@pytest.mark.parametrize(
    ("change", "at_least"),
    [
        ({"networkFirewall": True}, 500),
        ({"interfaceEndpoints": ["sts", "logs"]}, 29),
        ({"nat": "gateway"}, 36),
        ({"systemNodes": 2}, 26),
        ({"sandboxMinOnDemandNodes": 1}, 59),
        ({"vaultReplicas": 3}, 1.5),
        (SERVICE, 0.3),
    ],
)
def test_a_setting_that_costs_money_raises_the_estimate(change: dict, at_least: float):
    assert estimate(settings(**change)).total_usd - estimate(settings()).total_usd >= at_least


def test_an_instance_type_without_a_price_is_refused_not_taken_for_free():
    with pytest.raises(InputError, match=r"no price for 'x1e.32xlarge'"):
        estimate(settings(systemNodeType="x1e.32xlarge"))


def test_the_service_s_disk_is_as_large_as_the_component_makes_it():
    from components.service import STATE_GIB
    from ringfence.cost.estimate import SERVICE_DISK_GB

    assert SERVICE_DISK_GB == STATE_GIB
