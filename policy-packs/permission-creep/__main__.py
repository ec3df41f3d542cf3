"""The permission-creep pack: hands every resource to the rules in ringfence.review.pack_rules and reports what they say.

Configure with `--policy-pack-config`: for each policy `enforcementLevel`, `lockfile` and `exceptions` (paths from the
folder two above this pack). Trust zone: operator.
"""

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

from ringfence.review import analyzer, pack_rules

RULES = pack_rules.CreepRules(folder=Path(__file__).resolve().parents[2], stack=pack_rules.stack_of())
FILES = PolicyConfigSchema(
    properties={
        "lockfile": {"type": "string", "description": "grant lockfile; empty takes catalog/grants.lock.json"},
        "exceptions": {"type": "string", "description": "exceptions; empty takes catalog/exceptions.yaml"},
    }
)


def one_resource(args: ResourceValidationArgs, report: ReportViolation) -> None:
    """Report what one resource grants beyond the lockfile."""
    for text in RULES.check_resource(analyzer.resource_of(args, UnknownValueError), args.get_config()):
        report(text, None)


def whole_stack(args: StackValidationArgs, report: ReportViolation) -> None:
    """Report what only the resources together grant, and exceptions that have run out."""
    for text, urn in RULES.check_stack(analyzer.stack_of(args.resources, UnknownValueError), args.get_config()):
        report(text, urn or None)
    for text in RULES.check_exceptions(args.get_config()):
        report(text, None)


PolicyPack(
    name="ringfence-permission-creep",
    enforcement_level=EnforcementLevel.MANDATORY,
    policies=[
        ResourceValidationPolicy(
            name="grants-match-lockfile",
            description="A resource grants no more than the lockfile approves.",
            validate=one_resource,
            config_schema=FILES,
            severity=Severity.CRITICAL,
            remediation_steps="Narrow the grant, or approve it with `ringfence grants update`.",
        ),
        StackValidationPolicy(
            name="stack-matches-lockfile",
            description="The stack as a whole grants no more than the lockfile approves.",
            validate=whole_stack,
            config_schema=FILES,
            severity=Severity.CRITICAL,
            remediation_steps="Narrow the grant, or approve it with `ringfence grants update`.",
        ),
    ],
)
