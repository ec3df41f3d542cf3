"""The same sandboxes without being root: through a user namespace, limited by a watchdog; refused where neither can be had."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest

from ringfence.invocation import new_id
from ringfence.runner.local_executor.cgroups import PREFIX

pytestmark = [
    pytest.mark.sandbox,
    pytest.mark.skipif(os.geteuid() != 0, reason="becomes an ordinary user, which takes root"),
]

USER = 4711
# Runs SCENARIO as an ordinary user. The interpreter and packages are given paths that such a user can read, in a mount
# namespace of the test's own.
SET_UP = """
set -e
{mounts}
cd /
{enter} setpriv --reuid {user} --regid {user} --clear-groups --inh-caps=-all --bounding-set=-all --no-new-privs \\
    env -i PATH=/usr/bin:/bin HOME=/tmp PYTHONDONTWRITEBYTECODE=1 PYTHONPATH={path} {python} {script}
"""
SCENARIO = """
import asyncio, json, os, signal, sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from ringfence.errors import RingfenceError
from ringfence.runner.executor import Unit
from ringfence.runner.local_executor import LocalExecutor, ReadOnlyMount, Root, Ways
from ringfence.runner.local_executor.records import _processes_on

HERE = Path({here!r})
PYTHON = "/python/bin/{python}"
CODE = {code!r}
mounts = [(HERE / "python", "/python"), (Path("/usr"), "/usr"), (Path("/lib"), "/lib"), (Path("/lib64"), "/lib64")]
root = Root(HERE / "root", PYTHON, (PYTHON, "-I", "-c", CODE), (), tuple(ReadOnlyMount(a, b) for a, b in mounts if a.is_dir()))
NAMES = ("net", "mnt", "pid", "user")

async def main():
    async def greet(_, writer):
        writer.write(b"gateway")
        writer.close()
    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    host = await asyncio.start_server(greet, "0.0.0.0", 0)
    os.environ["HOST_PORT"] = str(host.sockets[0].getsockname()[1])
    executor = LocalExecutor(HERE / "state", HERE / "runsc", root, Ways(server.sockets[0].getsockname()))
    environment = {{"HOST_PORT": os.environ["HOST_PORT"], "CREDENTIALS_TOKEN": "token"}}
    unit = Unit({id!r}, "user", datetime.now(UTC) + timedelta(seconds={seconds}), (), memory_mib={memory},
                environment=environment, credentials={{"t.json": b"secret"}})
    answer = {{"uid": os.getuid()}}
    try:
        await executor.start(unit, lambda line: None)
    except RingfenceError as error:
        answer["error"] = str(error)
    else:
        {during}
        exit = await executor.wait(unit.invocation_id)
        answer |= {{"code": exit.code, "reason": exit.reason, "log": exit.log}}
    await executor.remove(unit.invocation_id)
    answer["left"] = sorted(os.listdir(HERE / "state"))
    answer["processes"] = sorted(_processes_on(HERE / "state" / unit.invocation_id))
    print("RESULT " + json.dumps(answer), flush=True)

asyncio.run(main())
"""
PROBE = """
import ctypes, json, os, socket
def reach(host, port):
    try:
        with socket.create_connection((host, port), 3) as connection:
            return connection.recv(100).decode()
    except OSError as error:
        return "failed " + os.strerror(error.errno)
try:
    open("/var/x", "w")
    root = "written"
except OSError as error:
    root = os.strerror(error.errno)
open("/tmp/x", "w").write("x")
status = dict(line.split(":", 1) for line in open("/proc/self/status") if ":" in line)
secret = "/var/run/ringfence/credentials/t.json"
print(json.dumps({"uid": os.getuid(), "kernel": open("/proc/version").read(), "root": root, "caps": int(status["CapEff"], 16),
    "gateway": reach("192.0.2.1", 14000), "host": [reach(host, int(os.environ["HOST_PORT"])) for host in ("127.0.0.1", "192.0.2.1")],
    "metadata": reach("169.254.169.254", 80), "secret": [open(secret).read(), oct(os.stat(secret).st_mode)],
    "token": os.environ["CREDENTIALS_TOKEN"]}))
"""


@pytest.fixture
def as_user(root, runsc):
    """as_user(code, during=..., seconds=..., memory=...): what an ordinary user's runner got from a sandbox with `code`."""
    # Not below pytest's own folder, which other users may not enter.
    here = Path(tempfile.mkdtemp(prefix="ringfence-test-"))
    here.chmod(0o755)
    for name in ("python", "packages", "project", "state"):
        (here / name).mkdir()
    shutil.copytree(root.folder, here / "root")
    shutil.copy(runsc, here / "runsc")
    os.chown(here / "state", USER, USER)
    (here / "state").chmod(0o700)

    def run(code: str, *, during: str = "pass", seconds: float = 60, memory: int = 512, enter: str = "exec") -> dict:
        python = Path(sys.executable).resolve().name
        text = SCENARIO.format(
            here=str(here), python=python, code=code, id=new_id(), seconds=seconds, memory=memory, during=during
        )
        (here / "scenario.py").write_text(textwrap.dedent(text))
        project = Path(__file__).parents[2]
        packages = next(path for path in map(Path, sys.path) if path.name == "site-packages")
        folders = {sys.base_prefix: "python", str(packages): "packages", str(project): "project"}
        script = SET_UP.format(
            mounts="\n".join(f"mount --bind {source} {here / name}" for source, name in folders.items()),
            enter=enter.format(here=here),
            user=USER,
            path=f"{here}/project:{here}/packages",
            python=here / "python" / "bin" / python,
            script=here / "scenario.py",
        )
        done = subprocess.run(
            ["unshare", "-m", "bash", "-c", script], capture_output=True, text=True, timeout=120, check=False
        )
        said = [line.removeprefix("RESULT ") for line in done.stdout.splitlines() if line.startswith("RESULT ")]
        assert len(said) == 1, done.stdout + done.stderr
        answer = json.loads(said[0])
        assert answer["uid"] == USER
        assert (answer["left"], answer["processes"]) == ([], [])
        return answer

    yield run
    shutil.rmtree(here)


def test_an_ordinary_user_gets_the_same_isolation(as_user):
    answer = as_user(PROBE)
    assert (answer["code"], answer["reason"]) == (0, "Completed"), answer["log"]
    inside = json.loads(answer["log"].splitlines()[-1])
    assert inside["uid"] == 1000
    assert "gvisor" in inside["kernel"]
    assert inside["root"] in ("Read-only file system", "Permission denied")
    assert inside["caps"] == 0
    assert inside["gateway"] == "gateway"
    assert inside["host"] == ["failed Connection refused"] * 2
    assert inside["metadata"] == "failed Network is unreachable"
    assert inside["secret"] == ["secret", "0o100400"]
    assert inside["token"] == "token"


def test_gvisor_is_in_namespaces_of_its_own_for_an_ordinary_user_too(as_user):
    during = """await asyncio.sleep(2)
        pids = _processes_on(HERE / "state" / unit.invocation_id)
        answer["spaces"] = {pid: [os.readlink(f"/proc/{pid}/ns/{name}") for name in NAMES] for pid in pids}
        answer["mine"] = [os.readlink(f"/proc/self/ns/{name}") for name in NAMES]
        answer["names"] = {pid: Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\\0")[0].decode() for pid in pids}
        await executor.remove(unit.invocation_id)"""
    answer = as_user("import time; time.sleep(60)", during=during)
    (sandbox,) = [pid for pid, name in answer["names"].items() if name == "runsc-sandbox"]
    assert not set(answer["spaces"][sandbox]) & set(answer["mine"])
    (gofer,) = [pid for pid, name in answer["names"].items() if name == "runsc-gofer"]
    assert answer["spaces"][gofer][0] not in (answer["mine"][0], answer["spaces"][sandbox][0])


def test_without_control_groups_a_watchdog_ends_what_takes_too_much_memory(as_user):
    code = "import os\nblocks = [os.urandom(1 << 20) for _ in range(MIB)]\nimport time; time.sleep(REST); print('kept', len(blocks))"
    beyond = as_user(code.replace("MIB", "600").replace("REST", "60"), memory=256)
    assert (beyond["code"], beyond["reason"]) == (None, "OOMKilled")
    assert "kept" not in beyond["log"]
    # Counting any of it twice would end this one too.
    within = as_user(code.replace("MIB", "340").replace("REST", "2"), memory=512)
    assert (within["code"], within["log"].strip()) == (0, "kept 340")


def test_without_control_groups_a_watchdog_ends_a_fork_bomb(as_user):
    bomb = "import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass"
    answer = as_user(bomb, memory=1024, seconds=30)
    assert answer["reason"] in ("TooManyProcesses", "OOMKilled")


def test_without_control_groups_a_watchdog_ends_too_many_processes_and_lets_some_be(as_user):
    code = """
import os, time
for number in range(COUNT):
    if os.fork() == 0:
        time.sleep(60)
        os._exit(0)
time.sleep(REST)
print("kept", flush=True)
os._exit(0)
"""
    # So much memory that the number is what it reaches first.
    assert as_user(code.replace("COUNT", "400").replace("REST", "60"), memory=8192)["reason"] == "TooManyProcesses"
    assert as_user(code.replace("COUNT", "20").replace("REST", "3"))["log"].strip() == "kept"


def test_the_deadline_holds_for_an_ordinary_user(as_user):
    assert as_user("import time; time.sleep(60)", seconds=3)["reason"] == "DeadlineExceeded"


def test_where_user_namespaces_are_not_allowed_no_sandbox_starts(as_user):
    # A process in a chroot may not make user namespaces (user_namespaces(7), EPERM).
    enter = "mkdir {here}/jail; mount --rbind / {here}/jail; exec chroot {here}/jail"
    answer = as_user("print('started')", enter=enter)
    assert "user namespace" in answer["error"]
    assert "remedy: run as root" in answer["error"]


def test_root_without_control_groups_is_refused(tmp_path):
    """As in many containers, the groups are there but may not be written to."""
    invocation_id = new_id()
    code = f"""
import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from ringfence.errors import RingfenceError
from ringfence.runner.executor import Unit
from ringfence.runner.local_executor import LocalExecutor, Root, Ways
async def main():
    executor = LocalExecutor(Path({str(tmp_path / "state")!r}), Path("/bin/true"), Root(Path("/"), "/x", ("/x",)), Ways(("127.0.0.1", 9)))
    unit = Unit({invocation_id!r}, "me", datetime.now(UTC) + timedelta(seconds=9), ())
    try:
        await executor.start(unit, lambda line: None)
    except RingfenceError as error:
        print(error)
    await executor.remove(unit.invocation_id)
asyncio.run(main())
"""
    script = """
    for point in $(awk '$3 ~ /^cgroup/ {print $2}' /proc/self/mounts); do mount -o remount,bind,ro "$point"; done
    exec "$0" -c "$1"
    """
    words = ["unshare", "-m", "bash", "-ec", script, sys.executable, code]
    environment = dict(os.environ) | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False, env=environment)
    assert "control group" in done.stdout, done.stdout + done.stderr
    assert "remedy" in done.stdout
    assert not list(Path("/sys/fs/cgroup").rglob(f"{PREFIX}{invocation_id}"))
