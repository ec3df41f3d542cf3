"""What S3 operations ask for. Path-style requests only: in the other style the host names the bucket."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, unquote

from ringfence.local.aws_server.authorization.asking import Asked, Question, Service, Unmapped, View, one

_BUCKET = re.compile(r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]\Z")
# Hosts that name no bucket, with a port or without.
_PATH_STYLE_HOST = re.compile(
    r"^(localhost|\d{1,3}(\.\d{1,3}){3}|\[[0-9a-f:]+\]|s3(\.[a-z0-9-]+)?\.amazonaws\.com)(:\d+)?\Z"
)


def _bucket(view: View) -> str:
    name = view.required("Bucket")
    if not _BUCKET.match(name):
        raise Unmapped(f"{name[:80]!r} is not a bucket of this account")
    if not _PATH_STYLE_HOST.match(view.call.header("Host").lower()):
        raise Unmapped("the host names a bucket; use path-style addressing")
    return view.arn("s3", name, region="", account="")


def _object(view: View) -> str:
    return f"{_bucket(view)}/{view.required('Key')}"


def _common(view: View) -> dict[str, tuple[str, ...]]:
    """Keys that S3 sets on every request."""
    presigned = not view.call.header("Authorization")
    return {
        "s3:signatureversion": ("AWS4-HMAC-SHA256",),
        "s3:authType": ("REST-QUERY-STRING" if presigned else "REST-HEADER",),
        "s3:ResourceAccount": (view.call.account,),
        "s3:VersionId": one(view.params.get("VersionId")),
    }


def _on_object(*actions: str, versioned: str = "") -> Question:
    """Actions on the object; `versioned` replaces the first when the request names a version."""

    def ask(view: View) -> list[Asked]:
        named = list(actions)
        if versioned and view.params.get("VersionId"):
            named[0] = versioned
        return [Asked(f"s3:{action}", _object(view), _common(view)) for action in named]

    return ask


def _on_bucket(action: str) -> Question:
    def ask(view: View) -> list[Asked]:
        return [Asked(f"s3:{action}", _bucket(view), _common(view))]

    return ask


def _list(action: str) -> Question:
    def ask(view: View) -> list[Asked]:
        limit = next((view.params[name] for name in ("MaxKeys", "MaxUploads") if name in view.params), None)
        keys = {
            "s3:prefix": one(view.params.get("Prefix")),
            "s3:delimiter": one(view.params.get("Delimiter")),
            "s3:max-keys": one(None if limit is None else str(limit)),
        }
        return [Asked(f"s3:{action}", _bucket(view), _common(view) | keys)]

    return ask


def _all_buckets(view: View) -> list[Asked]:
    return [Asked("s3:ListAllMyBuckets", "*", _common(view))]


def _writing(view: View) -> dict[str, tuple[str, ...]]:
    """Keys of a request that makes an object."""
    params = view.params
    tags = parse_qsl(view.text("Tagging"), keep_blank_values=True)
    return {
        "s3:x-amz-acl": one(params.get("ACL")),
        "s3:x-amz-server-side-encryption": one(params.get("ServerSideEncryption")),
        "s3:x-amz-server-side-encryption-aws-kms-key-id": one(params.get("SSEKMSKeyId")),
        "s3:x-amz-storage-class": one(params.get("StorageClass")),
        "s3:RequestObjectTagKeys": tuple(key for key, _ in tags),
        **{f"s3:RequestObjectTag/{key}": (value,) for key, value in tags},
    }


def _put(view: View) -> list[Asked]:
    params = view.params
    context = _common(view) | _writing(view)
    actions = ["s3:PutObject"]
    if params.get("Tagging"):
        actions.append("s3:PutObjectTagging")
    if params.get("ACL") or any(name.startswith("Grant") for name in params):
        actions.append("s3:PutObjectAcl")
    if params.get("ObjectLockMode") or params.get("ObjectLockRetainUntilDate"):
        actions.append("s3:PutObjectRetention")
    if params.get("ObjectLockLegalHoldStatus"):
        actions.append("s3:PutObjectLegalHold")
    return [Asked(action, _object(view), context) for action in actions]


def _copy(view: View) -> list[Asked]:
    source = unquote(view.required("CopySource")).lstrip("/")
    path, marker, _version = source.partition("?")
    bucket, slash, key = path.partition("/")
    if not slash or not key or not _BUCKET.match(bucket):
        raise Unmapped("the source of the copy is not bucket/key")
    origin = f"{view.arn('s3', bucket, region='', account='')}/{key}"
    reading = "s3:GetObjectVersion" if marker else "s3:GetObject"
    copied = {"s3:x-amz-copy-source": (f"/{source}",)}
    made = [Asked(asked.action, asked.resource, {**asked.context, **copied}) for asked in _put(view)]
    return [Asked(reading, origin, _common(view)), *made]


def _delete_many(view: View) -> list[Asked]:
    listed = (view.params.get("Delete") or {}).get("Objects") or []
    if not listed:
        raise Unmapped("no object is named")
    bypass = bool(view.params.get("BypassGovernanceRetention"))
    asked: list[Asked] = []
    for entry in listed:
        resource = f"{_bucket(view)}/{entry['Key']}"
        version = entry.get("VersionId")
        context = _common(view) | {"s3:VersionId": one(version)}
        asked.append(Asked("s3:DeleteObjectVersion" if version else "s3:DeleteObject", resource, context))
        if bypass:
            asked.append(Asked("s3:BypassGovernanceRetention", resource, context))
    return asked


def _delete(view: View) -> list[Asked]:
    asked = _on_object("DeleteObject", versioned="DeleteObjectVersion")(view)
    if view.params.get("BypassGovernanceRetention"):
        asked.append(Asked("s3:BypassGovernanceRetention", _object(view), _common(view)))
    return asked


S3 = Service(
    {
        "AbortMultipartUpload": _on_object("AbortMultipartUpload"),
        "CompleteMultipartUpload": _on_object("PutObject"),
        "CopyObject": _copy,
        "CreateMultipartUpload": _put,
        "DeleteObject": _delete,
        "DeleteObjects": _delete_many,
        "GetBucketLocation": _on_bucket("GetBucketLocation"),
        "GetObject": _on_object("GetObject", versioned="GetObjectVersion"),
        "GetObjectTagging": _on_object("GetObjectTagging", versioned="GetObjectVersionTagging"),
        "HeadBucket": _on_bucket("ListBucket"),
        "HeadObject": _on_object("GetObject", versioned="GetObjectVersion"),
        "ListBuckets": _all_buckets,
        "ListMultipartUploads": _list("ListBucketMultipartUploads"),
        "ListObjectVersions": _list("ListBucketVersions"),
        "ListObjects": _list("ListBucket"),
        "ListObjectsV2": _list("ListBucket"),
        "ListParts": _on_object("ListMultipartUploadParts"),
        "PutObject": _put,
        "UploadPart": _on_object("PutObject"),
    },
    frozenset(
        {
            "s3:authtype", "s3:delimiter", "s3:max-keys", "s3:prefix", "s3:requestobjecttag/", "s3:requestobjecttagkeys",
            "s3:resourceaccount", "s3:signatureversion", "s3:versionid", "s3:x-amz-acl", "s3:x-amz-copy-source",
            "s3:x-amz-server-side-encryption", "s3:x-amz-server-side-encryption-aws-kms-key-id", "s3:x-amz-storage-class",
        }
    ),
)  # fmt: skip
