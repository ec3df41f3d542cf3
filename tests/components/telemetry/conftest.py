"""The component as an environment makes it, and its configurations."""

from __future__ import annotations

import pytest

from components.telemetry import Telemetry, TelemetryArgs
from ringfence.names import Names

TOPIC = "arn:aws:sns:us-east-1:111122223333:ringfence-test-alerts"


@pytest.fixture
def names() -> Names:
    return Names("ringfence", "test", "111122223333", "us-east-1")


@pytest.fixture
def make(record, names):
    """`make(preview=False, **args)` records the component; `outputs` of the recording is the component."""

    def run(preview: bool = False, **args):
        made = TelemetryArgs(names, "ringfence-test", TOPIC, "10.42.0.0/16", "172.20.0.0/16", **args)

        def program():
            component = Telemetry("telemetry", made)
            return {
                key: getattr(component, key)
                for key in ("otlp_endpoint", "otlp_port", "dashboard_names", "alarm_names", "role_arn")
            }

        return record(program, preview=preview)

    return run
