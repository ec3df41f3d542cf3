"""CloudTrail's LookupEvents over the calls that this server has authenticated; see `authorization.events`."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from ringfence.local.aws_server.authorization.events import KIND
from ringfence.local.aws_server.recorded.kinds import Table
from ringfence.local.aws_server.recorded.store import Context
from ringfence.local.aws_server.wire import ApiError

# docs.aws.amazon.com/awscloudtrail/latest/APIReference/API_LookupEvents.html
_MOST = 50
_ATTRIBUTES = {"EventName": "eventName", "EventId": "eventID", "EventSource": "eventSource"}


def _moment(value: Any, default: datetime) -> datetime:
    if value is None:
        return default
    moment = value if isinstance(value, datetime) else datetime.fromtimestamp(float(value), UTC)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _lookup(context: Context) -> dict[str, Any]:
    """The events between two times, newest first, page by page. Of one second of the clock all or none are shown."""
    given = context.params
    since = _moment(given.get("StartTime"), datetime.min.replace(tzinfo=UTC)).replace(microsecond=0)
    until = _moment(given.get("EndTime"), datetime.max.replace(tzinfo=UTC))
    wanted = [record.attributes for record in context.records(KIND).values()]
    wanted = [item for item in reversed(wanted) if since <= item["at"].replace(microsecond=0) <= until]
    for asked in given.get("LookupAttributes") or ():
        if asked.get("AttributeKey") not in _ATTRIBUTES:
            known = ", ".join(_ATTRIBUTES)
            raise ApiError("InvalidLookupAttributesException", f"the embedded target looks up by one of {known}")
        key = _ATTRIBUTES[asked["AttributeKey"]]
        wanted = [item for item in wanted if item["event"][key] == asked.get("AttributeValue")]
    start = 0
    if token := given.get("NextToken"):
        places = [place for place, item in enumerate(wanted) if item["event"]["eventID"] == token]
        if not places:
            raise ApiError("InvalidNextTokenException", "The token is not valid.")
        start = places[0] + 1
    page = wanted[start : start + min(int(given.get("MaxResults") or _MOST), _MOST)]
    more = start + len(page) < len(wanted)
    return {"Events": [_shown(item) for item in page]} | ({"NextToken": page[-1]["event"]["eventID"]} if more else {})


def _shown(item: dict[str, Any]) -> dict[str, Any]:
    event = item["event"]
    return {
        "EventId": event["eventID"],
        "EventName": event["eventName"],
        "EventTime": item["at"],
        "EventSource": event["eventSource"],
        "CloudTrailEvent": json.dumps(event),
    }


TABLE: Table = {"LookupEvents": _lookup}
