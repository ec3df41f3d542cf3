"""Child processes that outlive the command that started them: started detached, found again, stopped for certain."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from ringfence.errors import RingfenceError
from ringfence.local.state import Home, read_json, write_atomic

# Marks a child's environment with its home and name, so that it is found even when its record was lost.
MARK = "RINGFENCE_CHILD"
# A record names a process by number and start time; the two clocks differ by rounding.
START_SLACK_S = 1.0
# Between two looks at whether a child is ready, or gone.
POLL_S = 0.05
# A log is begun anew at the next start once it is larger.
LOG_BYTES = 10 << 20
LOG_TAIL_LINES = 15
# How long a child gets to end by itself before it is killed.
STOP_S = 15.0


class Child:
    """One supervised process of a home.

    name: file name of its record and log; argv: program and arguments; env: its whole environment (None: the caller's).
    """

    def __init__(self, home: Home, name: str, argv: Sequence[str], env: Mapping[str, str] | None = None):
        self.home = home
        self.name = name
        self.argv = list(argv)
        self._env = dict(os.environ if env is None else env)
        self._started: subprocess.Popen[bytes] | None = None

    @property
    def record(self) -> Path:
        """The pid file: JSON with pid, start time and argv."""
        return self.home.run / f"{self.name}.json"

    @property
    def log(self) -> Path:
        """Where the child's output goes."""
        return self.home.logs / f"{self.name}.log"

    @property
    def _mark(self) -> str:
        return f"{self.home.root}:{self.name}"

    def pid(self) -> int | None:
        """Process id of the running child; None when it doesn't run."""
        process = self._process()
        return process.pid if process else None

    def start(self, ready: Callable[[], bool], timeout_s: float) -> bool:
        """Starts the child unless it runs, and returns once `ready()` is true. Returns whether it was started now.

        A child that runs with other arguments is replaced. Raises RingfenceError, with the end of the log, when the child
        ends before it is ready or isn't ready after `timeout_s` seconds; it is stopped then.
        """
        process = self._process()
        if process is not None and read_json(self.record).get("argv") != self.argv:
            self.stop()
            process = None
        fresh = process is None
        if process is None:
            process = self._spawn()
        try:
            self._wait_ready(process, ready, timeout_s)
        except RingfenceError:
            self.stop()
            raise
        return fresh

    def stop(self, timeout_s: float = STOP_S) -> bool:
        """Stops the child: SIGTERM, and SIGKILL when it is still there after `timeout_s` seconds.

        Returns whether it ran. Whatever it started is killed, also when it is itself long gone.
        """
        ran = False
        for process in self._processes():
            ran = True
            with suppress(psutil.NoSuchProcess):
                process.terminate()
            if not self._gone(process, timeout_s):
                with suppress(psutil.NoSuchProcess):
                    process.kill()
                self._gone(process, timeout_s)
        # What it started bears its mark, also when it has lost its parent or was put into a group of its own.
        for process in self._marked():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.record.unlink(missing_ok=True)
        return ran

    def log_tail(self) -> str:
        """The last lines of the log."""
        try:
            lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return ""
        return "\n".join(lines[-LOG_TAIL_LINES:])

    # Finding

    def _processes(self) -> Iterator[psutil.Process]:
        recorded = self._recorded()
        if recorded:
            yield recorded
            return
        # The record is missing when the starting command was killed at the wrong moment.
        yield from (process for process in self._marked() if _leads(process))

    def _marked(self) -> list[psutil.Process]:
        """Every living process with the child's mark: itself and what it started."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                if process.environ().get(MARK) == self._mark and _alive(process):
                    found.append(process)
        return found

    def _process(self) -> psutil.Process | None:
        return next(self._processes(), None)

    def _recorded(self) -> psutil.Process | None:
        record = read_json(self.record)
        try:
            process = psutil.Process(record["pid"])
            # The number may have been given to another process since.
            same = abs(process.create_time() - record["started"]) < START_SLACK_S
        except (KeyError, TypeError, ValueError, psutil.NoSuchProcess):
            return None
        return process if same and _alive(process) else None

    # Starting

    def _spawn(self) -> psutil.Process:
        self.home.logs.mkdir(mode=0o700, parents=True, exist_ok=True)
        begin_anew = self.log.exists() and self.log.stat().st_size > LOG_BYTES
        with self.log.open("wb" if begin_anew else "ab") as log:
            self._started = subprocess.Popen(
                self.argv,
                cwd=self.home.root,
                env=self._env | {MARK: self._mark},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C and a closed terminal are not for it.
                start_new_session=True,
            )
        process = psutil.Process(self._started.pid)
        record = {"pid": process.pid, "started": process.create_time(), "argv": self.argv}
        write_atomic(self.record, json.dumps(record, indent=2) + "\n")
        return process

    def _wait_ready(self, process: psutil.Process, ready: Callable[[], bool], timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while not ready():
            if not self._running(process):
                raise RingfenceError(f"{self.name} ended before it was ready. {self._log_for_error()}")
            if time.monotonic() > deadline:
                raise RingfenceError(f"{self.name} was not ready after {timeout_s:.0f} s. {self._log_for_error()}")
            time.sleep(POLL_S)
        if not self._running(process):
            # Somebody else answered in its place.
            raise RingfenceError(f"{self.name} ended, though its address answers. {self._log_for_error()}")

    def _log_for_error(self) -> str:
        return f"The end of {self.log}:\n{self.log_tail() or '(empty)'}"

    def _running(self, process: psutil.Process) -> bool:
        if self._started is not None and self._started.pid == process.pid:
            return self._started.poll() is None
        return _alive(process)

    def _gone(self, process: psutil.Process, timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        while self._running(process):
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_S)
        return True


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _leads(process: psutil.Process) -> bool:
    """Whether the process leads its session: the child itself, not one that it started."""
    try:
        return os.getsid(process.pid) == process.pid
    except ProcessLookupError:
        return False
