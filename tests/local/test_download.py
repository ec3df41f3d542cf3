"""Official downloads: checked, unpacked, or given up for the build."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import platform
import tarfile

import pytest

from ringfence.local.toolchain import Source, download, resolution
from ringfence.local.toolchain.progress import Progress
from ringfence.local.toolchain.recipes import ON_DEMAND, PARTS, Download, GoBuild, Part

MACHINE = (((platform.system(), platform.machine()), ("os", "arch")),)


def archive(**files: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    return buffer.getvalue()


@pytest.fixture
def site(monkeypatch):
    """A site without a network: its content by address. Anything else is refused, as a closed site does."""
    content: dict[str, bytes] = {}

    def open_(url, timeout):
        if url not in content:
            raise download.Unavailable(f"{url}: Name or service not known")
        return io.BytesIO(content[url])

    monkeypatch.setattr(download, "_open", open_)
    return content


@pytest.fixture
def part(tmp_path):
    folder = tmp_path / "module"
    folder.mkdir()
    (folder / "go.mod").write_text("module m\n\ngo 1.20\n")
    (folder / "go.sum").write_text("")
    file = Download("https://site/tool-{os}-{arch}.tar.gz", "https://site/sums.txt", MACHINE, strip="tool/bin")
    return Part("tool", "the tool", "v1", ("tool",), (), (file,), (GoBuild(str(folder), ("m",), ("tool",), "v1"),))


def fetch(part, tmp_path):
    destination, scratch = tmp_path / "bin", tmp_path / "scratch"
    destination.mkdir()
    scratch.mkdir()
    with Progress(1, lambda line: None) as progress:
        return download.fetch(part, destination, scratch, progress.begin("x")), destination


def publish(site, data: bytes, digest: str | None = None) -> None:
    digest = digest or hashlib.sha256(data).hexdigest()
    site["https://site/tool-os-arch.tar.gz"] = data
    site["https://site/sums.txt"] = f"{'0' * 64}  other.tar.gz\n{digest}  tool-os-arch.tar.gz\n".encode()


def test_a_program_with_the_published_checksum_is_taken(site, part, tmp_path):
    publish(site, archive(**{"tool/bin/tool": "program", "tool/bin/helper": "h", "tool/README": "text"}))
    origin, folder = fetch(part, tmp_path)
    assert origin == "site"
    assert (folder / "tool").read_text() == "program"
    assert (folder / "tool").stat().st_mode & 0o111
    assert sorted(path.name for path in folder.iterdir()) == ["helper", "tool"]


def test_a_file_with_another_checksum_is_refused(site, part, tmp_path):
    publish(site, archive(**{"tool/bin/tool": "program"}), digest="1" * 64)
    with pytest.raises(download.Unavailable, match="checksum"):
        fetch(part, tmp_path)
    assert list((tmp_path / "bin").iterdir()) == []


def test_a_file_without_a_published_checksum_is_refused(site, part, tmp_path):
    publish(site, archive(**{"tool/bin/tool": "program"}))
    site["https://site/sums.txt"] = b"<html>not found</html>"
    with pytest.raises(download.Unavailable, match="no published checksum"):
        fetch(part, tmp_path)


@pytest.mark.parametrize("name", ["tool/bin/../../tool", "/tool/bin/tool", "../tool", "tool/tool"])
def test_only_the_expected_folder_of_an_archive_is_unpacked(site, part, tmp_path, name):
    publish(site, archive(**{name: "program"}))
    with pytest.raises(download.Unavailable, match="lacks tool"):
        fetch(part, tmp_path)
    assert not (tmp_path / "tool").exists()


def test_a_closed_site_leads_to_the_build_and_an_open_one_does_not(site, part, tmp_path, monkeypatch):
    built = []

    def build(self, recipe, destination, task):
        built.append(recipe.folder)
        (destination / "tool").write_text("built")
        (destination / "tool").chmod(0o755)

    monkeypatch.setattr(resolution.golang.Builder, "build", build)
    monkeypatch.setattr(resolution, "PARTS", (part,))
    lines: list[str] = []
    closed = resolution.resolve(cache=tmp_path / "closed", report=lines.append)["tool"]
    assert closed.source is Source.BUILD
    assert any("no official download (https://site/sums.txt: Name or service not known)" in line for line in lines)

    publish(site, archive(**{"tool/bin/tool": "program"}))
    opened = resolution.resolve(cache=tmp_path / "open", report=lines.append)["tool"]
    assert opened.source is Source.DOWNLOAD
    assert len(built) == 1

    off = {"PATH": "/usr/bin:/bin:/usr/local/go/bin", "RINGFENCE_DOWNLOADS": "off"}
    refused = resolution.resolve(cache=tmp_path / "off", report=lines.append, environ=off)["tool"]
    assert refused.source is Source.BUILD


def test_only_https_is_asked():
    with pytest.raises(download.Unavailable, match="not https"):
        download._open("http://site/file", 1)


@pytest.fixture
def pinned(part):
    """The part with a digest of its own and a folder of programs beside the program."""
    good = archive(**{"tool": "program", "side/helper": "h", "other/x": "x"})
    digests = (("arch", hashlib.sha512(good).hexdigest()),)
    file = Download("https://site/tool-{os}-{arch}.tar.gz", "", MACHINE, strip="", pinned=digests, folders=("side",))
    return dataclasses.replace(part, downloads=(file,)), good


def test_a_file_with_the_pinned_digest_is_taken_with_the_folder_beside_it(site, pinned, tmp_path):
    part, good = pinned
    site["https://site/tool-os-arch.tar.gz"] = good
    _, folder = fetch(part, tmp_path)
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*")) == ["side", "side/helper", "tool"]
    assert (folder / "side" / "helper").stat().st_mode & 0o111


def test_a_file_with_another_digest_than_the_pinned_one_is_refused(site, pinned, tmp_path):
    site["https://site/tool-os-arch.tar.gz"] = archive(**{"tool": "changed", "side/helper": "h"})
    with pytest.raises(download.Unavailable, match="checksum"):
        fetch(pinned[0], tmp_path)
    assert list((tmp_path / "bin").iterdir()) == []


def test_a_file_that_lacks_the_folder_beside_the_program_is_refused(site, pinned, tmp_path):
    part, _ = pinned
    alone = archive(tool="program")
    digests = (("arch", hashlib.sha512(alone).hexdigest()),)
    part = dataclasses.replace(part, downloads=(dataclasses.replace(part.downloads[0], pinned=digests),))
    site["https://site/tool-os-arch.tar.gz"] = alone
    with pytest.raises(download.Unavailable, match="lacks side"):
        fetch(part, tmp_path)


def test_a_machine_without_a_pinned_digest_has_no_official_file(site, pinned, tmp_path):
    part, good = pinned
    site["https://site/tool-os-arch.tar.gz"] = good
    part = dataclasses.replace(
        part, downloads=(dataclasses.replace(part.downloads[0], pinned=(("other", "0" * 128),)),)
    )
    with pytest.raises(download.Unavailable, match="no digest"):
        fetch(part, tmp_path)


def test_the_folder_beside_a_program_is_in_its_manifest(site, pinned, tmp_path, monkeypatch):
    part, good = pinned
    site["https://site/tool-os-arch.tar.gz"] = good
    monkeypatch.setattr(resolution, "PARTS", (part,))
    tool = resolution.resolve(cache=tmp_path / "cache", report=lambda line: None)["tool"]
    assert resolution.verify(part, tmp_path / "cache") == []
    (tool.path.parent / "side" / "helper").write_text("x")
    assert resolution.verify(part, tmp_path / "cache") == ["side/helper"]


@pytest.mark.parametrize("part", [*PARTS, *ON_DEMAND], ids=lambda part: part.name)
def test_every_official_address_is_https_and_has_checksums_beside_it_or_pinned(part):
    for entry in part.downloads:
        assert entry.url.startswith("https://")
        if entry.pinned:
            assert {digest for _, digest in entry.pinned if len(digest) == 128}
            assert {names[1] for _, names in entry.platforms} == {machine for machine, _ in entry.pinned}
            continue
        assert entry.checksums.startswith("https://")
        assert entry.url.split("/")[2] == entry.checksums.split("/")[2]
