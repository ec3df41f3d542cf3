"""A runner that kills itself at one point of its life: `python -m tests.runner.victim FOLDER ENDPOINT KUBECONFIG POINT`.

KUBECONFIG "-" means real gVisor sandboxes on this machine; a POINT that begins with "warm:" has a sandbox wait for the
task. Prints each point that it passes, and writes down each key as soon as AWS has issued it, delivered or not.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from ringfence.runner.agent import SecureAgentRunner
from ringfence.runner.pool import WarmPool
from ringfence.runner.progress import Progress
from tests.runner import control


def point(progress: Progress) -> str:
    """Where in its life an invocation is, without what differs from one to the next."""
    detail = progress.detail.split(" sandbox-")[0] if progress.state == "detail" else ""
    return ":".join(part for part in (progress.step, str(progress.state), detail) if part)


ISSUED = "issued.jsonl"
# What no watcher sees: AWS has answered, nothing is written yet; a waiting sandbox is made; it is bound, without its task.
ANSWERED, MADE, BOUND = "credentials:answered", "warm:made", "warm:bound"


def written(folder: Path) -> list[dict[str, Any]]:
    """The keys that AWS issued to a victim of that folder."""
    path = folder / ISSUED
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _after(call: Callable[..., Awaitable[None]], name: str, passed: Callable[[str], None]) -> Any:
    @functools.wraps(call)
    async def made(*args: Any) -> None:
        await call(*args)
        passed(name)

    return made


def _write_down(side: control.Control, passed: Callable[[str], None]) -> None:
    """Has STS's answers written before anybody reads them."""
    sts = side.broker._sts
    ask = sts.assume_role

    def answered(**asked: Any) -> Any:
        answer = ask(**asked)
        keys = {name: str(value) for name, value in answer["Credentials"].items()}
        with open(side.folder / ISSUED, "a", encoding="utf-8") as file:
            file.write(json.dumps(keys) + "\n")
        passed(ANSWERED)
        return answer

    sts.assume_role = answered


def main(folder: Path, endpoint: str, kubeconfig: Path, deadly: str) -> None:
    """Runs one task up to the deadly point."""

    def passed(name: str) -> None:
        print(name, flush=True)
        if name == deadly:
            os.kill(os.getpid(), signal.SIGKILL)

    def watch(progress: Progress) -> None:
        passed(point(progress))

    gateway = control.gateway_of(folder)
    with control.served(gateway) as address:
        local = str(kubeconfig) == "-"
        executor = control.local(folder, endpoint) if local else control.kubernetes(kubeconfig)
        side = control.control(folder, endpoint, executor, address, gateway)
        _write_down(side, passed)
        pool = None
        if deadly.startswith("warm:"):
            pool = WarmPool(side.parts, 1)
            side.parts.executor.warm = _after(side.parts.executor.warm, MADE, passed)
            side.parts.executor.bind = _after(side.parts.executor.bind, BOUND, passed)
        with SecureAgentRunner(side.parts, pool=pool) as runner:
            runner.start()
            while pool and not pool.waiting:
                time.sleep(0.05)
            tools = ["s3-report-reader"] if local else ["s3-report-reader", "web-fetch"]
            result = runner.execute_agent_task(
                "ann", "hello", tools, groups=control.GROUPS, model="scripted", report=watch
            )
    print(result.status, result.error or result.output, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), sys.argv[4])
