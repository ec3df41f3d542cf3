"""The permission-creep pack: hands every resource to the rules in ringfence.review.pack_rules and reports what they say.

Configure with `--policy-pack-config`: for each policy `enforcementLevel`, `lockfile` and `exceptions` (paths from the
folder two above this pack). Trust zone: operator.
"""

from collections.abc import Iterator
from pathlib import Path

from ringfence.review import pack_rules
from ringfence.review.analyzer_service import Config, Pack, Policy, serve
from ringfence.review.extract import may_grant
from ringfence.review.resource import Resource

RULES = pack_rules.CreepRules(folder=Path(__file__).resolve().parents[2], stack=pack_rules.stack_of())
FILES = {
    "lockfile": "grant lockfile; empty takes catalog/grants.lock.json",
    "exceptions": "exceptions; empty takes catalog/exceptions.yaml",
}
REMEDIATION = "Narrow the grant, or approve it with `ringfence grants update`."


def whole_stack(resources: list[Resource], config: Config) -> Iterator[tuple[str, str]]:
    """What only the resources together grant, and exceptions that have run out."""
    yield from RULES.check_stack(resources, config)
    yield from ((text, "") for text in RULES.check_exceptions(config))


serve(
    Pack(
        "ringfence-permission-creep",
        (
            Policy(
                "grants-match-lockfile",
                "A resource grants no more than the lockfile approves.",
                "critical",
                may_grant,
                check=RULES.check_resource,
                prepare=RULES.prepare,
                settings=FILES,
                remediation_steps=REMEDIATION,
            ),
            Policy(
                "stack-matches-lockfile",
                "The stack as a whole grants no more than the lockfile approves.",
                "critical",
                may_grant,
                check_stack=whole_stack,
                prepare=RULES.prepare,
                settings=FILES,
                remediation_steps=REMEDIATION,
            ),
        ),
    )
)
