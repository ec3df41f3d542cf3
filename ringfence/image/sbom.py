"""The image's software bill of materials, CycloneDX 1.6 in JSON, out of the two locks: what is listed is what is built.

No date and a serial number that follows from the content, so that the same locks give the same bytes.
"""

from __future__ import annotations

import json
import re
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ringfence.image import lock
from ringfence.image.lock import SOURCE


def version(source: Path = SOURCE) -> str:
    """The agent runtime's version."""
    match = re.search(r'^version = "([^"]+)"', (source / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    return match[1] if match else "0"


def sbom(platform: str, source: Path = SOURCE) -> str:
    """The bill of materials of one platform's image."""
    runtime = {
        "type": "application",
        "bom-ref": "agent-runtime",
        "name": "agent-runtime",
        "version": version(source),
        "licenses": [{"license": {"id": "Apache-2.0"}}],
    }
    packages = [_debian(package, lock.suite(source)) for package in lock.base(platform, source)]
    wheels = [_wheel(requirement) for requirement in lock.wheels(source)]
    components = sorted([*packages, *wheels], key=lambda item: item["bom-ref"])
    document: dict[str, Any] = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": runtime, "properties": [{"name": "ringfence:platform", "value": platform}]},
        "components": components,
        "dependencies": [
            {"ref": "agent-runtime", "dependsOn": [item["bom-ref"] for item in components]},
            *({"ref": item["bom-ref"]} for item in components),
        ],
    }
    content = json.dumps(document, sort_keys=True)
    document["serialNumber"] = f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, content)}"
    return json.dumps(document, indent=2, sort_keys=True) + "\n"


def _debian(package: lock.DebianPackage, suite: str) -> dict[str, Any]:
    name, number = quote(package.name, safe=""), quote(package.version, safe="")
    url = f"pkg:deb/debian/{name}@{number}?arch={package.architecture}&distro={suite}"
    return {
        "type": "library",
        "bom-ref": url,
        "name": package.name,
        "version": package.version,
        "purl": url,
        "hashes": [{"alg": "SHA-256", "content": package.sha256}],
    }


def _wheel(requirement: lock.Requirement) -> dict[str, Any]:
    # Any of several files may be installed, so none of their digests is the component's own.
    url = f"pkg:pypi/{requirement.name.lower().replace('_', '-')}@{quote(requirement.version, safe='')}"
    return {
        "type": "library",
        "bom-ref": url,
        "name": requirement.name,
        "version": requirement.version,
        "purl": url,
    }
