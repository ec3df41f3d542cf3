"""`secure_agent_runner`: a runner on this machine for a program that isn't asynchronous, in one line.

Trust zone: control side.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

import click

from ringfence.local.console import Clock
from ringfence.local.lifecycle import Embedded, find_project, home_of
from ringfence.runner.agent import SecureAgentRunner
from ringfence.runner.embedded import ground, running
from ringfence.runner.threads import LoopThread

_to_stderr = functools.partial(click.echo, err=True)


@contextmanager
def secure_agent_runner(
    project: Path | str = ".",
    *,
    stack: str = "local",
    executor: str = "local",
    script: Path | None = None,
    warm: int = 0,
    echo: Callable[[str], None] = _to_stderr,
) -> Iterator[SecureAgentRunner]:
    """A runner on this machine, while the context is open; leaving waits for tasks under way and leaves nothing behind.

        with secure_agent_runner() as runner:
            result = runner.execute_agent_task("ana@example.com", "Summarise the report", ["s3-report-reader"])

    project: its folder; stack: an embedded one, stood up first when it doesn't stand; executor: ``local`` (gVisor here) or
    ``kubernetes`` (the settings' kubeconfig); script: steps of the scripted model, which then is the default one; warm:
    sandboxes kept waiting; echo: gets each line of progress. The program is trusted with who its users are: groups that a
    call doesn't name come from the catalog's users.yaml.
    Raises RingfenceError and InputError, when a part can't be had; never by running with less isolation.
    """
    clock = Clock(echo)
    folder = find_project(Path(project))
    found = ground(Embedded(folder, stack=stack, home=home_of(folder), clock=clock), stack)
    made: Future[SecureAgentRunner] = Future()
    options = {"script": script, "warm": warm, "directory": found.catalog.groups_of}

    async def stand(left: asyncio.Event) -> None:
        async with running(found, clock.say, executor=executor, **options) as control:
            made.set_result(control.runner)
            await left.wait()

    thread, left = LoopThread("ringfence-control"), asyncio.Event()
    standing = asyncio.run_coroutine_threadsafe(stand(left), thread.running())
    standing.add_done_callback(
        lambda done: made.done() or made.set_exception(done.exception() or RuntimeError("ended"))
    )
    try:
        yield made.result()
    finally:
        thread.call(left.set)
        try:
            standing.result()
        finally:
            thread.stop()
