"""Runs the real Pulumi engine on a project, against a home's own state backend and the embedded target.

    engine = Engine(project_dir, home, tools)
    engine.preview(policy_packs=[pack]).violations
    engine.up().check()

Nothing of the caller's Pulumi or AWS set-up reaches the engine: it can't touch a real account or another backend.
"""

from __future__ import annotations

import json
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ringfence.errors import InputError, Problem, RingfenceError
from ringfence.local import locks, target
from ringfence.local.results import Result
from ringfence.local.state import Home, read_json, write_atomic
from ringfence.local.supervise import MARK, Child
from ringfence.local.toolchain.model import Tools
from ringfence.review.resource import SECRET_PLACEHOLDER, holds_secret

# Name under which a running engine is found again when its command was killed.
ENGINE_CHILD = "engine"
ROOT_TYPE = "pulumi:pulumi:Stack"
OnEvent = Callable[[dict[str, Any]], None]
# How often the event log is looked at while the engine runs, in seconds.
EVENT_POLL_S = 0.1
# Has the engine write the state once, at its end, also when it is stopped by Ctrl-C or an error; otherwise it writes the
# whole state twice for every resource, which took 80 of the 96 s that a first `up` of 755 resources did.
WRITE_AT_END = {"PULUMI_EXPERIMENTAL": "true", "PULUMI_SKIP_CHECKPOINTS": "true"}
# Keys of a stack's configuration file that hold how its secrets are encrypted: made per machine, kept in the home.
ENCRYPTION_KEYS = ("encryptionsalt", "encryptedkey", "secretsprovider")


class Engine:
    """One stack of one project on the embedded target.

    project_dir: folder with Pulumi.yaml; home: where state, passphrase and plugins lie; config: values that replace
    those of the stack's own configuration file (``{"ringfence:profile": "lean"}``); extra_env: added to the engine's
    environment last.
    """

    def __init__(
        self,
        project_dir: Path | str,
        home: Home | Path | str,
        tools: Tools,
        *,
        stack: str = "local",
        config: Mapping[str, Any] | None = None,
        extra_env: Mapping[str, str] | None = None,
    ):
        self.project_dir = Path(project_dir).resolve()
        self.home = home if isinstance(home, Home) else Home.of(home)
        self.tools = tools
        self.stack = stack
        self.config = dict(config or {})
        self.extra_env = dict(extra_env or {})
        self._project = self._read_project()
        self.project = str(self._project["name"])

    def _read_project(self) -> dict[str, Any]:
        path = self.project_dir / "Pulumi.yaml"
        try:
            project = yaml.safe_load(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise InputError(
                [Problem(str(path), "", "no such file", "run in the folder of a Pulumi project")]
            ) from None
        except yaml.YAMLError as error:
            raise InputError([Problem(str(path), "", f"not YAML: {error}", "mend the file")]) from None
        if not isinstance(project, dict) or not project.get("name"):
            raise InputError([Problem(str(path), "name", "missing", "name the project")])
        return project

    # Paths

    @property
    def state_file(self) -> Path:
        """The stack's state in the file backend."""
        return self.home.backend / ".pulumi" / "stacks" / self.project / f"{self.stack}.json"

    @property
    def source_config(self) -> Path:
        """The stack's configuration file in the project."""
        folder = self.project_dir / str(self._project.get("stackConfigDir") or "")
        return folder / f"Pulumi.{self.stack}.yaml"

    @property
    def config_file(self) -> Path:
        """The configuration that the engine reads: a copy, since the engine writes this machine's salt into it."""
        return self.home.config / self.project / f"Pulumi.{self.stack}.yaml"

    @property
    def exists(self) -> bool:
        """Whether the stack has been made in the backend."""
        return self.state_file.exists()

    # Running

    def environment(self) -> dict[str, str]:
        """The engine's whole environment."""
        mark = {MARK: f"{self.home.root}:{ENGINE_CHILD}"}
        return target.environment(self.home, self.tools) | mark | self.extra_env

    def settings(self) -> dict[str, Any]:
        """The stack's configuration under the project's own namespace, keys without it."""
        merged = dict(self._read_config(self.source_config).get("config") or {}) | self.config
        prefix = f"{self.project}:"
        return {key.removeprefix(prefix): value for key, value in merged.items() if key.startswith(prefix)}

    def init(self) -> None:
        """Makes the backend, the provider wrappers and the stack where missing. Idempotent; every other method calls it."""
        self.home.backend.mkdir(mode=0o700, parents=True, exist_ok=True)
        target.write_plugins(self.home)
        locks.remove_stale(self.home.backend)
        locks.remove_cut_notes(self.home.backend)
        salt = self._prepare_config()
        if self.exists:
            return
        if salt:
            # A salt without a stack is left over from a removed backend.
            self.config_file.unlink()
            self._prepare_config()
        # `stack init` has no --config-file and would write the salt into the project: run it from the copy's folder.
        write_atomic(self.config_file.parent / "Pulumi.yaml", f"name: {self.project}\nruntime: python\n")
        folder = str(self.config_file.parent)
        self._run(
            ["stack", "init", self.stack, "-C", folder, "--no-select", "--secrets-provider", "passphrase"]
        ).check()

    def _prepare_config(self) -> bool:
        """Copies the project's stack configuration, with `config` merged in; keeps the copy's encryption keys.

        Returns whether there were any to keep.
        """
        source = self._read_config(self.source_config)
        kept = {key: value for key, value in self._read_config(self.config_file).items() if key in ENCRYPTION_KEYS}
        merged = {key: value for key, value in source.items() if key not in ENCRYPTION_KEYS} | kept
        if self.config:
            merged["config"] = dict(source.get("config") or {}) | self.config
        write_atomic(self.config_file, yaml.safe_dump(merged, sort_keys=False) if merged else "")
        return bool(kept)

    @staticmethod
    def _read_config(path: Path) -> dict[str, Any]:
        try:
            value = yaml.safe_load(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except yaml.YAMLError as error:
            raise InputError([Problem(str(path), "", f"not YAML: {error}", "mend the file")]) from None
        return value if isinstance(value, dict) else {}

    def preview(
        self,
        *,
        json: bool = False,
        policy_packs: Sequence[Path | str] = (),
        refresh: bool = False,
        args: Sequence[str] = (),
        on_event: OnEvent | None = None,
        timeout_s: float | None = None,
    ) -> Result:
        """Shows what `up` would do. With `json`, `Result.json` is the engine's own JSON.

        refresh: read the real resources first, so that drift shows; args: further arguments of `pulumi preview`.
        """
        return self._operate("preview", policy_packs, refresh, json, args, on_event, timeout_s)

    def up(
        self,
        *,
        json: bool = False,
        policy_packs: Sequence[Path | str] = (),
        refresh: bool = False,
        args: Sequence[str] = (),
        write_at_end: bool = False,
        on_event: OnEvent | None = None,
        timeout_s: float | None = None,
    ) -> Result:
        """Makes the stack what the program says. Operations that an interrupted run left pending are cleared first.

        write_at_end: the state is written once, at the end; a killed engine then leaves what it made unrecorded.
        """
        self.init()
        self.clear_pending()
        more = ["--yes", "--skip-preview", *args]
        env = WRITE_AT_END if write_at_end else {}
        return self._operate("up", policy_packs, refresh, json, more, on_event, timeout_s, env)

    def destroy(
        self,
        *,
        args: Sequence[str] = (),
        write_at_end: bool = False,
        on_event: OnEvent | None = None,
        timeout_s: float | None = None,
    ) -> Result:
        """Deletes every resource of the stack; the empty stack stays. write_at_end: as for `up`."""
        self.init()
        self.clear_pending()
        more = ["--yes", "--skip-preview", *args]
        env = WRITE_AT_END if write_at_end else {}
        return self._operate("destroy", (), False, False, more, on_event, timeout_s, env)

    def refresh(
        self, *, args: Sequence[str] = (), on_event: OnEvent | None = None, timeout_s: float | None = None
    ) -> Result:
        """Reads every resource and takes what is really there into the state."""
        self.init()
        self.clear_pending()
        return self._operate("refresh", (), False, False, ["--yes", "--skip-preview", *args], on_event, timeout_s)

    def _operate(
        self,
        command: str,
        policy_packs: Sequence[Path | str],
        refresh: bool,
        as_json: bool,
        args: Sequence[str],
        on_event: OnEvent | None,
        timeout_s: float | None,
        env: Mapping[str, str] | None = None,
    ) -> Result:
        self.init()
        words = [command, "--stack", self.stack, "--config-file", str(self.config_file)]
        for pack in policy_packs:
            words += ["--policy-pack", str(Path(pack).resolve())]
        if refresh:
            words.append("--refresh")
        if as_json:
            # Whole, for those who compare it with what was approved: without it only what changes.
            words += ["--json", "--show-sames"]
        return self._run([*words, *args], on_event=on_event, timeout_s=timeout_s, events=True, env=env)

    def export(self, *, show_secrets: bool = False) -> dict[str, Any]:
        """The stack's deployment, as `pulumi stack export` gives it. Secrets stay encrypted unless asked for."""
        self.init()
        more = ["--show-secrets"] if show_secrets else []
        return self._run(["stack", "export", "--stack", self.stack, *more]).check().json

    def import_(self, deployment: Mapping[str, Any]) -> None:
        """Replaces the stack's deployment."""
        self.init()
        with tempfile.NamedTemporaryFile("w", dir=self.home.config, suffix=".json") as file:
            json.dump(deployment, file)
            file.flush()
            self._run(["stack", "import", "--stack", self.stack, "--file", file.name]).check()

    def outputs(self) -> dict[str, Any]:
        """The stack's outputs, read without starting the engine, which another command may need; a secret one shows as
        ``[secret]``."""
        root = next((entry for entry in self.resources() if entry["type"] == ROOT_TYPE), {})
        return {
            name: SECRET_PLACEHOLDER if holds_secret(value) else value
            for name, value in (root.get("outputs") or {}).items()
        }

    def resources(self) -> list[dict[str, Any]]:
        """The resources in the stack's state, read without starting the engine; empty when there is no stack."""
        latest = read_json(self.state_file).get("checkpoint", {}).get("latest") or {}
        return list(latest.get("resources") or [])

    def clear_pending(self) -> int:
        """Forgets the operations that an interrupted run left pending. Returns how many there were.

        Safe on the embedded target only: a repeated create is answered by the AWS server with what the first one made,
        and Kubernetes objects are applied by name, so nothing is made twice.
        """
        latest = read_json(self.state_file).get("checkpoint", {}).get("latest") or {}
        pending = latest.get("pending_operations") or []
        if pending:
            exported = self.export()
            exported["deployment"]["pending_operations"] = []
            self.import_(exported)
        return len(pending)

    def _run(
        self,
        words: Iterable[str],
        *,
        on_event: OnEvent | None = None,
        timeout_s: float | None = None,
        events: bool = False,
        env: Mapping[str, str] | None = None,
    ) -> Result:
        words = list(words)
        command = [str(self.tools.path("pulumi")), "--non-interactive", "--color", "never", *words]
        with tempfile.TemporaryDirectory(prefix="ringfence-") as scratch:
            log = Path(scratch) / "events"
            if events:
                command += ["--event-log", str(log)]
            follower = _Follower(log, on_event)
            started = time.monotonic()
            process = subprocess.Popen(
                command,
                cwd=self.project_dir,
                env=self.environment() | dict(env or {}),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                encoding="utf-8",
                errors="replace",
                # A group of its own: Ctrl-C must reach the engine once, from here, or it stops without cleaning up.
                start_new_session=True,
            )
            try:
                stdout, stderr = _communicate(process, timeout_s)
            finally:
                if process.returncode is None or process.returncode < 0:
                    # The engine's plugins have groups of their own, and notice its end late.
                    Child(self.home, ENGINE_CHILD, []).stop(0)
                read = follower.finish()
            elapsed = time.monotonic() - started
        return Result(tuple(words), process.returncode, stdout, stderr, elapsed, read)


def _communicate(process: subprocess.Popen[str], timeout_s: float | None) -> tuple[str, str]:
    """Waits for the engine. Ctrl-C is passed on: the first stops it cleanly, a second one at once."""
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    interrupts = 0
    while True:
        try:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            stdout, stderr = process.communicate(timeout=left)
        except KeyboardInterrupt:
            interrupts += 1
            process.send_signal(signal.SIGINT if interrupts < 3 else signal.SIGKILL)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise RingfenceError(f"the engine did not end within {timeout_s:.0f} s and was killed") from None
        else:
            break
    if interrupts:
        raise KeyboardInterrupt
    return stdout, stderr


class _Follower:
    """Reads the engine's event log while it grows, on a thread of its own."""

    def __init__(self, path: Path, on_event: OnEvent | None):
        self._path = path
        self._on_event = on_event
        self._events: list[dict[str, Any]] = []
        self._rest = b""
        self._offset = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        while not self._done.wait(EVENT_POLL_S):
            self._read()
        self._read()

    def _read(self) -> None:
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            return
        self._offset += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            event = json.loads(line)
            # Debug output is most of the log and means nothing to a caller.
            if event.get("diagnosticEvent", {}).get("severity") == "debug":
                continue
            self._events.append(event)
            if self._on_event:
                self._on_event(event)

    def finish(self) -> tuple[dict[str, Any], ...]:
        """Every event, after the engine has ended."""
        self._done.set()
        self._thread.join()
        return tuple(self._events)
