"""Writes an OCI image layout as one archive (github.com/opencontainers/image-spec, v1.1), for `skopeo copy
oci-archive:…`, `podman load` and `docker load`; no engine is needed to make it."""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ringfence.image.tree import EPOCH, Tree, file, to_tar

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"
CREATED = datetime.datetime.fromtimestamp(EPOCH, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True, slots=True)
class Image:
    """One platform's image. layers: (what it is, tar archive), lowest first; annotations: of the manifest."""

    platform: str
    layers: Sequence[tuple[str, bytes]]
    environment: Mapping[str, str]
    command: Sequence[str]
    user: str
    annotations: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Archive:
    """data: the archive; digest: of the image index, by which a cluster pins the image; manifests: platform → digest; blobs:
    digest → bytes of everything in it, the index included."""

    data: bytes
    digest: str
    manifests: Mapping[str, str]
    blobs: Mapping[str, bytes]


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def archive(images: Sequence[Image], reference: str) -> Archive:
    """The images, one per platform, as one archive. reference: the name that engines give it, e.g. ``agent-runtime:1``."""
    blobs: dict[str, bytes] = {}

    def put(media_type: str, data: bytes, **more: Any) -> dict[str, Any]:
        digest = _digest(data)
        blobs[digest] = data
        return {"mediaType": media_type, "digest": digest, "size": len(data), **more}

    manifests = []
    for image in images:
        system, architecture = image.platform.split("/")
        layers = [put(_LAYER, data) for _, data in image.layers]
        config = {
            "architecture": architecture,
            "os": system,
            "created": CREATED,
            "config": {
                "User": image.user,
                "Env": [f"{key}={value}" for key, value in sorted(image.environment.items())],
                "Entrypoint": list(image.command),
                "WorkingDir": "/",
            },
            "rootfs": {"type": "layers", "diff_ids": [item["digest"] for item in layers]},
            "history": [{"created": CREATED, "created_by": what} for what, _ in image.layers],
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": put(_CONFIG, _json(config)),
            "layers": layers,
            "annotations": dict(image.annotations),
        }
        manifests.append(put(MANIFEST, _json(manifest), platform={"os": system, "architecture": architecture}))
    index = put(INDEX, _json({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}))
    named = {
        **index,
        "annotations": {"org.opencontainers.image.ref.name": reference, "io.containerd.image.name": reference},
    }
    tree: Tree = {
        "oci-layout": file(_json({"imageLayoutVersion": "1.0.0"})),
        "index.json": file(_json({"schemaVersion": 2, "mediaType": INDEX, "manifests": [named]})),
        **{f"blobs/{digest.replace(':', '/')}": file(data) for digest, data in blobs.items()},
    }
    digests = {image.platform: item["digest"] for image, item in zip(images, manifests, strict=True)}
    return Archive(to_tar(tree), index["digest"], digests, blobs)
