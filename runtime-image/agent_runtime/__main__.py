"""`python -m agent_runtime`: carries out one task and ends. Exit code 0 when it succeeded, 1 when it did not."""

from __future__ import annotations

import datetime
import logging
import os
import signal
import sys
import time
from collections.abc import MutableMapping
from pathlib import Path

from agent_runtime import logs, loop, tools
from agent_runtime.assignment import CREDENTIALS_FOLDER, SECRET_VARIABLES, Assignment, from_environment, parse, ports_of
from agent_runtime.audit import GatewaySink
from agent_runtime.budget import MAX_SECONDS, MAX_USD
from agent_runtime.errors import AssignmentError, GatewayError, RuntimeFault
from agent_runtime.executor import InstrumentedAgentExecutor
from agent_runtime.gateway import GatewayClient
from agent_runtime.model import BudgetedModel
from agent_runtime.prices import Prices
from agent_runtime.redaction import Redactor
from agent_runtime.shapes import SHAPES
from agent_runtime.telemetry import Telemetry

# Kept back from the deadline, so that the result still gets out. Seconds.
RESULT_RESERVE_S = 2.0
# Between two questions for an assignment, and how long the gateway may be out of reach. Seconds.
POLL_PAUSE_S = 0.2
UNREACHABLE_LIMIT_S = 60.0
# The second one comes after POLL_PAUSE_S, each further one after twice the pause.
RESULT_TRIES = 5
_log = logging.getLogger("agent_runtime")


def obtain(client: GatewayClient, environ: MutableMapping[str, str], folder: Path) -> Assignment:
    """The task. A sandbox started ahead of it (RINGFENCE_WARM=1) loads what it will need and waits at the gateway.
    Raises AssignmentError, GatewayError."""
    if environ.get("RINGFENCE_WARM") != "1":
        return from_environment(environ, folder)
    tools.preload()
    unreachable = 0.0
    while True:
        try:
            data = client.assignment()
            unreachable = 0.0
        except GatewayError as error:
            if error.status or unreachable >= UNREACHABLE_LIMIT_S:
                raise
            unreachable += POLL_PAUSE_S
            data = None
        if data is not None:
            return parse(data, ports=ports_of(environ))
        time.sleep(POLL_PAUSE_S)


def carry_out(
    assignment: Assignment, client: GatewayClient, redactor: Redactor, environ: MutableMapping[str, str]
) -> str:
    """The task's output. Raises RuntimeFault."""
    seconds = assignment.seconds_left(datetime.datetime.now(datetime.UTC)) - RESULT_RESERVE_S
    try:
        prices = Prices(assignment.prices)
    except ValueError as error:
        raise AssignmentError([str(error)]) from None
    sink = GatewaySink(client.events, redactor)
    try:
        executor = InstrumentedAgentExecutor(
            prompt=assignment.prompt,
            allowed_tools=assignment.tools,
            declarations=assignment.declarations,
            max_usd=MAX_USD,
            max_seconds=min(seconds, MAX_SECONDS),
            prices=prices,
            sink=sink,
            redactor=redactor,
            telemetry=Telemetry(assignment.invocation),
            invocation=assignment.invocation,
        )
        tools.register(executor, assignment, client, environ)
        shape = SHAPES[assignment.model_api]
        model = BudgetedModel(executor, shape.send(client, assignment.model), assignment.model, shape=shape)

        def report(text: str) -> None:
            sink.emit("progress", message=text)
            _log.info(text)

        return executor.run(lambda: loop.run(executor, model, report), "ringfence")
    finally:
        sink.close()


def main(environ: MutableMapping[str, str] = os.environ, folder: Path = CREDENTIALS_FOLDER) -> int:
    """Entry point. Returns the exit code."""
    token = environ.get("CREDENTIALS_TOKEN", "")
    redactor = Redactor([token])
    streams = logs.install(redactor, environ.get("RINGFENCE_INVOCATION_ID", ""))
    # As a container's first process this one gets no default action for SIGTERM.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        try:
            client = GatewayClient(environ.get("RINGFENCE_GATEWAY_URL", ""), token)
        except ValueError as error:
            _log.error("RINGFENCE_GATEWAY_URL: %s", error)
            return 1
        return _with_result(client, redactor, environ, folder)
    finally:
        for stream in streams:
            stream.finish()


def _with_result(client: GatewayClient, redactor: Redactor, environ: MutableMapping[str, str], folder: Path) -> int:
    output, error = "", ""
    try:
        assignment = obtain(client, environ, folder)
        redactor.add(assignment.secrets())
        for name in SECRET_VARIABLES:
            environ.pop(name, None)
        output = carry_out(assignment, client, redactor, environ)
    except RuntimeFault as fault:
        error = f"{fault.code}: {fault}"
    except Exception as fault:
        # Its text may quote anything: the log has it, masked.
        _log.exception("the task failed")
        error = f"failed: {type(fault).__name__}"
    if error:
        _log.error("the task ended: %s", error)
    handed = hand_over(client, redactor(output), "failed" if error else "succeeded", redactor(error))
    return 1 if error or not handed else 0


def hand_over(client: GatewayClient, output: str, status: str, error: str) -> bool:
    """Whether the gateway has the result; one that doesn't answer is asked again. The wall clock ends the whole sandbox."""
    for attempt in range(RESULT_TRIES):
        if attempt:
            time.sleep(POLL_PAUSE_S * 2 ** (attempt - 1))
        try:
            client.result(output, status, error)
            return True
        except GatewayError as fault:
            if fault.status == 409 and attempt:
                # It took an earlier one, and only its answer was lost.
                return True
            _log.error("try %d of %d to hand over the result: %s", attempt + 1, RESULT_TRIES, fault)
            if 400 <= fault.status < 500 and fault.status != 429:
                return False
    return False


if __name__ == "__main__":
    sys.exit(main())
