"""Official release files: fetched where the site answers, used only when the published checksum agrees."""

from __future__ import annotations

import hashlib
import http.client
import platform
import shutil
import tarfile
import urllib.error
import urllib.request
from pathlib import Path

from ringfence.local.toolchain.progress import Task
from ringfence.local.toolchain.recipes import Download, Part

# A closed site must not hold up the build that follows.
ANSWER_S = 5.0
# Longest silence within a file that has begun to arrive.
STALL_S = 30.0
CHUNK = 1 << 20


class Unavailable(Exception):
    """The file can't be had from its official site; the message says why."""


def _open(url: str, timeout: float) -> http.client.HTTPResponse:
    if not url.startswith("https://"):
        raise Unavailable(f"{url} is not https")
    request = urllib.request.Request(url, headers={"User-Agent": "ringfence"})  # noqa: S310 - https, checked above
    try:
        return urllib.request.urlopen(request, timeout=timeout)  # noqa: S310 - https, checked above
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise Unavailable(f"{url}: {reason}") from None


def _digest(checksums: str, file_name: str) -> str:
    """The SHA-256 of `file_name` in a sha256sum file, or the only digest in a file without names."""
    for line in checksums.splitlines():
        words = line.split()
        if (len(words) == 1 or (len(words) == 2 and words[1].lstrip("*") == file_name)) and len(words[0]) == 64:
            return words[0].lower()
    raise Unavailable(f"no published checksum for {file_name}")


def _expected(download: Download, names: tuple[str, str], name: str) -> tuple[hashlib._Hash, str]:
    """A fresh hash object and the digest that it must come to for the file `name`."""
    system, machine = names
    if download.pinned:
        digests = dict(download.pinned)
        if machine not in digests:
            raise Unavailable(f"no digest of {name} is pinned for {machine}")
        return hashlib.sha512(), digests[machine]
    url = download.checksums.format(os=system, arch=machine)
    with _open(url, ANSWER_S) as answer:
        try:
            return hashlib.sha256(), _digest(answer.read(CHUNK).decode("utf-8", "replace"), name)
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(f"{url}: {error}") from None


def _fetch(download: Download, names: tuple[str, str], folder: Path, task: Task) -> Path:
    system, machine = names
    url = download.url.format(os=system, arch=machine)
    name = url.rsplit("/", 1)[1]
    digest, expected = _expected(download, names, name)
    path = folder / name
    received = 0
    # A pinned digest leaves no small file to ask for first: the file itself has to answer in that time.
    with _open(url, ANSWER_S if download.pinned else STALL_S) as answer, path.open("wb") as file:
        try:
            while chunk := answer.read(CHUNK):
                file.write(chunk)
                digest.update(chunk)
                received += len(chunk)
                task.phase = f"downloading {name} ({received >> 20} MiB)"
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(f"{url}: {error}") from None
    if digest.hexdigest() != expected:
        raise Unavailable(f"{url}: checksum {digest.hexdigest()}, expected {expected}")
    return path


def _unpack(archive: Path, strip: str, destination: Path, folders: tuple[str, ...] = ()) -> None:
    """Takes the programs of `strip`, and of `folders` directly below it, out of the archive."""
    wanted = {strip: destination} | {f"{strip}/{name}".lstrip("/"): destination / name for name in folders}
    with tarfile.open(archive) as tar:
        for member in tar:
            folder, _, name = member.name.removeprefix("./").rpartition("/")
            if member.isfile() and folder in wanted and (source := tar.extractfile(member)):
                wanted[folder].mkdir(exist_ok=True)
                with source, (wanted[folder] / name).open("wb") as file:
                    shutil.copyfileobj(source, file)
                (wanted[folder] / name).chmod(0o755)


def fetch(part: Part, destination: Path, scratch: Path, task: Task) -> str:
    """Puts the part's programs into `destination`. Returns where they came from. Raises Unavailable."""
    machine = (platform.system(), platform.machine())
    task.phase = "asking the official site"
    for download in part.downloads:
        names = dict(download.platforms).get(machine)
        if names is None:
            raise Unavailable(f"no official file for {' '.join(machine)}")
        path = _fetch(download, names, scratch, task)
        if download.strip is None:
            shutil.move(path, destination / path.name)
            (destination / path.name).chmod(0o755)
        else:
            _unpack(path, download.strip.format(os=names[0], arch=names[1]), destination, download.folders)
    missing = [program for program in part.programs if not (destination / program).is_file()]
    missing += [name for download in part.downloads for name in download.folders if not (destination / name).is_dir()]
    if missing:
        raise Unavailable(f"the official file lacks {', '.join(missing)}")
    return part.downloads[0].url.split("/")[2]
