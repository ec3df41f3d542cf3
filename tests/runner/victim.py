"""A runner that kills itself at one point of its life: `python -m tests.runner.victim FOLDER ENDPOINT KUBECONFIG POINT`.

KUBECONFIG "-" means real gVisor sandboxes on this machine. Prints each point that it passes.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from ringfence.runner.agent import SecureAgentRunner
from ringfence.runner.progress import Progress
from tests.runner import control


def point(progress: Progress) -> str:
    """Where in its life an invocation is, without what differs from one to the next."""
    detail = progress.detail.split(" sandbox-")[0] if progress.state == "detail" else ""
    return ":".join(part for part in (progress.step, str(progress.state), detail) if part)


def main(folder: Path, endpoint: str, kubeconfig: Path, deadly: str) -> None:
    """Runs one task up to the deadly point."""

    def watch(progress: Progress) -> None:
        print(point(progress), flush=True)
        if point(progress) == deadly:
            os.kill(os.getpid(), signal.SIGKILL)

    gateway = control.gateway_of(folder)
    with control.served(gateway) as address:
        local = str(kubeconfig) == "-"
        executor = control.local(folder, endpoint) if local else control.kubernetes(kubeconfig)
        side = control.control(folder, endpoint, executor, address, gateway)
        with SecureAgentRunner(side.parts) as runner:
            tools = ["s3-report-reader"] if local else ["s3-report-reader", "web-fetch"]
            result = runner.execute_agent_task(
                "ann", "hello", tools, groups=control.GROUPS, model="scripted", report=watch
            )
    print(result.status, result.error or result.output, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), sys.argv[4])
