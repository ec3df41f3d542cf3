"""Route 53: the name servers that come with a hosted zone are no reusable delegation set."""

from __future__ import annotations

from ringfence.local.aws_server.recorded.kinds import Table
from ringfence.local.aws_server.recorded.store import Context
from ringfence.local.aws_server.wire import Reply


def _without_reusable_set(context: Context, reply: Reply) -> Reply:
    """moto lists a zone's own set among the reusable ones, where it would outlive the zone. Its own has no id."""
    from moto.route53.models import route53_backends

    sets = route53_backends[context.account][context.partition].delegation_sets
    for key in [key for key, delegation_set in sets.items() if not delegation_set.id]:
        del sets[key]
    return reply


TABLE: Table = {}
AMENDMENTS = {"CreateHostedZone": _without_reusable_set}
