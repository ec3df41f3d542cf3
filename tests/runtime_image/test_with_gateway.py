"""The runtime in a process of its own against the real gateway on a real port, with a scripted model."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from ringfence.catalog import load
from ringfence.catalog.runtime import runtime_tools
from ringfence.gateway import Gateway
from ringfence.gateway.scripted import Scripted
from ringfence.gateway.scripted import load as load_script
from ringfence.gateway.serving import serving
from ringfence.invocation import Invocation, new_id
from ringfence.names import Names

ROOT = Path(__file__).parents[2]
NAMES = Names(prefix="acme", environment="dev", account_id="123456789012", region="eu-west-1")
SCRIPT = """
- tool_calls:
    - {name: web-fetch, arguments: {url: "https://docs.python.org/3/"}}
- tool_calls:
    - {name: web-fetch, arguments: {url: "https://evil.net/"}}
    - {name: email-notifier, arguments: {recipients: [ana@example.com], subject: a, body: b}}
- say: it is done
"""


def _invocation() -> Invocation:
    now = datetime.now(UTC)
    return Invocation(
        new_id(),
        "ana",
        "Read https://docs.python.org/3/",
        ("web-fetch",),
        now,
        now + timedelta(seconds=60),
        model="scripted",
    )


async def _carry_out(tmp_path: Path, warm: bool) -> dict[str, Any]:
    (tmp_path / "script.yaml").write_text(SCRIPT)
    gateway = Gateway(tmp_path / "ledger.sqlite", [Scripted(load_script(tmp_path / "script.yaml"))])
    invocation = _invocation()
    tools = runtime_tools([load(ROOT / "catalog").tool("web-fetch")], NAMES, {})
    async with serving(gateway, "127.0.0.1", 0) as (host, port):
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT / "runtime-image"),
            "RINGFENCE_GATEWAY_URL": f"http://{host}:{port}",
            "RINGFENCE_INVOCATION_ID": invocation.id,
        }
        assignment = {
            "prompt": invocation.prompt,
            "tools": tools,
            "credentials": {},
            "deadline": invocation.deadline.isoformat(),
            "model": "scripted",
            "invocation": invocation.id,
        }
        if warm:
            environment |= {
                "CREDENTIALS_TOKEN": gateway.warm(invocation.id, invocation.deadline),
                "RINGFENCE_WARM": "1",
            }
        else:
            environment |= {
                "CREDENTIALS_TOKEN": gateway.open(invocation),
                "TASK_PROMPT": invocation.prompt,
                "ALLOWED_TOOLS": "web-fetch",
                "RINGFENCE_MODEL": "scripted",
                "RINGFENCE_DEADLINE": invocation.deadline.isoformat(),
                "RINGFENCE_TOOLS": json.dumps(tools),
            }
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", "agent_runtime", env=environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        if warm:
            await asyncio.sleep(1)
            gateway.open(invocation)
            gateway.assign(invocation.id, assignment)
        async with asyncio.timeout(60):
            result = await gateway.result(invocation.id)
            _, log = await process.communicate()
        usage, cost = gateway.close(invocation.id)
    # The session is closed, so following its events ends.
    gateway.stop()
    return {"result": result, "log": log.decode(), "code": process.returncode, "usage": usage, "cost": cost}


@pytest.mark.parametrize("warm", [False, True])
def test_a_task_runs_to_its_end_against_the_real_gateway(tmp_path, warm):
    done = asyncio.run(_carry_out(tmp_path, warm))
    assert done["code"] == 0, done["log"]
    assert (done["result"].output, done["result"].status) == ("it is done", "succeeded")
    assert done["usage"].model_calls == 3
    assert done["usage"].tool_calls == 1
    assert done["cost"] > Decimal(0)
    assert "could not be handed over" not in done["log"]
    refused = [json.loads(line)["code"] for line in done["log"].splitlines() if '"code"' in line and "refused" in line]
    assert refused == ["argument_not_allowed", "tool_not_allowed"]
