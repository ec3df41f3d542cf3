"""The image: same bytes on each build, nothing unpinned, nothing superfluous, a bill of materials that is true."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from hypothesis import given
from hypothesis import strategies as st

from ringfence.errors import InputError, RingfenceError
from ringfence.image import COMMAND, ENVIRONMENT, Builder, contents, fetch, lock, oci, sbom
from ringfence.image.bytecode import host_platform
from ringfence.image.commands import image as image_command
from ringfence.image.relock import parsed, relock
from ringfence.image.tree import Node, checked, file, from_tar, link, to_tar, write

SOURCE = lock.SOURCE
PLATFORMS = ("linux/amd64", "linux/arm64")

# Locks


@pytest.mark.parametrize("platform", PLATFORMS)
def test_every_base_package_is_pinned_by_digest_and_size(platform):
    packages = lock.base(platform)
    assert {"python3.11-minimal", "libc6", "libssl3", "ca-certificates"} <= {package.name for package in packages}
    assert all(package.size > 0 and len(package.sha256) == 64 for package in packages)
    # No shell, no package manager, nothing that could become root.
    assert not {"bash", "dash", "busybox", "apt", "dpkg", "coreutils", "passwd", "login"} & {
        package.name for package in packages
    }


def test_both_platforms_have_the_same_packages():
    names = [[(package.name, package.version) for package in lock.base(platform)] for platform in PLATFORMS]
    assert names[0] == names[1]


def test_every_wheel_is_pinned_by_digest_and_named_by_the_project():
    names = {requirement.name for requirement in lock.wheels()}
    assert {"boto3", "genai-prices"} <= names
    assert not {"langchain-core", "mcp", "openai-agents", "opentelemetry-sdk", "ringfence"} & names


@pytest.fixture
def source(tmp_path) -> Path:
    return Path(shutil.copytree(SOURCE, tmp_path / "source", ignore=shutil.ignore_patterns("__pycache__")))


def test_a_wheel_without_a_digest_is_refused(source):
    with (source / lock.WHEEL_LOCK).open("a") as stream:
        stream.write("six==1.17.0\nidna>=3\n")
    with pytest.raises(InputError) as caught:
        lock.wheels(source)
    assert len(caught.value.problems) == 2


@pytest.mark.parametrize("change", [{"sha256": "x"}, {"path": "../../etc/passwd"}, {"surprise": 1}])
def test_a_base_package_that_cant_be_checked_is_refused(source, change):
    data = json.loads((source / lock.BASE_LOCK).read_text())
    data["platforms"]["linux/amd64"][0].update(change)
    (source / lock.BASE_LOCK).write_text(json.dumps(data))
    with pytest.raises(InputError):
        lock.base("linux/amd64", source)


def test_an_unknown_platform_is_refused_with_those_there_are():
    with pytest.raises(InputError, match="linux/arm64"):
        lock.base("windows/amd64")


# Fetching


@pytest.fixture
def mirror(monkeypatch):
    files: dict[str, bytes] = {}

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args):
            pass

        def do_GET(self):
            data = files.get(self.path)
            self.send_response(200 if data is not None else 404)
            self.end_headers()
            self.wfile.write(data or b"")

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv(fetch.MIRROR_VARIABLE, f"http://127.0.0.1:{server.server_address[1]}")
    yield files
    server.shutdown()
    server.server_close()


def _package(data: bytes, name: str = "tool", path: str = "pool/tool_1+b1.deb") -> lock.DebianPackage:
    return lock.DebianPackage(name, "1", "amd64", path, len(data), hashlib.sha256(data).hexdigest())


def test_a_package_is_taken_from_the_mirror_once(mirror, tmp_path):
    mirror["/pool/tool_1%2Bb1.deb"] = b"content"
    said: list[str] = []
    paths = fetch.debian([_package(b"content")], tmp_path / "packages", said.append)
    mirror.clear()
    assert fetch.debian([_package(b"content")], tmp_path / "packages", said.append) == paths
    assert paths[0].read_bytes() == b"content"
    assert len(said) == 1


@pytest.mark.parametrize("served", [b"c0ntent", b"content and more", b"", None])
def test_a_file_that_differs_from_its_pin_is_never_used(mirror, tmp_path, served):
    if served is not None:
        mirror["/pool/tool_1%2Bb1.deb"] = served
    with pytest.raises(RingfenceError, match="tool 1 can't be had"):
        fetch.debian([_package(b"content")], tmp_path / "packages", lambda line: None)
    assert list((tmp_path / "packages").iterdir()) == []


# Trees

_names = st.lists(st.text("abc.", min_size=1, max_size=3).filter(lambda name: name.strip(".")), min_size=1, max_size=3)
_nodes = st.builds(Node, st.sampled_from([0o644, 0o755, 0o1777]), st.binary(max_size=20))


@given(st.dictionaries(_names.map("/".join), _nodes, max_size=8), st.randoms())
def test_a_tree_gives_the_same_bytes_in_whatever_order_it_was_made(tree, chance):
    files = {path: node for path, node in tree.items() if not any(other.startswith(f"{path}/") for other in tree)}
    shuffled = list(files.items())
    chance.shuffle(shuffled)
    data = to_tar(files)
    assert data == to_tar(dict(shuffled))
    assert {path: node for path, node in from_tar(data).items() if node.data is not None} == files


def test_owners_and_times_of_the_building_machine_dont_show():
    with tarfile.open(fileobj=io.BytesIO(to_tar({"a/b": file("x"), "c": link("a/b")}))) as archive:
        members = archive.getmembers()
    assert {(item.uid, item.gid, item.uname, item.gname) for item in members} == {(0, 0, "", "")}
    assert len({item.mtime for item in members}) == 1


@pytest.mark.parametrize("path", ["../x", "a/../../x", "/../x"])
def test_a_path_that_leads_out_is_refused(path):
    with pytest.raises(ValueError, match="out of the tree"):
        checked(path)


def test_a_link_is_written_as_a_link_and_not_followed(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    inside = tmp_path / "inside"
    inside.mkdir()
    write({"link": link(str(outside)), "file": file("x", 0o755)}, inside)
    assert os.readlink(inside / "link") == str(outside)
    assert list(outside.iterdir()) == []
    assert (inside / "file").stat().st_mode & 0o777 == 0o755


# Layers


def _deb(**content: bytes) -> bytes:
    def tar(files: dict[str, tuple[bytes, int]]) -> bytes:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:xz") as archive:
            for name, (data, mode) in files.items():
                info = tarfile.TarInfo(f"./{name}")
                info.size, info.mode = len(data), mode
                archive.addfile(info, io.BytesIO(data))
        return buffer.getvalue()

    parts = {
        "debian-binary": b"2.0\n",
        "control.tar.xz": tar({"control": (b"Package: tool\nVersion: 1\n", 0o644)}),
        "data.tar.xz": tar({name: (data, 0o4755) for name, data in content.items()}),
    }
    archive = b"!<arch>\n"
    for name, data in parts.items():
        archive += (
            f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(data):<10}`\n".encode() + data + b"\n" * (len(data) % 2)
        )
    return archive


def test_a_package_goes_where_debian_merged_it_and_loses_what_no_agent_needs(tmp_path):
    data = _deb(
        **{
            "lib/x86_64-linux-gnu/libx.so": b"1",
            "usr/bin/python3.11": b"2",
            "usr/bin/passwd": b"3",
            "bin/sh": b"4",
            "usr/share/man/man1/x.1": b"5",
            "usr/share/doc/tool/copyright": b"6",
            "usr/share/doc/tool/changelog": b"7",
            "etc/cron.d/x": b"8",
        }
    )
    path = tmp_path / "x.deb"
    path.write_bytes(data)
    tree = contents.debian_layer([_package(data)], [path])
    assert tree["usr/lib/x86_64-linux-gnu/libx.so"] == Node(0o755, b"1")
    assert "usr/share/doc/tool/copyright" in tree
    assert "usr/bin/python3.11" in tree
    assert tree["var/lib/dpkg/status.d/tool"].data.startswith(b"Package: tool")
    for gone in (
        "usr/bin/passwd",
        "usr/bin/sh",
        "usr/share/man/man1/x.1",
        "usr/share/doc/tool/changelog",
        "etc/cron.d/x",
    ):
        assert gone not in tree
    assert all(node.mode & 0o6000 == 0 for node in tree.values())


def test_what_isnt_a_debian_package_is_refused(tmp_path):
    path = tmp_path / "x.deb"
    path.write_bytes(b"<html>not found</html>")
    with pytest.raises(RingfenceError, match="not an ar archive"):
        contents.debian_layer([_package(b"x")], [path])


def test_a_wheel_is_unpacked_without_its_tests_scripts_and_unused_service_models(tmp_path):
    path = tmp_path / "x-1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("x/__init__.py", "x/tests/test_x.py", "x-1.data/scripts/run", "x-1.data/purelib/y.py",
                     "botocore/data/s3/m.json", "botocore/data/iam/m.json", "botocore/data/endpoints.json"):  # fmt: skip
            archive.writestr(name, "x")
    names = {name.removeprefix(f"{contents.PACKAGES}/") for name in contents.wheel_layer([path], ("s3", "sts"))}
    assert names == {"x/__init__.py", "y.py", "botocore/data/s3/m.json", "botocore/data/endpoints.json"}


def test_a_wheel_that_would_write_outside_is_refused(tmp_path):
    path = tmp_path / "x-1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../evil.py", "x")
    with pytest.raises(RingfenceError, match="out of the tree"):
        contents.wheel_layer([path], ())


# Archive


def test_an_archive_is_a_valid_oci_layout_and_the_same_each_time():
    images = [
        oci.Image(
            platform, [("base", to_tar({"a": file(platform)}))], ENVIRONMENT, COMMAND, "1000:1000", {"title": "x"}
        )
        for platform in PLATFORMS
    ]
    made = oci.archive(images, "agent-runtime:1")
    assert made == oci.archive(images, "agent-runtime:1")
    tree = from_tar(made.data)

    def blob(descriptor):
        data = tree["blobs/" + descriptor["digest"].replace(":", "/")].data
        assert len(data) == descriptor["size"]
        assert f"sha256:{hashlib.sha256(data).hexdigest()}" == descriptor["digest"]
        return data

    (named,) = json.loads(tree["index.json"].data)["manifests"]
    assert named["digest"] == made.digest
    manifests = json.loads(blob(named))["manifests"]
    assert [f"{item['platform']['os']}/{item['platform']['architecture']}" for item in manifests] == list(PLATFORMS)
    for item in manifests:
        manifest = json.loads(blob(item))
        config = json.loads(blob(manifest["config"]))
        layers = [blob(layer) for layer in manifest["layers"]]
        assert config["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(data).hexdigest()}" for data in layers]
        assert config["config"]["User"] == "1000:1000"
        assert config["config"]["Entrypoint"] == list(COMMAND)


def test_the_container_file_says_the_same_as_the_builder():
    text = (SOURCE / "Containerfile").read_text()
    assert f"ENTRYPOINT {json.dumps(list(COMMAND))}" in text
    assert f"USER {contents.UID}:{contents.GID}" in text
    environment = next(line for line in text.splitlines() if line.startswith("ENV "))
    assert dict(item.split("=", 1) for item in environment.split()[1:]) == ENVIRONMENT


# Bill of materials


@pytest.mark.parametrize("platform", PLATFORMS)
def test_the_bill_of_materials_is_valid_and_lists_what_is_locked(platform):
    text = sbom(platform)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    listed = {(item["name"], item["version"]) for item in json.loads(text)["components"]}
    assert listed == {(item.name, item.version) for item in (*lock.base(platform), *lock.wheels())}
    assert text == sbom(platform)


def test_a_bill_of_materials_with_an_error_would_be_found():
    data = json.loads(sbom(PLATFORMS[0]))
    data["components"][0]["type"] = "thing"
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(data)) is not None


def test_the_command_prints_the_bill_of_materials():
    done = CliRunner().invoke(image_command, ["sbom", "--platform", "linux/amd64"])
    assert done.exit_code == 0
    assert done.output == sbom("linux/amd64")


# The real thing


@pytest.fixture(scope="session")
def root() -> Path:
    return Builder(lambda line: None).rootfs()


def test_the_root_holds_an_interpreter_and_no_shell(root):
    assert sorted(path.name for path in (root / "usr/bin").iterdir()) == ["python3", "python3.11"]
    assert list((root / "usr/sbin").iterdir()) == []
    programs = ("sh", "bash", "dash", "busybox", "apt", "apt-get", "dpkg", "pip", "su", "mount")
    for path in root.rglob("*"):
        if path.is_file() and not path.is_symlink():
            assert path.name not in programs, path
            assert path.stat().st_mode & 0o6000 == 0, path


def test_everything_installed_is_in_the_bill_of_materials(root):
    listed = {item["name"].lower().replace("_", "-") for item in json.loads(sbom(host_platform()))["components"]}
    wheels = {
        path.name.split("-")[0].lower().replace("_", "-") for path in (root / contents.PACKAGES).glob("*.dist-info")
    }
    packages = {path.name for path in (root / "var/lib/dpkg/status.d").iterdir()}
    assert wheels | packages <= listed
    assert len(listed) == len(wheels) + len(packages)


def _inside(root: Path, program: str) -> str:
    command = ["/usr/bin/python3", "-P", "-c", program]
    done = subprocess.run(
        command, env=ENVIRONMENT, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
        preexec_fn=lambda: (os.chroot(root), os.chdir("/"), os.setgroups([]), os.setgid(1000), os.setuid(1000)),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="chroot needs root")


@needs_root
def test_the_runtime_and_all_it_needs_load_from_bytecode_in_the_root(root):
    program = """
import sys, os
from agent_runtime import tools, __main__
tools.preload()
import genai_prices, ssl
assert len(ssl.create_default_context().get_ca_certs()) > 100
modules = [m for m in sys.modules.values() if getattr(m, "__spec__", None) and (m.__spec__.origin or "").endswith(".py")]
missing = [m.__name__ for m in modules if not os.path.exists(m.__spec__.cached)]
print(len(modules) > 200, missing, os.getuid(), [p for p in sys.path if not p.startswith("/usr")])
"""
    assert _inside(root, program) == "True [] 1000 []"


@needs_root
def test_the_entry_point_in_the_root_says_what_is_missing_and_fails(root):
    done = subprocess.run(
        COMMAND, env=ENVIRONMENT, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
        preexec_fn=lambda: (os.chroot(root), os.chdir("/"), os.setgid(1000), os.setuid(1000)),
    )  # fmt: skip
    assert done.returncode == 1
    assert "RINGFENCE_GATEWAY_URL" in json.loads(done.stderr)["message"]


def test_asking_again_gives_the_same_folder_without_a_word(root):
    said: list[str] = []
    assert Builder(said.append).rootfs() == root
    assert said == []


@pytest.mark.e2e
def test_two_builds_from_nothing_give_the_same_digest(tmp_path):
    archives = []
    for number in (1, 2):
        builder = Builder(lambda line: None, tmp_path / str(number))
        archives.append(builder.archive())
        shutil.rmtree(tmp_path / str(number))
    assert archives[0].digest == archives[1].digest
    assert archives[0].data == archives[1].data
    assert set(archives[0].manifests) == set(PLATFORMS)


def test_a_changed_module_gives_another_root(source, root):
    (source / "agent_runtime" / "loop.py").open("a").write("\nX = 1\n")
    assert Builder(lambda line: None, source=source)._key(host_platform()) != root.name.removeprefix("rootfs-")
    assert Builder(lambda line: None)._key(host_platform()) == root.name.removeprefix("rootfs-")


# Pinning anew

APT = (
    "'http://deb.debian.org/debian/pool/main/z/zlib/zlib1g_1.2%2bdfsg-1_amd64.deb' zlib1g_1%3a1.2+dfsg-1_amd64.deb 86684 SHA256:"
    + "a" * 64
)


def test_what_apt_prints_becomes_a_pin():
    (pin,) = parsed(f"Reading package lists...\n{APT}\n", ["zlib1g"])
    assert pin == {
        "name": "zlib1g",
        "version": "1:1.2+dfsg-1",
        "architecture": "amd64",
        "path": "debian/pool/main/z/zlib/zlib1g_1.2+dfsg-1_amd64.deb",
        "size": 86684,
        "sha256": "a" * 64,
    }
    assert lock.DebianPackage(**pin).name == "zlib1g"


def test_a_package_that_apt_doesnt_know_is_named():
    with pytest.raises(RingfenceError, match="libnone"):
        parsed(APT, ["libnone", "zlib1g"])


def test_without_apt_the_remedy_is_said(monkeypatch, source):
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(RingfenceError, match="remedy"):
        relock(source)
