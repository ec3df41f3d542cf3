"""Official downloads: checked, unpacked, or given up for the build."""

from __future__ import annotations

import hashlib
import io
import platform
import tarfile

import pytest

from ringfence.local.toolchain import Source, download, resolution
from ringfence.local.toolchain.progress import Progress
from ringfence.local.toolchain.recipes import PARTS, Download, GoBuild, Part

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


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.name)
def test_every_official_address_is_https_and_has_checksums_beside_it(part):
    for entry in part.downloads:
        assert entry.url.startswith("https://")
        assert entry.checksums.startswith("https://")
        assert entry.url.split("/")[2] == entry.checksums.split("/")[2]
