"""Looks at what credentials are used for, again and again, and tells each thing once that is not as it should be.

Trust zone: control side. What is looked at is CloudTrail's own account of the sessions: on the embedded target every call,
on AWS what LookupEvents has, which are management events (who became a role, and calls that manage things), minutes late.
Data events (objects of S3, items of DynamoDB) are in the trail's log files alone, which the control side may not read:
`ringfence credentials anomalies FILE...` looks at them by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from ringfence.broker.anomalies import Anomaly

# How late CloudTrail's events come: "typically within 5 minutes", at times 15
# (docs.aws.amazon.com/awscloudtrail/latest/userguide/how-cloudtrail-works.html).
LATE = timedelta(minutes=20)

# The events between two times; `ringfence.broker.lookup` with a client bound.
Events = Callable[[datetime, datetime], Iterable[Mapping[str, Any]]]


class Finds(Protocol):
    """What is asked of the broker."""

    def anomalies(self, events: Iterable[Mapping[str, Any]]) -> tuple[Anomaly, ...]: ...


class Watch:
    """Compares new events with the ledger. broker: whose ledger; events: where they are; tell: takes each anomaly once,
    and again when it goes on after a pause; late: how late events come."""

    def __init__(
        self,
        broker: Finds,
        events: Events,
        tell: Callable[[Anomaly], object],
        *,
        late: timedelta = LATE,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ):
        self._broker = broker
        self._events = events
        self._tell = tell
        self._late = late
        self._clock = clock
        self._looked = clock()
        self._told: dict[tuple[str, str, str], datetime] = {}

    def look(self) -> None:
        """One look at what has come since the last one that went through. Raises what events, ledger or `tell` raise;
        nothing is lost by that: the next look begins where this one began."""
        until = self._clock()
        since = self._looked - self._late
        for anomaly in self._broker.anomalies(self._events(since, until)):
            key = (anomaly.kind, anomaly.role_arn, anomaly.session_name)
            if key not in self._told:
                self._tell(anomaly)
            self._told[key] = until
        self._looked = until
        self._told = {key: seen for key, seen in self._told.items() if seen > until - 2 * self._late}
