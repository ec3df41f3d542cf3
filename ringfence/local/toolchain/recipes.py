"""The pinned tools: versions, how each is recognised on PATH, officially downloaded, and built from Go modules.

Pins and their reasons:
- Engine v3.220.0 is the newest that starts a Python policy pack through `pulumi-analyzer-policy-python`, which the
  newest Python host that can be built from modules (sdk v3.79.0) ships. Later engines start packs through the host,
  and that host then runs the program instead of the pack.
- The two need separate go.mod files: they are two versions of one module.
- Kubernetes v1.36.3 is the version that the cluster component deploys.
- runsc from modules is the newest snapshot of gVisor's Go branch that can be fetched whole and runs as one file: from
  release-20260914.0 on, runsc needs the folder gvisor-bin beside itself, which only the official file has. That file is
  the release that nodes install, with the same pinned digest.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from ringfence.versions import GVISOR_RELEASE, GVISOR_SHA512

MODULES = Path(__file__).resolve().parent


@dataclass(frozen=True, slots=True)
class GoBuild:
    """One `go build`.

    folder: the module's folder beside this file (go.mod and go.sum with every checksum); packages: what to build;
    outputs: file names, in the order of packages; version: of the module; ldflags: for the linker;
    copies: (module, path in it, name) of files that belong beside the program; extras: names of files of the folder
    that do, too.
    """

    folder: str
    packages: tuple[str, ...]
    outputs: tuple[str, ...]
    version: str
    ldflags: str = "-s -w"
    copies: tuple[tuple[str, str, str], ...] = ()
    extras: tuple[str, ...] = ()

    @property
    def directory(self) -> Path:
        """Where go.mod lies."""
        return MODULES / self.folder

    def inputs(self) -> bytes:
        """Everything that decides what the build makes."""
        files = b"".join((self.directory / name).read_bytes() for name in ("go.mod", "go.sum", *self.extras))
        return files + repr((self.packages, self.outputs, self.ldflags, self.copies)).encode()

    def go_version(self) -> tuple[int, ...]:
        """The lowest Go version that go.mod asks for."""
        match = re.search(
            r"^go (\d+(?:\.\d+)*)$", (self.directory / "go.mod").read_text(encoding="utf-8"), re.MULTILINE
        )
        if not match:
            raise ValueError(f"{self.directory / 'go.mod'} has no go line")
        return tuple(int(part) for part in match[1].split("."))


@dataclass(frozen=True, slots=True)
class Download:
    """An official release file.

    url and checksums have ``{os}`` and ``{arch}`` to fill from `platforms`, which is keyed by
    (platform.system(), platform.machine()); checksums is a sha256sum file, or a bare digest; empty when `pinned` holds
    the SHA-512 by arch; strip: folder inside the archive to take programs from ("" is its top; None: the file is the
    program itself); folders: of the folders below it, those whose programs belong beside, under the same name.
    """

    url: str
    checksums: str
    platforms: tuple[tuple[tuple[str, str], tuple[str, str]], ...]
    strip: str | None = None
    pinned: tuple[tuple[str, str], ...] = ()
    folders: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class OnPath:
    """How a program on PATH is recognised.

    command: prints the version, matched by `pattern`; the version must be at least `minimum` and agree with it in the
    first `same` numbers; beside: programs, or folders of them, that must lie in the same folder.
    """

    program: str
    command: tuple[str, ...]
    pattern: str
    minimum: tuple[int, ...]
    same: int
    beside: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Part:
    """A set of programs that are obtained together. title: as progress shows it; programs: names of the programs."""

    name: str
    title: str
    version: str
    programs: tuple[str, ...]
    on_path: tuple[OnPath, ...]
    downloads: tuple[Download, ...]
    builds: tuple[GoBuild, ...]

    @property
    def key(self) -> str:
        """Name of the part's folder in the cache: another recipe, go.mod or go.sum is another folder."""
        inputs = b"".join(build.inputs() for build in self.builds) + repr((self.version, self.downloads)).encode()
        return f"{self.name}-{self.version}-{hashlib.sha256(inputs).hexdigest()[:12]}"


_GO_NAMES = (
    (("Linux", "x86_64"), ("linux", "amd64")),
    (("Linux", "aarch64"), ("linux", "arm64")),
)
_PULUMI_NAMES = (
    (("Linux", "x86_64"), ("linux", "x64")),
    (("Linux", "aarch64"), ("linux", "arm64")),
    (("Darwin", "x86_64"), ("darwin", "x64")),
    (("Darwin", "arm64"), ("darwin", "arm64")),
)
_SDK = "github.com/pulumi/pulumi/sdk/v3"
_KUBERNETES_PROGRAMS = ("kube-apiserver", "kube-controller-manager", "kubectl")


def _pulumi(version: str) -> Part:
    number = version.removeprefix("v")
    site = "https://get.pulumi.com/releases/sdk"
    return Part(
        name="pulumi",
        title="Pulumi engine and Python host",
        version=version,
        programs=("pulumi", "pulumi-language-python"),
        on_path=(
            OnPath(
                "pulumi",
                ("version",),
                r"v(\d+)\.(\d+)\.(\d+)",
                tuple(int(digits) for digits in number.split(".")),
                same=1,
                # An engine without its own host would pair with one of another version.
                beside=("pulumi-language-python",),
            ),
        ),
        downloads=(
            Download(
                f"{site}/pulumi-{version}-{{os}}-{{arch}}.tar.gz",
                f"{site}/pulumi-{number}-checksums.txt",
                _PULUMI_NAMES,
                strip="pulumi",
            ),
        ),
        builds=(
            GoBuild(
                "pulumi-language-python",
                (f"{_SDK}/python/cmd/pulumi-language-python",),
                ("pulumi-language-python",),
                "v3.79.0",
                # The host starts these; they are looked for beside it.
                copies=(
                    (_SDK, "python/cmd/pulumi-language-python-exec", "host-exec.py"),
                    (_SDK, "python/dist/pulumi-analyzer-policy-python", "pulumi-analyzer-policy-python"),
                    (_SDK, "python/dist/pulumi-resource-pulumi-python", "pulumi-resource-pulumi-python"),
                ),
                extras=("pulumi-language-python-exec",),
            ),
            GoBuild(
                "pulumi",
                ("github.com/pulumi/pulumi/pkg/v3/cmd/pulumi",),
                ("pulumi",),
                version,
                ldflags=f"-s -w -X {_SDK}/go/common/version.Version={version}",
            ),
        ),
    )


def _kubernetes(version: str) -> Part:
    minimum = tuple(int(digits) for digits in version.removeprefix("v").split("."))
    pattern = r"v(\d+)\.(\d+)\.(\d+)"
    return Part(
        name="kubernetes",
        title="Kubernetes API server, controller manager and kubectl",
        version=version,
        programs=_KUBERNETES_PROGRAMS,
        on_path=(
            OnPath("kube-apiserver", ("--version",), pattern, minimum, same=2),
            OnPath("kube-controller-manager", ("--version",), pattern, minimum, same=2),
            OnPath("kubectl", ("version", "--client"), pattern, minimum, same=2),
        ),
        downloads=tuple(
            Download(
                f"https://dl.k8s.io/release/{version}/bin/{{os}}/{{arch}}/{program}",
                f"https://dl.k8s.io/release/{version}/bin/{{os}}/{{arch}}/{program}.sha256",
                _GO_NAMES,
            )
            for program in _KUBERNETES_PROGRAMS
        ),
        builds=(
            GoBuild(
                "kubernetes",
                tuple(f"k8s.io/kubernetes/cmd/{program}" for program in _KUBERNETES_PROGRAMS),
                _KUBERNETES_PROGRAMS,
                version,
                # Clients parse the server's version and fail on the placeholder that an unstamped build reports.
                ldflags=f"-s -w -X k8s.io/component-base/version.gitVersion={version}",
            ),
        ),
    )


def _etcd(version: str) -> Part:
    site = f"https://github.com/etcd-io/etcd/releases/download/{version}"
    return Part(
        name="etcd",
        title="etcd",
        version=version,
        programs=("etcd",),
        on_path=(OnPath("etcd", ("--version",), r"(\d+)\.(\d+)\.(\d+)", (3, 6, 5), same=2),),
        downloads=(
            Download(
                f"{site}/etcd-{version}-{{os}}-{{arch}}.tar.gz",
                f"{site}/SHA256SUMS",
                _GO_NAMES,
                strip=f"etcd-{version}-{{os}}-{{arch}}",
            ),
        ),
        builds=(GoBuild("etcd", ("go.etcd.io/etcd/server/v3",), ("etcd",), version),),
    )


def _runsc(release: str) -> Part:
    module = "v0.0.0-20260905035102-160fafc42237"
    return Part(
        name="runsc",
        title="gVisor's runsc",
        version=f"release-{release}",
        programs=("runsc",),
        on_path=(
            # Of releases without gvisor-bin the embedded parts stop working after 2026-10, by their own warning.
            OnPath("runsc", ("--version",), r"release-(\d{8})\.(\d+)", (20260914, 0), same=0, beside=("gvisor-bin",)),
        ),
        downloads=(
            Download(
                f"https://storage.googleapis.com/gvisor/releases/release/{release}/{{arch}}/gvisor.tar.bz2",
                "",
                tuple(((system, machine), (system, machine)) for (system, machine), _ in _GO_NAMES),
                strip="",
                pinned=tuple(GVISOR_SHA512.items()),
                folders=("gvisor-bin",),
            ),
        ),
        builds=(
            GoBuild(
                "runsc",
                ("gvisor.dev/gvisor/runsc",),
                ("runsc",),
                module,
                ldflags=f"-s -w -X gvisor.dev/gvisor/runsc/version.version={module}",
            ),
        ),
    )


# What running sandboxes on this machine needs, and standing up the environment doesn't: obtained when first asked for.
ON_DEMAND: tuple[Part, ...] = (_runsc(GVISOR_RELEASE),)
# What the environment needs. Longest build first, so that two at a time end soonest.
PARTS: tuple[Part, ...] = (_kubernetes("v1.36.3"), _pulumi("v3.220.0"), _etcd("v3.6.5"))
