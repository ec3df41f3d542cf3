"""What a sandbox can see and touch of the machine: nothing. Each probe also runs as an ordinary process, and there it succeeds."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytestmark = pytest.mark.sandbox

FIND_PROCESS = """
import glob
found = []
for path in glob.glob("/proc/[0-9]*/cmdline"):
    try:
        found.append(open(path, "rb").read().decode("utf-8", "replace"))
    except OSError:
        pass
mine = [words for words in found if "FIND_PROCESS" in words]
say({"processes": len(found), "mine": len(mine), "marked": sum(MARK in words and "FIND_PROCESS" not in words for words in found)})
"""


@pytest.fixture
def marked_process():
    """A process of the host with a word in its arguments that nothing else has."""
    mark = secrets.token_hex(16)
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(120)", mark])
    yield mark
    process.kill()
    process.wait()


def test_proc_shows_no_process_of_the_host(lab, outside, marked_process):
    code = f"MARK = {marked_process!r}\n" + textwrap.dedent(FIND_PROCESS)
    # The probe's own process shows its code, so that a list without the marked one is a list that was read.
    assert outside(code)["marked"] == 1
    inside = lab(lambda lab: lab.ask(code))
    assert inside["mine"] == 1
    assert inside["marked"] == 0
    assert inside["processes"] <= 2


IDENTITY = """
import glob
def read(path):
    try:
        return open(path).read().strip()
    except OSError as error:
        return "failed " + os.strerror(error.errno)
facts = {"boot_id": read("/proc/sys/kernel/random/boot_id"), "cmdline": read("/proc/cmdline"), "hostname": socket.gethostname(),
         "version": read("/proc/version")}
facts["addresses"] = sorted(read(path) for path in glob.glob("/sys/class/net/*/address"))
facts["disks"] = sorted(os.listdir("/sys/block")) if os.path.isdir("/sys/block") else []
facts["groups"] = sorted(os.listdir("/sys/fs/cgroup")) if os.path.isdir("/sys/fs/cgroup") else []
facts["memory"] = read("/proc/meminfo").splitlines()[0]
facts["sys"] = sorted(os.listdir("/sys"))
say(facts)
"""


def test_proc_and_sys_show_nothing_that_identifies_the_host(lab, outside):
    host, inside = outside(IDENTITY), lab(lambda lab: lab.ask(IDENTITY))
    assert host["version"] == Path("/proc/version").read_text().strip()
    assert inside["sys"]
    for fact in ("boot_id", "cmdline", "hostname", "version", "memory"):
        assert inside[fact] != host[fact], fact
    assert "gvisor" in inside["version"]
    assert host["addresses"] and host["disks"] and host["groups"]
    real = {address for address in host["addresses"] if address != "00:00:00:00:00:00"}
    assert not real & set(inside["addresses"])
    assert inside["disks"] == []
    assert inside["groups"] == []


def test_the_kernel_is_gvisors(lab, outside):
    code = """
    import ctypes
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(1 << 18)
    size = libc.klogctl(3, buffer, len(buffer))
    say({"log": buffer.raw[:max(size, 0)].decode("utf-8", "replace"), "release": os.uname().release})
    """
    inside = lab(lambda lab: lab.ask(code))
    assert "Starting gVisor" in inside["log"]
    assert "gvisor" in inside["release"]
    assert "gVisor" not in outside(code)["release"]


def test_a_file_of_the_host_is_not_there(lab, outside, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("of the host")
    code = f"""
    def read(path):
        try:
            return open(path).read()
        except OSError as error:
            return "failed " + os.strerror(error.errno)
    say([read({str(secret)!r}), read("/etc/shadow"), read("/etc/hostname"), sorted(os.listdir("/"))])
    """
    assert outside(code)[0] == "of the host"
    inside = lab(lambda lab: lab.ask(code))
    assert inside[:3] == ["failed No such file or directory"] * 3
    assert set(inside[3]) <= {"dev", "lib", "lib64", "opt", "proc", "python", "sys", "tmp", "usr", "var"}


def test_the_root_is_read_only_and_tmp_is_not(lab):
    code = """
    def write(path):
        try:
            with open(path, "w") as file:
                file.write("x")
            return "written"
        except OSError as error:
            return os.strerror(error.errno)
    folders = ("/", "/usr", "/python", "/var", "/dev", "/proc", "/sys", "/tmp", "/var/run/ringfence/credentials")
    say({folder: write(os.path.join(folder, "probe")) for folder in folders})
    """
    answer = lab(lambda lab: lab.ask(code))
    assert {folder for folder, result in answer.items() if result == "written"} == {
        "/tmp",
        "/var/run/ringfence/credentials",
    }
    assert {answer[folder] for folder in ("/", "/usr", "/python", "/var")} <= {
        "Read-only file system",
        "Permission denied",
    }


def test_a_root_that_may_be_written_to_still_refuses_an_ordinary_user_and_a_read_only_one_refuses_all(
    lab, monkeypatch, tmp_path
):
    """The same write with the read-only flag and the uid taken away: it succeeds, so the flag and the uid are what stops it."""
    from ringfence.runner.local_executor import bundle

    real = bundle.configuration

    def weak(*words):
        config = real(*words)
        config["root"]["readonly"] = False
        config["process"]["user"] = {"uid": 0, "gid": 0}
        return config

    code = """
    try:
        open("/var/probe", "w").close()
        say("written")
    except OSError as error:
        say(os.strerror(error.errno))
    """
    assert lab(lambda lab: lab.ask(code)) in ("Read-only file system", "Permission denied")
    monkeypatch.setattr(bundle, "configuration", weak)

    async def scenario(lab):
        try:
            return await lab.ask(code)
        finally:
            (lab.root.folder / "var" / "probe").unlink(missing_ok=True)

    assert lab(scenario) == "written"


def test_the_process_is_uid_1000_without_capabilities_or_a_way_to_gain_any(lab):
    code = """
    import ctypes
    libc = ctypes.CDLL(None, use_errno=True)
    status = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines() if ":" in line)
    caps = {name: int(value, 16) for name, value in status.items() if name.startswith("Cap")}
    def fails(name, *arguments):
        return os.strerror(ctypes.get_errno()) if getattr(libc, name)(*arguments) == -1 else "done"
    say({"uids": os.getresuid(), "gids": os.getresgid(), "groups": os.getgroups(), "caps": caps, "nnp": libc.prctl(39, 0, 0, 0, 0),
         "setuid": fails("setuid", 0), "mount": fails("mount", b"none", b"/tmp", b"tmpfs", 0, None),
         "chroot": fails("chroot", b"/tmp"), "tty": [os.isatty(fd) for fd in (0, 1, 2)], "stdin": sys.stdin.read(),
         "again": os.path.realpath("/proc/self/fd/0"),
         "raw": fails("socket", socket.AF_INET, socket.SOCK_RAW, 1)})
    """
    answer = lab(lambda lab: lab.ask(code))
    assert answer["uids"] == answer["gids"] == [1000, 1000, 1000]
    assert set(answer["groups"]) <= {1000}
    assert len(answer["caps"]) >= 4
    assert set(answer["caps"].values()) == {0}
    assert answer["nnp"] == 1
    assert {answer[call] for call in ("setuid", "mount", "chroot", "raw")} == {"Operation not permitted"}
    assert answer["tty"] == [False, False, False]
    assert answer["stdin"] == ""
    # Not the file that the credentials came in, which could be read again.
    assert answer["again"] == "/dev/null"


@pytest.mark.skipif(os.geteuid() != 0, reason="as an ordinary user gVisor is that user; see test_ordinary_user")
def test_gvisor_itself_runs_as_nobody_in_namespaces_of_its_own(lab):
    """What someone who broke out of gVisor's kernel would be: no user of the host, in no namespace of the host."""

    async def scenario(lab):
        invocation_id = await lab.start("import time; print('up', flush=True); time.sleep(60)")
        await lab.said(invocation_id, "up")
        found = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal() and entry.name != str(os.getpid()):
                try:
                    words = (entry / "cmdline").read_bytes().split(b"\0")
                    if str(lab.state / invocation_id / "runsc").encode() in b" ".join(words):
                        spaces = {
                            name: os.readlink(entry / "ns" / name)
                            for name in ("net", "mnt", "pid", "user", "ipc", "uts")
                        }
                        found[words[0].decode()] = (spaces, (entry / "status").read_text())
                except OSError:
                    continue
        return found

    found = lab(scenario)
    spaces, status = found["runsc-sandbox"]
    mine = {name: os.readlink(f"/proc/self/ns/{name}") for name in spaces}
    assert not [name for name in spaces if spaces[name] == mine[name]]
    lines = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert lines["Uid"].split() == ["65534"] * 4
    assert lines["Seccomp"] == "2"
    gofer, _ = found["runsc-gofer"]
    assert gofer["net"] not in (mine["net"], spaces["net"])


def test_another_sandboxs_process_file_and_port_are_out_of_reach(lab):
    victim = """
    import time
    MARK = "of-the-victim"
    open("/tmp/victim", "w").write("x")
    listener = socket.create_server(("0.0.0.0", 9999))
    abstract = socket.socket(socket.AF_UNIX); abstract.bind("\\0victim"); abstract.listen()
    print("serving", flush=True)
    while True:
        connection, _ = listener.accept()
        connection.sendall(b"victim")
        connection.close()
    """
    probe = """
    import glob
    unix = socket.socket(socket.AF_UNIX)
    try:
        unix.connect("\\0victim")
        abstract = "reached"
    except OSError as error:
        abstract = "failed " + os.strerror(error.errno)
    commands = [open(path).read() for path in glob.glob("/proc/[0-9]*/cmdline")]
    say({"file": os.path.exists("/tmp/victim"), "processes": len(commands), "marked": sum("of-the-" + "victim" in c for c in commands),
         "ports": {host: reach(host, 9999) for host in ("127.0.0.1", "192.0.2.1", "192.0.2.2")}, "abstract": abstract})
    """
    beside = """
    import threading
    open("/tmp/victim", "w").close()
    listener = socket.create_server(("0.0.0.0", 9999))
    threading.Thread(target=lambda: listener.accept()[0].sendall(b"victim"), daemon=True).start()
    abstract = socket.socket(socket.AF_UNIX); abstract.bind("\\0victim"); abstract.listen()
    say({"file": os.path.exists("/tmp/victim"), "port": reach("192.0.2.2", 9999)})
    """

    async def scenario(lab):
        other = lab.make(lab.root)
        invocation_id = await lab.start(victim, executor=other)
        await lab.said(invocation_id, "serving", other)
        return await lab.ask(probe), await lab.ask(beside)

    seen, own = lab(scenario)
    assert seen == {
        "file": False,
        "processes": 1,
        "marked": 0,
        "ports": {
            "127.0.0.1": "failed Connection refused",
            "192.0.2.1": "failed Connection refused",
            "192.0.2.2": "failed Connection refused",
        },
        "abstract": "failed Connection refused",
    }
    # In one sandbox the same file is there and the same port answers: the probe can tell.
    assert own == {"file": True, "port": "reached victim"}


def test_the_state_folder_is_nobody_elses(lab):
    async def scenario(lab):
        invocation_id = await lab.start("print('up', flush=True)")
        return lab.state.stat().st_mode & 0o777, (lab.state / invocation_id).stat().st_mode & 0o777

    assert lab(scenario) == (0o700, 0o700)


def test_a_host_socket_in_a_mounted_folder_can_not_be_used(lab, tmp_path):
    """A folder is mounted for what is in it; a socket in it would lead out."""
    import dataclasses

    from ringfence.runner.local_executor import ReadOnlyMount

    with socket.socket(socket.AF_UNIX) as listener:
        path = tmp_path / "mounted" / "socket"
        path.parent.mkdir()
        (path.parent / "file").write_text("readable")
        path.parent.chmod(0o755)
        listener.bind(str(path))
        listener.listen()
        path.chmod(0o777)

        async def scenario(lab):
            mounts = (*lab.root.mounts, ReadOnlyMount(path.parent, "/opt"))
            executor = lab.make(dataclasses.replace(lab.root, mounts=mounts))
            code = """
            unix = socket.socket(socket.AF_UNIX)
            try:
                unix.connect("/opt/socket")
                result = "reached"
            except OSError as error:
                result = "failed " + os.strerror(error.errno)
            say([open("/opt/file").read(), result])
            """
            invocation_id = await lab.start(code, executor=executor)
            return (await executor.wait(invocation_id)).log

        log = lab(scenario)
    assert 'ANSWER ["readable", "failed ' in log, log
