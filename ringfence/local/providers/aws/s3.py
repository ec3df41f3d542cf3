"""S3: buckets, what is configured on them, and objects."""

# ruff: noqa: RUF012 - class attributes declare a type and are never mutated

from __future__ import annotations

import base64
from typing import Any, ClassVar
from urllib.parse import urlencode

from ringfence.local.providers.aws.cloud import Cloud
from ringfence.local.providers.aws.resource import AutoName, Resource, Tagging, Values, dig, is_gone
from ringfence.local.providers.aws.schema import (
    Props,
    boolean,
    integer,
    mapping,
    policy,
    record,
    record_set,
    string,
    tags,
)
from ringfence.local.providers.base import CheckFailure


class Bucket(Resource):
    """A bucket. What is configured on it is declared by the other types here."""

    pulumi_type = "aws:s3/bucket:Bucket"
    service = "s3"
    props = {
        "bucket": string(replace=True),
        "forceDestroy": boolean(api=None, default=False, write_only=True),
        "objectLockEnabled": boolean(api="ObjectLockEnabledForBucket", replace=True, default=False),
        "tags": tags(),
    }
    known = {
        "arn": "arn:{partition}:s3:::{bucket}",
        "bucketDomainName": "{bucket}.s3.amazonaws.com",
        "bucketRegionalDomainName": "{bucket}.s3.{region}.amazonaws.com",
        "bucketRegion": "{region}",
        "region": "{region}",
    }
    auto_name = AutoName("bucket", 63)
    id_property = "bucket"
    create_operation = "create_bucket"
    read_operation = "head_bucket"
    delete_operation = "delete_bucket"
    keys = {"Bucket": "id"}
    tagging = Tagging(create=None)

    def problems(self, inputs: Values) -> list[CheckFailure]:
        name = inputs["bucket"]
        if isinstance(name, str) and (len(name) < 3 or len(name) > 63 or name != name.lower() or "_" in name):
            return [CheckFailure("bucket", f"is {name}; S3 takes 3 to 63 lower-case letters, digits, dots and hyphens")]
        return []

    def create(self, cloud: Cloud, inputs: Values) -> tuple[str, Values]:
        parameters = self.request(inputs)
        if cloud.region != "us-east-1":
            parameters["CreateBucketConfiguration"] = {"LocationConstraint": cloud.region}
        cloud.call("s3", "create_bucket", **parameters)
        return inputs["bucket"], {}

    def describe(self, cloud: Cloud, id_: str, state: Values) -> Values | None:
        cloud.call("s3", "head_bucket", Bucket=id_)
        lock = _configuration(cloud, "get_object_lock_configuration", id_)
        enabled = dig(lock, "ObjectLockConfiguration.ObjectLockEnabled") == "Enabled"
        return {"Bucket": id_, "ObjectLockEnabledForBucket": enabled}

    def read_tags(self, cloud: Cloud, id_: str, state: Values, described: Values) -> dict[str, str]:
        return Tagging().decode((_configuration(cloud, "get_bucket_tagging", id_) or {}).get("TagSet"))

    def update_tags(self, cloud: Cloud, id_: str, state: Values, old: Any, new: Any) -> None:
        if new:
            cloud.call("s3", "put_bucket_tagging", Bucket=id_, Tagging={"TagSet": Tagging().encode(new)})
        else:
            cloud.call("s3", "delete_bucket_tagging", Bucket=id_)

    def delete(self, cloud: Cloud, id_: str, state: Values) -> None:
        if state.get("forceDestroy"):
            for page in cloud.client("s3").get_paginator("list_object_versions").paginate(Bucket=id_):
                for version in (*page.get("Versions", ()), *page.get("DeleteMarkers", ())):
                    where = {"Bucket": id_, "Key": version["Key"], "VersionId": version["VersionId"]}
                    cloud.call("s3", "delete_object", BypassGovernanceRetention=True, **where)
        super().delete(cloud, id_, state)


def _configuration(cloud: Cloud, operation: str, bucket: str) -> Values | None:
    """What is configured on a bucket, None when nothing is. Raises when the bucket itself is gone."""
    from botocore.exceptions import ClientError

    try:
        return cloud.call("s3", operation, Bucket=bucket)
    except ClientError as error:
        if is_gone(error) and dig(error.response, "Error.Code") != "NoSuchBucket":
            return None
        raise


class BucketConfiguration(Resource):
    """Something configured on one bucket. Its id is the bucket's name.

    wrapper: the member of the request that holds what is configured; answer: that of the response.
    """

    service = "s3"
    id_property = "bucket"
    keys = {"Bucket": "id"}
    wrapper: ClassVar[str] = ""
    answer: ClassVar[str] = ""

    def request(self, inputs: Values) -> Values:
        values = super().request(inputs)
        bucket = values.pop("Bucket")
        return {"Bucket": bucket, self.wrapper: values} if self.wrapper else {"Bucket": bucket, **values}

    def describe(self, cloud: Cloud, id_: str, state: Values) -> Values | None:
        found = _configuration(cloud, self.read_operation, id_)
        found = dig(found, self.answer) if found is not None else None
        return {"Bucket": id_, **found} if found else None

    def update(self, cloud: Cloud, id_: str, old: Values, new: Values, changed: frozenset[str]) -> None:
        cloud.call("s3", self.create_operation, **self.request(new))


_BUCKET = string(required=True, replace=True)


class BucketVersioning(BucketConfiguration):
    """A bucket's versioning. Deleting suspends it; a bucket with Object Lock keeps it."""

    pulumi_type = "aws:s3/bucketVersioning:BucketVersioning"
    props = {
        "bucket": _BUCKET,
        "versioningConfiguration": record(
            {"status": string(required=True), "mfaDelete": string(api="MFADelete", computed=True)}, required=True
        ),
    }
    create_operation = "put_bucket_versioning"
    read_operation = "get_bucket_versioning"

    def problems(self, inputs: Values) -> list[CheckFailure]:
        status = dig(inputs, "versioningConfiguration.status")
        if isinstance(status, str) and status not in ("Enabled", "Suspended", "Disabled"):
            return [CheckFailure("versioningConfiguration.status", f"is {status}; use Enabled, Suspended or Disabled")]
        return []

    def create(self, cloud: Cloud, inputs: Values) -> tuple[str, Values]:
        # A bucket that was never versioned is "Disabled", which can't be asked for.
        if inputs["versioningConfiguration"]["status"] != "Disabled":
            cloud.call("s3", "put_bucket_versioning", **self.request(inputs))
        return inputs["bucket"], {}

    def describe(self, cloud: Cloud, id_: str, state: Values) -> Values | None:
        answer = cloud.call("s3", "get_bucket_versioning", Bucket=id_)
        seen = {"Status": answer.get("Status", "Disabled")}
        if answer.get("MFADelete"):
            seen["MFADelete"] = answer["MFADelete"]
        return {"Bucket": id_, "VersioningConfiguration": seen}

    def delete(self, cloud: Cloud, id_: str, state: Values) -> None:
        from botocore.exceptions import ClientError

        if dig(state, "versioningConfiguration.status") == "Enabled":
            try:
                cloud.call("s3", "put_bucket_versioning", Bucket=id_, VersioningConfiguration={"Status": "Suspended"})
            except ClientError as error:
                if dig(error.response, "Error.Code") != "InvalidBucketState":
                    raise


class BucketObjectLockConfiguration(BucketConfiguration):
    """The default retention of a bucket with Object Lock."""

    pulumi_type = "aws:s3/bucketObjectLockConfiguration:BucketObjectLockConfiguration"
    wrapper = answer = "ObjectLockConfiguration"
    props = {
        "bucket": _BUCKET,
        "objectLockEnabled": string(default="Enabled", replace=True),
        "rule": record(
            {
                "defaultRetention": record(
                    {"mode": string(required=True), "days": integer(), "years": integer()}, required=True
                )
            }
        ),
    }
    create_operation = "put_object_lock_configuration"
    read_operation = "get_object_lock_configuration"

    def state_of(self, described: Values) -> Values:
        state = super().state_of(described)
        retention = dig(state, "rule.defaultRetention") or {}
        # moto shows the unit that isn't used as 0.
        if retention:
            state["rule"] = {"defaultRetention": {name: value for name, value in retention.items() if value}}
        return state

    def delete(self, cloud: Cloud, id_: str, state: Values) -> None:
        configuration = {"ObjectLockEnabled": "Enabled"}
        cloud.call("s3", "put_object_lock_configuration", Bucket=id_, ObjectLockConfiguration=configuration)


class BucketServerSideEncryptionConfiguration(BucketConfiguration):
    """A bucket's default encryption."""

    pulumi_type = "aws:s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration"
    wrapper = answer = "ServerSideEncryptionConfiguration"
    props = {
        "bucket": _BUCKET,
        "rules": record_set(
            {
                "applyServerSideEncryptionByDefault": record(
                    {
                        "sseAlgorithm": string(api="SSEAlgorithm", required=True),
                        "kmsMasterKeyId": string(api="KMSMasterKeyID"),
                    }
                ),
                "bucketKeyEnabled": boolean(default=False),
            },
            required=True,
        ),
    }
    create_operation = "put_bucket_encryption"
    read_operation = "get_bucket_encryption"
    delete_operation = "delete_bucket_encryption"


class BucketPublicAccessBlock(BucketConfiguration):
    """What a bucket blocks of public access."""

    pulumi_type = "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock"
    wrapper = answer = "PublicAccessBlockConfiguration"
    props = {
        "bucket": _BUCKET,
        "blockPublicAcls": boolean(default=False),
        "blockPublicPolicy": boolean(default=False),
        "ignorePublicAcls": boolean(default=False),
        "restrictPublicBuckets": boolean(default=False),
    }
    create_operation = "put_public_access_block"
    read_operation = "get_public_access_block"
    delete_operation = "delete_public_access_block"


class BucketPolicy(BucketConfiguration):
    """A bucket's policy."""

    pulumi_type = "aws:s3/bucketPolicy:BucketPolicy"
    props = {"bucket": _BUCKET, "policy": policy(required=True)}
    create_operation = "put_bucket_policy"
    read_operation = "get_bucket_policy"
    delete_operation = "delete_bucket_policy"


class BucketOwnershipControls(BucketConfiguration):
    """Who owns the objects that others write to a bucket."""

    pulumi_type = "aws:s3/bucketOwnershipControls:BucketOwnershipControls"
    answer = "OwnershipControls"
    props = {"bucket": _BUCKET, "rule": record({"objectOwnership": string(required=True)}, api=None, required=True)}
    create_operation = "put_bucket_ownership_controls"
    read_operation = "get_bucket_ownership_controls"
    delete_operation = "delete_bucket_ownership_controls"

    def request(self, inputs: Values) -> Values:
        rule = self.encode(self.props["rule"].fields or {}, inputs["rule"])
        return {"Bucket": inputs["bucket"], "OwnershipControls": {"Rules": [rule]}}

    def state_of(self, described: Values) -> Values:
        state = super().state_of(described)
        if described.get("Rules"):
            state["rule"] = self.decode(self.props["rule"].fields or {}, described["Rules"][0])
        return state


class BucketLogging(BucketConfiguration):
    """Where a bucket's access log goes."""

    pulumi_type = "aws:s3/bucketLogging:BucketLogging"
    answer = "LoggingEnabled"
    props = {
        "bucket": _BUCKET,
        "targetBucket": string(required=True),
        "targetPrefix": string(required=True),
    }
    create_operation = "put_bucket_logging"
    read_operation = "get_bucket_logging"

    def request(self, inputs: Values) -> Values:
        values = super().request(inputs)
        bucket = values.pop("Bucket")
        return {"Bucket": bucket, "BucketLoggingStatus": {"LoggingEnabled": values}}

    def delete(self, cloud: Cloud, id_: str, state: Values) -> None:
        cloud.call("s3", "put_bucket_logging", Bucket=id_, BucketLoggingStatus={})


_EXPIRATION: Props = {"date": string(), "days": integer(), "expiredObjectDeleteMarker": boolean(default=False)}
_FILTER: Props = {
    "prefix": string(),
    "objectSizeGreaterThan": integer(),
    "objectSizeLessThan": integer(),
    "tag": record({"key": string(required=True), "value": string(required=True)}),
    "and": record(
        {
            "prefix": string(),
            "objectSizeGreaterThan": integer(),
            "objectSizeLessThan": integer(),
            "tags": mapping(pairs=("Key", "Value")),
        }
    ),
}


class BucketLifecycleConfiguration(BucketConfiguration):
    """When a bucket's objects move to other storage or expire."""

    pulumi_type = "aws:s3/bucketLifecycleConfiguration:BucketLifecycleConfiguration"
    wrapper = "LifecycleConfiguration"
    props = {
        "bucket": _BUCKET,
        "rules": record_set(
            {
                "id": string(api="ID", required=True),
                "status": string(required=True),
                "prefix": string(),
                "filter": record(_FILTER),
                "expiration": record(_EXPIRATION),
                "transitions": record_set({"date": string(), "days": integer(), "storageClass": string(required=True)}),
                "noncurrentVersionExpiration": record(
                    {"noncurrentDays": integer(required=True), "newerNoncurrentVersions": integer()}
                ),
                "noncurrentVersionTransitions": record_set(
                    {
                        "noncurrentDays": integer(required=True),
                        "newerNoncurrentVersions": integer(),
                        "storageClass": string(required=True),
                    }
                ),
                "abortIncompleteMultipartUpload": record({"daysAfterInitiation": integer()}),
            },
            required=True,
        ),
    }
    create_operation = "put_bucket_lifecycle_configuration"
    read_operation = "get_bucket_lifecycle_configuration"
    delete_operation = "delete_bucket_lifecycle"

    def request(self, inputs: Values) -> Values:
        parameters = super().request(inputs)
        for rule in parameters["LifecycleConfiguration"]["Rules"]:
            # S3 wants a filter in every rule; an empty prefix means the whole bucket.
            if not rule.get("Filter") and "Prefix" not in rule:
                rule["Filter"] = {"Prefix": ""}
        return parameters


class BucketObjectv2(Resource):
    """An object with its content given inline. Its id is ``<bucket>/<key>``."""

    pulumi_type = "aws:s3/bucketObjectv2:BucketObjectv2"
    service = "s3"
    props = {
        "bucket": _BUCKET,
        "key": string(replace=True),
        "content": string(api=None, write_only=True),
        "contentBase64": string(api=None, write_only=True),
        "contentType": string(default="application/octet-stream"),
        "cacheControl": string(),
        "contentEncoding": string(),
        "contentDisposition": string(),
        "serverSideEncryption": string(computed=True),
        "kmsKeyId": string(api="SSEKMSKeyId", computed=True),
        "bucketKeyEnabled": boolean(computed=True),
        "storageClass": string(computed=True),
        "metadata": mapping(),
        "sourceHash": string(api=None, write_only=True),
        "forceDestroy": boolean(api=None, default=False, write_only=True),
        "tags": tags(),
    }
    outputs = {"versionId": "VersionId", "etag": "ETag"}
    known = {"arn": "arn:{partition}:s3:::{bucket}/{key}"}
    auto_name = AutoName("key", 1024)
    create_operation = "put_object"
    tagging = Tagging(create="Tagging")

    def problems(self, inputs: Values) -> list[CheckFailure]:
        if "content" in inputs and "contentBase64" in inputs:
            return [CheckFailure("content", "is given beside contentBase64; give one of them")]
        if isinstance(text := inputs.get("contentBase64"), str):
            try:
                base64.b64decode(text, validate=True)
            except ValueError as error:
                return [CheckFailure("contentBase64", f"is not base64: {error}")]
        return []

    def request(self, inputs: Values) -> Values:
        encoded = inputs.get("contentBase64")
        body = base64.b64decode(encoded) if isinstance(encoded, str) else str(inputs.get("content", "")).encode()
        return super().request(inputs) | {"Body": body}

    def create_tags(self, given: Any) -> Values:
        return {"Tagging": urlencode(sorted(given.items()))}

    def identify(self, inputs: Values, described: Values) -> str:
        return f"{inputs['bucket']}/{inputs['key']}"

    def parameters(self, cloud: Cloud, id_: str, state: Values) -> Values:
        bucket, _, key = id_.partition("/")
        return {"Bucket": bucket, "Key": key}

    def describe(self, cloud: Cloud, id_: str, state: Values) -> Values | None:
        where = self.parameters(cloud, id_, state)
        found = cloud.call("s3", "head_object", **where)
        # Changed content shows as a changed ETag; the content itself isn't fetched.
        if state.get("etag") and state["etag"] != found.get("ETag", "").strip('"'):
            found["content"] = ""
        return where | found

    def state_of(self, described: Values) -> Values:
        state = super().state_of(described)
        if "etag" in state:
            state["etag"] = state["etag"].strip('"')
        if "content" in described:
            state |= {"content": "", "contentBase64": ""}
        return state

    def read_tags(self, cloud: Cloud, id_: str, state: Values, described: Values) -> dict[str, str]:
        return Tagging().decode(cloud.call("s3", "get_object_tagging", **self.parameters(cloud, id_, state))["TagSet"])

    def update(self, cloud: Cloud, id_: str, old: Values, new: Values, changed: frozenset[str]) -> Values:
        parameters = self.request(new)
        if new.get("tags"):
            parameters |= self.create_tags(new["tags"])
        return self.state_of(cloud.call("s3", "put_object", **parameters))

    def update_tags(self, cloud: Cloud, id_: str, state: Values, old: Any, new: Any) -> None:
        tagging = {"TagSet": Tagging().encode(new)}
        cloud.call("s3", "put_object_tagging", Tagging=tagging, **self.parameters(cloud, id_, state))

    def delete(self, cloud: Cloud, id_: str, state: Values) -> None:
        where = self.parameters(cloud, id_, state)
        versions = cloud.client("s3").get_paginator("list_object_versions")
        for page in versions.paginate(Bucket=where["Bucket"], Prefix=where["Key"]):
            for version in (*page.get("Versions", ()), *page.get("DeleteMarkers", ())):
                if version["Key"] == where["Key"]:
                    force = {"BypassGovernanceRetention": True} if state.get("forceDestroy") else {}
                    cloud.call("s3", "delete_object", VersionId=version["VersionId"], **where, **force)


RESOURCES = (
    Bucket,
    BucketVersioning,
    BucketObjectLockConfiguration,
    BucketServerSideEncryptionConfiguration,
    BucketPublicAccessBlock,
    BucketPolicy,
    BucketOwnershipControls,
    BucketLogging,
    BucketLifecycleConfiguration,
    BucketObjectv2,
)
