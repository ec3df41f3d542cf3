"""The sandbox-guardrails pack: hands every resource to the rules in ringfence.review.guardrails, a policy per topic.

Configure with `--policy-pack-config`: for each policy `enforcementLevel` and `exceptions` (a path from the folder two
above this pack). Trust zone: operator.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from ringfence.review.analyzer_service import Config, Pack, Policy, serve
from ringfence.review.guardrails import GuardrailRules
from ringfence.review.guardrails.rules import TOPICS, in_stack_rules, in_topic
from ringfence.review.resource import Resource

RULES = GuardrailRules(folder=Path(__file__).resolve().parents[2])
FILES = {"exceptions": "exceptions; empty takes catalog/exceptions.yaml"}
DESCRIPTIONS = {
    "compute": "The cluster is private and its nodes give nothing away.",
    "encryption": "Whatever is stored is encrypted.",
    "storage": "Buckets are private and audit records can't be changed.",
    "network": "Sandboxes have no way out but the proxy.",
    "pods": "Sandbox pods run under gVisor without privileges.",
}


def one_resource(topic: str, resource: Resource, config: Config) -> Iterator[str]:
    """What one resource breaks of a topic's rules."""
    return (violation.text for violation in RULES.check_resource(topic, resource, config))


def whole_stack(resources: list[Resource], config: Config) -> Iterator[tuple[str, str]]:
    """What only several resources together break."""
    return ((violation.text, violation.urn) for violation in RULES.check_stack(resources, config))


TOPIC_POLICIES = (
    Policy(
        f"sandbox-{topic}",
        DESCRIPTIONS[topic],
        "high",
        partial(in_topic, topic),
        check=partial(one_resource, topic),
        settings=FILES,
    )
    for topic in TOPICS
)
STACK_POLICY = Policy(
    "sandbox-stack",
    "The resources of the stack together keep sandboxes in and records safe.",
    "high",
    in_stack_rules,
    check_stack=whole_stack,
    settings=FILES,
)

serve(Pack("ringfence-sandbox-guardrails", (*TOPIC_POLICIES, STACK_POLICY)))
