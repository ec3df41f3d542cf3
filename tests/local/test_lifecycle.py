"""up, preview, status and down through the command line, with the real engine, AWS server and control plane."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import psutil
import pytest
import yaml
from botocore.exceptions import BotoCoreError, ClientError

from ringfence.local import services
from ringfence.local.operator_key import operator_key
from ringfence.local.state import Home
from ringfence.local.supervise import MARK, Child

# Forty runs of the real thing: minutes, not seconds.
pytestmark = [pytest.mark.engine, pytest.mark.cluster, pytest.mark.e2e]

# With `hold`, the program waits for ever before that role, so that a test that kills or interrupts never comes too late.
PROGRAM = """
import asyncio
import json
import pulumi
import pulumi_aws as aws
import pulumi_kubernetes as kubernetes

trust = {"Version": "2012-10-17", "Statement": [{
    "Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"Service": "ec2.amazonaws.com"}}]}
count, hold = pulumi.Config().get_int("count") or 2, pulumi.Config().get_int("hold")
previous = []

async def never():
    await asyncio.sleep(3600)

for number in range(count):
    document = json.dumps(trust)
    if number == hold and not pulumi.runtime.is_dry_run():
        document = pulumi.Output.from_input(never())
    role = aws.iam.Role(f"role-{number}", name=f"trial-{number}", assume_role_policy=document,
                        opts=pulumi.ResourceOptions(depends_on=previous))
    previous = [role]
labels = {"app.kubernetes.io/managed-by": "pulumi"}
space = kubernetes.core.v1.Namespace("space", metadata={"name": "trial", "labels": labels})
kubernetes.core.v1.ConfigMap("map", metadata={"name": "map", "namespace": space.metadata["name"]}, data={"a": "b"})
pulumi.export("roles", count)
"""


class Trial:
    """A project of its own, driven through `ringfence`."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.home = Home(folder / ".ringfence")
        self._clients: dict[tuple[str, ...], Any] = {}
        self._started: list[subprocess.Popen[str]] = []
        runtime = {"name": "python", "options": {"virtualenv": sys.prefix}}
        (folder / "Pulumi.yaml").write_text(yaml.safe_dump({"name": "trial", "runtime": runtime}))
        (folder / "__main__.py").write_text(PROGRAM)

    def set(self, **config: Any) -> None:
        text = yaml.safe_dump({"config": {f"trial:{key}": value for key, value in config.items()}})
        (self.folder / "Pulumi.local.yaml").write_text(text)

    def start(self, *words: str) -> subprocess.Popen[str]:
        environ = {name: value for name, value in os.environ.items() if name != "RINGFENCE_HOME"}
        process = subprocess.Popen(
            [sys.executable, "-m", "ringfence.cli", *words],
            cwd=self.folder,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            # A shell that runs the tests in its background has it ignored, and children inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        self._started.append(process)
        return process

    def end(self) -> None:
        """Kills what a failed test left running: it would hold the project's lock."""
        for process in self._started:
            process.kill()
            process.wait(30)
        self._started.clear()

    def run(self, *words: str, code: int = 0) -> str:
        process = self.start(*words)
        output, _ = process.communicate(timeout=400)
        assert process.returncode == code, output
        return output

    def client(self, service: str) -> Any:
        endpoint = f"http://127.0.0.1:{self.home.kept_ports()['aws']}"
        key = operator_key(self.home)
        which = (service, endpoint, key.access_key_id, key.secret_access_key)
        if which not in self._clients:
            # To make one takes longer than to make ten roles, which is too long between two looks at them.
            self._clients[which] = boto3.client(
                service, "us-east-1", endpoint_url=endpoint, aws_access_key_id=which[2], aws_secret_access_key=which[3]
            )
        return self._clients[which]

    def roles(self) -> list[str]:
        pages = self.client("iam").get_paginator("list_roles").paginate()
        return sorted(
            role["RoleName"] for page in pages for role in page["Roles"] if role["RoleName"].startswith("trial-")
        )

    def state(self) -> dict[str, Any]:
        path = self.home.backend / ".pulumi" / "stacks" / "trial" / "local.json"
        return json.loads(path.read_text())["checkpoint"]["latest"]

    def engine(self) -> psutil.Process:
        """The running engine, once it has begun to make things."""
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            pid = Child(self.home, "engine", []).pid()
            with contextlib.suppress(FileNotFoundError, KeyError, TypeError, ValueError, psutil.NoSuchProcess):
                if pid and sum(entry["type"] == "aws:iam/role:Role" for entry in self.state()["resources"]) >= 2:
                    return psutil.Process(pid)
            time.sleep(0.02)
        raise AssertionError("the engine made nothing")

    def processes(self) -> list[str]:
        """Command lines of everything that still runs for this home."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                mark = process.environ().get(MARK, "")
                if mark.startswith(f"{self.home.root}:") and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(" ".join(process.cmdline()[:4]))
        return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tools) -> Iterator[Path]:
    """One project for the module: its services stay up from test to test, which saves ten seconds each time."""
    path = tmp_path_factory.mktemp("lifecycle")
    yield path
    services.stop(Home(path / ".ringfence"), lambda line: None)


@pytest.fixture
def trial(folder) -> Iterator[Trial]:
    trial = Trial(folder)
    trial.set(count=2)
    yield trial
    trial.end()
    trial.set(count=2)


def test_up_makes_everything_and_again_changes_nothing(trial):
    output = trial.run("up")
    assert "stand: " in output
    assert trial.roles() == ["trial-0", "trial-1"]
    words = ["get", "configmap", "map", "-n", "trial", "-o", "jsonpath={.data.a}"]
    kubectl = subprocess.run(
        [shutil.which("kubectl", path=path_of(trial)), *words],
        env={"KUBECONFIG": str(trial.home.kubeconfig), "HOME": str(trial.folder)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert kubectl.stdout == "b"
    pids = {name: Child(trial.home, name, []).pid() for name in ("aws", "etcd", "kube-apiserver")}
    assert "created" not in trial.run("up").split("stand: ")[1]
    assert {name: Child(trial.home, name, []).pid() for name in pids} == pids


def path_of(trial: Trial) -> str:
    """PATH as `ringfence env` sets it."""
    script = f'eval "$({sys.executable} -m ringfence.cli env)" && echo "$PATH"'
    return subprocess.run(
        ["sh", "-c", script], cwd=trial.folder, capture_output=True, text=True, check=True
    ).stdout.strip()


def test_pulumi_by_hand_works_after_env_and_leaves_the_projects_files_alone(trial):
    trial.run("up")
    before = (trial.folder / "Pulumi.local.yaml").read_text()
    script = f'eval "$({sys.executable} -m ringfence.cli env)" && pulumi preview -s local --non-interactive'
    answer = subprocess.run(["sh", "-c", script], cwd=trial.folder, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert "unchanged" in answer.stdout
    assert (trial.folder / "Pulumi.local.yaml").read_text() == before


def test_preview_shows_the_change_and_makes_none(trial):
    trial.run("up")
    trial.set(count=3)
    assert "+ aws:iam/role:Role role-2" in trial.run("preview")
    assert trial.roles() == ["trial-0", "trial-1"]


def test_previews_json_is_the_engines_alone(trial):
    trial.run("up")
    trial.set(count=3)
    command = [sys.executable, "-m", "ringfence.cli", "preview", "--json"]
    answer = subprocess.run(command, cwd=trial.folder, capture_output=True, check=True)
    steps = json.loads(answer.stdout)["steps"]
    assert [step["op"] for step in steps if step["urn"].endswith("::role-2")] == ["create"]


def test_drift_made_behind_pulumis_back_shows_with_refresh(trial):
    trial.run("up")
    trial.client("iam").update_role(RoleName="trial-0", Description="widened by hand")
    assert "role-0" not in trial.run("preview")
    assert "~ aws:iam/role:Role role-0" in trial.run("preview", "--refresh")
    trial.client("iam").update_role(RoleName="trial-0", Description="")


def test_an_engine_killed_in_the_middle_of_up_is_made_good_by_the_next_up(trial):
    trial.run("up")
    trial.set(count=30, hold=25)
    command = trial.start("up")
    wait_for_more(trial, 5).kill()
    output, _ = command.communicate(timeout=300)
    assert command.returncode == 1
    assert "ended by signal 9" in output
    assert len(trial.roles()) <= 25
    trial.set(count=30)
    trial.run("up")
    assert len(trial.roles()) == 30
    urns = [entry["urn"] for entry in trial.state()["resources"]]
    assert len(urns) == len(set(urns))
    assert not trial.state().get("pending_operations")


def wait_for_roles(trial: Trial, count: int) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        with contextlib.suppress(KeyError, BotoCoreError, ClientError):
            if len(trial.roles()) >= count:
                return
        time.sleep(0.02)
    raise AssertionError(f"there never were {count} roles")


def wait_for_more(trial: Trial, count: int) -> psutil.Process:
    """The engine, once the account has `count` of the roles."""
    wait_for_roles(trial, count)
    return trial.engine()


def kill_engine(trial: Trial) -> None:
    pid = Child(trial.home, "engine", []).pid()
    assert pid, "the engine ended before it could be killed"
    os.kill(pid, signal.SIGKILL)


def kill_a_first_up(trial: Trial) -> None:
    """Leaves roles and a namespace that no state knows."""
    trial.run("down")
    trial.set(count=40, hold=30)
    command = trial.start("up")
    wait_for_roles(trial, 5)
    kill_engine(trial)
    output, _ = command.communicate(timeout=300)
    assert "ended by signal 9" in output
    assert len(trial.roles()) >= 5
    assert not trial.state().get("resources")


def test_a_first_up_that_was_killed_is_started_over_and_what_it_made_is_gone(trial):
    kill_a_first_up(trial)
    assert "the next one starts over" in trial.run("status")
    trial.set(count=2)
    assert "starting over" in trial.run("up")
    assert trial.roles() == ["trial-0", "trial-1"]
    assert "starts over" not in trial.run("status")
    assert "starting over" not in trial.run("up")


def test_down_after_a_killed_first_up_leaves_nothing_and_says_so_without_an_error(trial):
    kill_a_first_up(trial)
    trial.run("down")
    assert trial.processes() == []
    assert not (trial.home.kubernetes / "etcd").exists()
    assert "starts over" not in trial.run("status")


def test_an_interrupted_first_up_keeps_its_state_and_goes_on_the_next_time(trial):
    trial.run("down")
    trial.set(count=40, hold=30)
    command = trial.start("up")
    wait_for_roles(trial, 5)
    command.send_signal(signal.SIGINT)
    output, _ = command.communicate(timeout=120)
    assert command.returncode == 130, output
    made = trial.roles()
    known = {entry["id"] for entry in trial.state()["resources"] if entry["type"] == "aws:iam/role:Role"}
    assert known == set(made)
    assert 5 <= len(made) <= 30
    trial.set(count=40)
    assert "starting over" not in trial.run("up")
    assert len(trial.roles()) == 40


@pytest.mark.parametrize("then", ["down", "up"])
def test_after_a_killed_down_both_down_and_up_do_what_they_say(trial, then):
    trial.set(count=150)
    trial.run("up")
    command = trial.start("down")
    deadline = time.monotonic() + 120
    while len(trial.roles()) > 145 and time.monotonic() < deadline:
        time.sleep(0.02)
    kill_engine(trial)
    output, _ = command.communicate(timeout=300)
    assert command.returncode == 1, output
    assert 0 < len(trial.roles()) <= 145
    assert "starting over" in trial.run(then)
    if then == "down":
        assert trial.processes() == []
        assert not trial.state().get("resources")
    else:
        assert len(trial.roles()) == 150
        assert " created" not in trial.run("up")


def test_an_up_after_a_reboot_that_was_killed_too_is_started_over(trial):
    trial.run("up")
    os.kill(Child(trial.home, "aws", []).pid(), signal.SIGKILL)
    trial.set(count=40, hold=30)
    command = trial.start("up")
    wait_for_roles(trial, 5)
    kill_engine(trial)
    command.communicate(timeout=300)
    trial.set(count=2)
    assert "starting over" in trial.run("up")
    assert trial.roles() == ["trial-0", "trial-1"]
    assert " created" not in trial.run("up")


def test_a_killed_command_leaves_an_engine_that_the_next_command_stops_first(trial):
    trial.run("up")
    trial.set(count=40, hold=30)
    command = trial.start("up")
    engine = wait_for_more(trial, 10)
    # Or it would end by itself as soon as it has something to say to the command that is gone.
    engine.suspend()
    command.kill()
    command.wait(30)
    assert engine.is_running()
    trial.set(count=40)
    following = trial.start("up")
    said = next(line for line in following.stdout if "engine" in line or "stand:" in line)
    engine.resume()
    output, _ = following.communicate(timeout=400)
    assert "an interrupted run's engine is still at work" in said
    assert following.returncode == 0, output
    assert len(trial.roles()) == 40
    assert not trial.state().get("pending_operations")


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_up_keeps_its_state_and_goes_on_the_next_time(trial, stop):
    trial.run("up")
    trial.set(count=40, hold=30)
    command = trial.start("up")
    wait_for_more(trial, 5)
    command.send_signal(stop)
    output, _ = command.communicate(timeout=120)
    assert command.returncode == 130, output
    assert Child(trial.home, "engine", []).pid() is None
    known = {entry["id"] for entry in trial.state()["resources"] if entry["type"] == "aws:iam/role:Role"}
    assert known == set(trial.roles())
    assert len(known) <= 30
    trial.set(count=40)
    trial.run("up")
    assert len(trial.roles()) == 40


def test_two_ups_at_once_take_turns(trial):
    trial.run("up")
    trial.set(count=3)
    first, second = trial.start("up"), trial.start("up")
    outputs = [process.communicate(timeout=300)[0] for process in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0), outputs
    assert sum("1 created" in output for output in outputs) == 1


def test_lost_memory_of_the_aws_server_is_noticed_and_made_good(trial):
    trial.run("up")
    os.kill(Child(trial.home, "aws", []).pid(), signal.SIGKILL)
    output = trial.run("up")
    assert "have lost what they held" in output
    assert trial.roles() == ["trial-0", "trial-1"]
    assert "have lost what they held" not in trial.run("up")


def test_everything_killed_as_by_a_reboot_comes_back(trial):
    trial.run("up")
    for name in ("aws", "etcd", "kube-apiserver", "kube-controller-manager"):
        os.kill(Child(trial.home, name, []).pid(), signal.SIGKILL)
    trial.run("up")
    assert trial.roles() == ["trial-0", "trial-1"]
    status = json.loads(trial.run("status", "--json"))
    assert status["aws"]["ready"]
    assert status["kubernetes"]["ready"]


def test_a_stale_lock_of_a_killed_engine_does_not_block(trial):
    trial.run("up")
    folder = trial.home.backend / ".pulumi" / "locks" / "organization" / "trial" / "local"
    folder.mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen(["true"])
    process.wait()
    content = {
        "pid": process.pid,
        "username": "x",
        "hostname": os.uname().nodename,
        "timestamp": "2026-01-01T00:00:00Z",
    }
    (folder / "stale.json").write_text(json.dumps(content))
    trial.run("up")
    assert not (folder / "stale.json").exists()


def test_status_tells_what_runs_and_what_stands(trial):
    trial.run("up")
    text = trial.run("status")
    assert "AWS         ready" in text
    assert "trial/local: " in text


def test_down_leaves_nothing_and_can_be_repeated(trial):
    trial.run("up")
    assert "everything destroyed" in trial.run("down")
    assert trial.processes() == []
    assert not trial.state().get("resources")
    trial.run("down")
    assert "not running" in trial.run("status")


def test_down_works_when_the_services_are_gone(trial):
    trial.run("up")
    services.stop(trial.home, lambda line: None)
    trial.run("down")
    assert trial.processes() == []
    assert not trial.state().get("resources")


def test_down_after_a_killed_engine_leaves_nothing(trial):
    trial.run("up")
    trial.set(count=30, hold=25)
    command = trial.start("up")
    wait_for_more(trial, 5).kill()
    command.communicate(timeout=300)
    trial.run("down")
    assert trial.processes() == []


def test_what_the_state_does_not_know_is_reported_by_down(trial):
    trial.run("up")
    document = {"Version": "2012-10-17", "Statement": []}
    trial.client("iam").create_role(RoleName="made-by-hand", AssumeRolePolicyDocument=json.dumps(document))
    output = trial.run("down", code=1)
    assert "made-by-hand" in output
    assert trial.processes() == []


def test_down_where_nothing_was_ever_made_needs_no_toolchain(tmp_path, monkeypatch):
    monkeypatch.setenv("RINGFENCE_CACHE", str(tmp_path / "empty"))
    (tmp_path / "project").mkdir()
    trial = Trial(tmp_path / "project")
    trial.run("down")
    assert not (tmp_path / "empty").exists()
    assert "not running" in trial.run("status")


def test_a_folder_without_a_project_is_refused_with_a_remedy(tmp_path):
    answer = subprocess.run(
        [sys.executable, "-m", "ringfence.cli", "up"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 1
    assert "no Pulumi.yaml" in answer.stderr
    assert "remedy" in answer.stderr
    assert "Traceback" not in answer.stderr
