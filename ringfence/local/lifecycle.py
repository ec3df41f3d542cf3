"""`up`, `preview` and `down` of the embedded target: services, engine and state brought together."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import filelock

from ringfence.errors import RingfenceError
from ringfence.local import examples, records, services, toolchain
from ringfence.local.console import Clock, Watch, summary
from ringfence.local.results import Result
from ringfence.local.stack import ENGINE_CHILD, Engine, OnEvent
from ringfence.local.state import Home, read_json
from ringfence.local.supervise import Child

# The account of the embedded AWS server when the stack's settings name none: the one that moto uses.
ACCOUNT = "123456789012"
# How often a command that waits for another one says so, in seconds.
WAIT_S = 10.0
# How long an engine that lost its command gets to save its state after being told to stop, in seconds.
ORPHAN_S = 60.0
# How long Kubernetes gets to finish deleting namespaces after the engine is done, in seconds.
NAMESPACES_S = 30.0


@contextlib.contextmanager
def exclusive(home: Home, clock: Clock) -> Iterator[None]:
    """Holds the home's command lock, and ends an engine that a killed command left behind."""
    lock = home.lock("command")
    while True:
        try:
            lock.acquire(timeout=WAIT_S)
            break
        except filelock.Timeout:
            clock.say("another ringfence command is at work here: waiting for it to end")
    try:
        orphan = Child(home, ENGINE_CHILD, [])
        if orphan.pid():
            clock.say("an interrupted run's engine is still at work: stopping it")
        # The Python host of a killed engine looks for it every five minutes only.
        orphan.stop(ORPHAN_S)
        yield
    finally:
        lock.release()


class Embedded:
    """One stack on the embedded target of one project folder.

    home: default `<project_dir>/.ringfence`; config: as for Engine; clock: where progress goes; verbose: one line per
    resource.
    """

    def __init__(
        self,
        project_dir: Path,
        *,
        stack: str = "local",
        home: Path | None = None,
        config: Mapping[str, Any] | None = None,
        clock: Clock | None = None,
        verbose: bool = False,
    ):
        self.project_dir = project_dir.resolve()
        self.home = Home.of(home or self.project_dir / ".ringfence")
        self.clock = clock or Clock()
        self._stack = stack
        self._config = config
        self._verbose = verbose

    def engine(self) -> Engine:
        """The engine on this stack; the toolchain is set up when it is missing."""
        tools = toolchain.resolve(report=self.clock.say)
        return Engine(self.project_dir, self.home, tools, stack=self._stack, config=self._config)

    def _start(self, engine: Engine) -> None:
        account = str(engine.settings().get("accountId") or ACCOUNT)
        services.start(self.home, engine.tools, account, self.clock.say)

    def up(self, args: Sequence[str] = ()) -> Result:
        """Starts the services and makes the environment what the program says.

        Raises RingfenceError when that fails; what has been made stays, and the next `up` goes on from there.
        """
        with exclusive(self.home, self.clock):
            engine = self.engine()
            self._forget_unrecorded()
            self._start(engine)
            now = services.incarnation(self.home)
            refresh = records.memory_lost(engine, now)
            if refresh:
                lost = "the services have lost what they held since the last `up`"
                why = lost if self.home.last_up.exists() else "no `up` has come to its end yet"
                self.clock.say(f"{why}: reading everything first")
            engine.init()
            if count := engine.clear_pending():
                self.clock.say(
                    f"an interrupted run left {count} operation{'s' if count > 1 else ''} unfinished: redoing them"
                )
            self.clock.say(f"stack {engine.stack}: working out and making changes")
            at_end = records.nothing_stands(self.home, now)
            with self._watched(engine, at_end) as on_event:
                result = engine.up(refresh=refresh, args=args, write_at_end=at_end, on_event=on_event)
            result.check()
            # Pulumi's own entries, the stack and the providers, are no part of the environment.
            resources = [entry for entry in engine.resources() if not entry["type"].startswith("pulumi:")]
            records.note_up(engine, now, len(resources))
            self.clock.say(f"{len(resources)} resources stand: {summary(result.changes) or 'no changes'}")
        return result

    @contextlib.contextmanager
    def _watched(self, engine: Engine, write_at_end: bool) -> Iterator[OnEvent]:
        with Watch(self.clock, self._verbose) as watch:
            if not write_at_end:
                yield watch.on_event
                return
            with records.unrecorded(engine) as noted:

                def on_event(event: dict[str, Any]) -> None:
                    noted(event)
                    watch.on_event(event)

                yield on_event

    def _forget_unrecorded(self) -> None:
        """Forgets what stands after a killed run whose state was not written: no state says what that is."""
        if records.left_unrecorded(self.home):
            self.clock.say("a run was killed before its state was written: starting over")
            services.forget(self.home, self.clock.say)
        self.home.unrecorded.unlink(missing_ok=True)

    def preview(self, args: Sequence[str], *, packs: Sequence[Path], refresh: bool, as_json: bool) -> Result:
        """Shows what `up` would do. The services run, since the API server has its say in a preview."""
        with exclusive(self.home, self.clock):
            engine = self.engine()
            self._start(engine)
            with Watch(self.clock, self._verbose) as watch:
                return engine.preview(
                    json=as_json, policy_packs=packs, refresh=refresh, args=args, on_event=watch.on_event
                )

    def down(self) -> None:
        """Destroys the environment, then stops everything. Works whatever runs or stands; twice is the same as once.

        Raises RingfenceError when something could not be destroyed (the services then stay, for another try), or when
        something is left that the state doesn't know.
        """
        with exclusive(self.home, self.clock):
            left: list[str] = []
            stopped = False
            try:
                engine = self._known_engine()
                self._forget_unrecorded()
                if engine and engine.resources():
                    left = self._destroy(engine)
                stopped = True
            finally:
                if stopped:
                    services.stop(self.home, self.clock.say)
                    self.home.last_up.unlink(missing_ok=True)
        if left:
            raise RingfenceError(
                "destroyed, but this was left that the state did not know (it is gone with the services):\n  "
                + "\n  ".join(left)
            )

    def _known_engine(self) -> Engine | None:
        """The engine, unless nothing was ever made here: then no toolchain is needed to stop."""
        return self.engine() if any(records.states(self.home)) else None

    def _destroy(self, engine: Engine) -> list[str]:
        """Destroys the stack. Returns what is left in the APIs."""
        self._start(engine)
        refresh = records.memory_lost(engine, services.incarnation(self.home))
        interrupted = engine.clear_pending() > 0
        self.clock.say(f"stack {engine.stack}: destroying {len(engine.resources())} resources")
        at_end = records.stands_alone(engine)
        with self._watched(engine, at_end) as on_event:
            words = ["--refresh"] if refresh else []
            engine.destroy(args=words, write_at_end=at_end, on_event=on_event).check()
        if gone := examples.remove(self.home):
            self.clock.say(f"example data removed: {', '.join(gone)}")
        left = self._left()
        if left and interrupted:
            # The engine was killed between a call and its record: nobody else can know of these.
            self.clock.say(f"removing {len(left)} that an interrupted run made and did not record: {', '.join(left)}")
            services.aws_reset(self.home)
            left = self._left()
        self.clock.say("everything destroyed" if not left else f"{len(left)} left over")
        return left

    def _left(self) -> list[str]:
        """Names of what is left in the AWS account and in Kubernetes; deletions that are under way are waited for."""
        deadline = time.monotonic() + NAMESPACES_S
        while (objects := services.kubernetes_left(self.home)) and time.monotonic() < deadline:
            time.sleep(0.5)
        account = [
            f"{service}/{kind}/{name}"
            for service, kinds in services.aws_left(self.home).items()
            for kind, names in kinds.items()
            for name in names
        ]
        return [*account, *objects]

    def status(self) -> dict[str, Any]:
        """What runs and what stands; starts nothing."""
        health = services.aws_health(self.home)
        kubernetes = services.control_plane.status(self.home)
        stacks = {
            name: {
                "resources": len(state.get("resources") or []),
                "pending": len(state.get("pending_operations") or []),
            }
            for name, state in records.states(self.home)
        }
        return {
            "home": str(self.home.root),
            "ports": self.home.kept_ports() if (self.home.root / "ports.json").exists() else {},
            "aws": {
                "pid": Child(self.home, services.AWS_SERVER, []).pid(),
                "ready": health is not None,
                "endpoint": services.target.endpoint(self.home.kept_ports()),
            },
            "kubernetes": kubernetes,
            "stacks": stacks,
            "unrecorded": records.left_unrecorded(self.home),
            "last_up": read_json(self.home.last_up),
        }


def find_project(start: Path) -> Path:
    """The folder at or above `start` with a Pulumi.yaml. Raises RingfenceError when there is none."""
    for folder in (start.resolve(), *start.resolve().parents):
        if (folder / "Pulumi.yaml").is_file():
            return folder
    raise RingfenceError(
        f"no Pulumi.yaml in {start.resolve()} or above it\n    remedy: run this in the project's folder, or pass --project"
    )


def home_of(project_dir: Path) -> Path:
    """The home of a project: $RINGFENCE_HOME, else `.ringfence` in the project folder."""
    chosen = os.environ.get("RINGFENCE_HOME")
    return Path(chosen).resolve() if chosen else project_dir / ".ringfence"
