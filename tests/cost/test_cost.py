"""The estimate: its two promises, its sources, and that it moves with the settings."""

from __future__ import annotations

import pytest

from ringfence.cost import estimate
from ringfence.cost.estimate import SYSTEM_DISK_GB
from ringfence.errors import InputError
from ringfence.settings import load
from tests.environment.test_order import registered


def settings(**extra: object):
    good = {"accountId": "123456789012", "clusterAdmins": ["arn:aws:iam::123456789012:role/operators"]}
    return load(good | extra, "dev")


REGISTRY = "123456789012.dkr.ecr.us-east-1.amazonaws.com"
THREE = {"availabilityZones": ["us-east-1a", "us-east-1b", "us-east-1c"]}
SERVICE = {
    "sandboxImage": f"{REGISTRY}/ringfence-dev/agent-runtime@sha256:{'a' * 64}",
    "serviceImage": f"{REGISTRY}/ringfence-dev/control@sha256:{'b' * 64}",
    "oidcIssuer": "https://id.example.com",
    "oidcAudience": "ringfence",
}


def test_lean_costs_at_most_125_and_production_at_most_330_a_month():
    assert 100 < estimate(settings(**SERVICE)).total_usd <= 125
    production = settings(
        profile="production", sandboxMinOnDemandNodes=1, sandboxMaxOnDemandNodes=4, **THREE, **SERVICE
    )
    assert 200 < estimate(production).total_usd <= 330


def test_every_line_has_a_source_and_adds_up():
    for line in estimate(settings(profile="production", **THREE)).lines:
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


@pytest.mark.parametrize(("profile", "zones"), [("lean", "ab"), ("production", "abc")])
def test_what_is_counted_is_what_the_environment_makes(profile: str, zones: str):
    made = registered("aws", profile, zones, False)
    extra = {"sandboxMinOnDemandNodes": 1, "sandboxMaxOnDemandNodes": 2} if profile == "production" else {}
    priced = settings(profile=profile, availabilityZones=[f"us-east-1{zone}" for zone in zones], **extra)
    lines = {line.item: line.quantity for line in estimate(priced, tool_domains=3).lines}

    watched = [
        sum(1 for query in alarm["metricQueries"] or () if query.get("metric"))
        if alarm.inputs.get("metricQueries")
        else 1
        for alarm in made.of_type("aws:cloudwatch/metricAlarm:MetricAlarm")
    ]
    assert lines["metrics that alarms watch, beyond the free ones"] == sum(watched) - 10
    assert lines["KMS keys"] == len(made.of_type("aws:kms/key:Key"))
    assert lines.get("egress proxy's health checks", 0) == len(made.of_type("aws:route53/healthCheck:HealthCheck"))
    assert lines.get("egress proxy's private zone", 0) == len(made.of_type("aws:route53/zone:Zone"))
    listed = [
        name
        for group in made.of_type("aws:route53/resolverFirewallDomainList:ResolverFirewallDomainList")
        for name in group["domains"]
    ]
    assert lines["DNS Firewall names"] == pytest.approx(len(listed), abs=2)
    disks = {
        template["blockDeviceMappings"][0]["ebs"]["volumeSize"]
        for template in made.of_type("aws:ec2/launchTemplate:LaunchTemplate")
        if template.name.startswith("cluster-system")
    }
    assert disks == {SYSTEM_DISK_GB}
