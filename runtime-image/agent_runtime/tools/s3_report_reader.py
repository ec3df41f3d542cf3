"""s3-report-reader: lists and reads report files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent_runtime.declaration import Declaration
from agent_runtime.errors import ToolError
from agent_runtime.tool import Tool
from agent_runtime.tools import aws
from agent_runtime.tools.surroundings import Surroundings

MAX_OBJECT_BYTES = 1 << 20
MAX_KEYS = 200
_PARAMETERS = {
    "type": "object",
    "properties": {
        "action": {"type": "string", "enum": ["list", "read"]},
        "bucket": {"type": "string", "description": "the reports' bucket; the tool's own when left out"},
        "key": {"type": "string", "description": "read: the file"},
        "prefix": {
            "type": "string",
            "description": "list: beginning of the files' names; the tool's own when left out",
        },
    },
    "required": ["action"],
    "additionalProperties": False,
}


def tool(surroundings: Surroundings) -> Tool:
    """The tool for one task."""
    declaration = surroundings.declaration
    own_bucket, own_prefix = _own(declaration)

    def run(arguments: Mapping[str, Any]) -> Any:
        bucket = arguments.get("bucket") or own_bucket
        if not bucket:
            raise ToolError("bucket is missing")
        s3 = aws.client("s3", surroundings)
        try:
            if arguments.get("action") == "list":
                return _listed(s3, bucket, arguments.get("prefix") or own_prefix)
            if not arguments.get("key"):
                raise ToolError("key is missing")
            return _read(s3, bucket, arguments["key"])
        except ToolError:
            raise
        except Exception as error:
            raise aws.fault(error) from error

    return Tool(declaration.name, declaration.description or "Lists and reads report files.", _PARAMETERS, run)


def _own(declaration: Declaration) -> tuple[str, str]:
    """The bucket and the prefix that the grants name; empty where they name none."""
    listing = [grant for grant in declaration.grants if "s3:ListBucket" in grant.actions]
    buckets = [arn.partition(":::")[2] for grant in listing for arn in grant.resources]
    values = [keys.get("s3:prefix", ()) for grant in listing for keys in grant.conditions.values()]
    prefixes = [value.rstrip("*") for items in values for value in items]
    return next((name for name in buckets if "*" not in name), ""), next(iter(prefixes), "")


def _listed(s3: Any, bucket: str, prefix: str) -> dict[str, Any]:
    answer = s3.list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=MAX_KEYS)
    files = [{"key": item["Key"], "bytes": item["Size"]} for item in answer.get("Contents", ())]
    return {"bucket": bucket, "files": files, "more": bool(answer.get("IsTruncated"))}


def _read(s3: Any, bucket: str, key: str) -> str:
    body = s3.get_object(Bucket=bucket, Key=key)["Body"]
    try:
        data = body.read(MAX_OBJECT_BYTES + 1)
    finally:
        body.close()
    if len(data) > MAX_OBJECT_BYTES:
        raise ToolError(f"the file is larger than {MAX_OBJECT_BYTES} bytes")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise ToolError("the file is not UTF-8 text") from None
