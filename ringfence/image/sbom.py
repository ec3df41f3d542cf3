"""The image's software bill of materials, CycloneDX 1.6 in JSON, out of the two locks: what is listed is what is built.

No date and a serial number that follows from the content, so that the same locks give the same bytes.
"""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ringfence.image import lock
from ringfence.image.contents import project_version
from ringfence.image.lock import SOURCE


def sbom(platform: str, source: Path = SOURCE, title: str = "agent-runtime") -> str:
    """The bill of materials of one platform's image. title: of the image. Raises InputError for locks that can't be used."""
    described = {
        "type": "application",
        "bom-ref": title,
        "name": title,
        "version": project_version(source),
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
        "metadata": {"component": described, "properties": [{"name": "ringfence:platform", "value": platform}]},
        "components": components,
        "dependencies": [
            {"ref": title, "dependsOn": [item["bom-ref"] for item in components]},
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
