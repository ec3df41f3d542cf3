"""The sandbox-guardrails pack: hands every resource to the rules in ringfence.review.guardrails, a policy per topic.

Configure with `--policy-pack-config`: for each policy `enforcementLevel` and `exceptions` (a path from the folder two
above this pack). Trust zone: operator.
"""

from collections.abc import Callable
from pathlib import Path

from pulumi_policy import (
    EnforcementLevel,
    PolicyConfigSchema,
    PolicyPack,
    ReportViolation,
    ResourceValidationArgs,
    ResourceValidationPolicy,
    Severity,
    StackValidationArgs,
    StackValidationPolicy,
)
from pulumi_policy.proxy import UnknownValueError

from ringfence.review import analyzer
from ringfence.review.guardrails import GuardrailRules
from ringfence.review.guardrails.rules import TOPICS

RULES = GuardrailRules(folder=Path(__file__).resolve().parents[2])
FILES = PolicyConfigSchema(
    properties={"exceptions": {"type": "string", "description": "exceptions; empty takes catalog/exceptions.yaml"}}
)
DESCRIPTIONS = {
    "compute": "The cluster is private and its nodes give nothing away.",
    "encryption": "Whatever is stored is encrypted.",
    "storage": "Buckets are private and audit records can't be changed.",
    "network": "Sandboxes have no way out but the proxy.",
    "pods": "Sandbox pods run under gVisor without privileges.",
}


def of_topic(topic: str) -> Callable[[ResourceValidationArgs, ReportViolation], None]:
    """The validation of one topic's rules."""

    def validate(args: ResourceValidationArgs, report: ReportViolation) -> None:
        resource = analyzer.resource_of(args, UnknownValueError)
        for violation in RULES.check_resource(topic, resource, args.get_config()):
            report(violation.text, None)

    return validate


def whole_stack(args: StackValidationArgs, report: ReportViolation) -> None:
    """Report what only several resources together break."""
    for violation in RULES.check_stack(analyzer.stack_of(args.resources, UnknownValueError), args.get_config()):
        report(violation.text, violation.urn or None)


PolicyPack(
    name="ringfence-sandbox-guardrails",
    enforcement_level=EnforcementLevel.MANDATORY,
    policies=[
        *(
            ResourceValidationPolicy(
                name=f"sandbox-{topic}",
                description=DESCRIPTIONS[topic],
                validate=of_topic(topic),
                config_schema=FILES,
                severity=Severity.HIGH,
            )
            for topic in TOPICS
        ),
        StackValidationPolicy(
            name="sandbox-stack",
            description="The resources of the stack together keep sandboxes in and records safe.",
            validate=whole_stack,
            config_schema=FILES,
            severity=Severity.HIGH,
        ),
    ],
)
