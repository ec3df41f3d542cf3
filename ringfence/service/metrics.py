"""What the service counts, in Prometheus's text format (prometheus.io/docs/instrumenting/exposition_formats, 0.0.4).

Labels have few values, none of them a caller's: paths are routes, never what was asked for.
"""

from __future__ import annotations

import threading
from collections import Counter
from decimal import Decimal
from typing import Any

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """Counters and gauges of one process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: Counter[tuple[str, str, int]] = Counter()
        self._refused: Counter[str] = Counter()
        self._ended: Counter[str] = Counter()
        self._cost = Decimal(0)

    def request(self, method: str, route: Any, status: int) -> None:
        """One answered request. route: as the router found it, None when it found none; status: 0 without an answer."""
        path = getattr(route, "path", "") or "none"
        known = method if method in ("GET", "POST", "DELETE", "HEAD", "OPTIONS", "PUT", "PATCH") else "other"
        with self._lock:
            self._requests[known, path, status] += 1

    def refused(self, code: str) -> None:
        """One refused attempt."""
        with self._lock:
            self._refused[code] += 1

    def ended(self, status: str, cost_usd: Decimal) -> None:
        """One invocation that ended."""
        with self._lock:
            self._ended[status] += 1
            self._cost += cost_usd

    def text(self, active: int, waiting: int, draining: bool) -> str:
        """Everything, with the gauges of this moment."""
        with self._lock:
            requests, refused, ended, cost = dict(self._requests), dict(self._refused), dict(self._ended), self._cost
        lines = ["# TYPE ringfence_http_requests_total counter"]
        for (method, route, status), count in sorted(requests.items()):
            lines.append(
                f'ringfence_http_requests_total{{method="{method}",route="{route}",status="{status}"}} {count}'
            )
        lines.append("# TYPE ringfence_refusals_total counter")
        lines += [f'ringfence_refusals_total{{code="{code}"}} {count}' for code, count in sorted(refused.items())]
        lines.append("# TYPE ringfence_invocations_total counter")
        lines += [
            f'ringfence_invocations_total{{status="{status}"}} {count}' for status, count in sorted(ended.items())
        ]
        lines += ["# TYPE ringfence_cost_usd_total counter", f"ringfence_cost_usd_total {cost}"]
        for name, value in (("active", active), ("waiting", waiting), ("draining", int(draining))):
            lines += [f"# TYPE ringfence_invocations_{name} gauge", f"ringfence_invocations_{name} {value}"]
        return "\n".join(lines) + "\n"
