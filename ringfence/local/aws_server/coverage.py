"""What moto itself implements, asked from its own classes rather than from a list."""

from __future__ import annotations

import inspect
import re
from functools import cache
from importlib import import_module

from moto.core.utils import camelcase_to_underscores

# moto's S3 dispatches by query string with method names of its own, and answers a subresource that it doesn't know as
# if it were the bucket or object itself. These are the operations that it has no code for.
_ABSENT_FROM_S3 = re.compile(
    r"Metadata(Annotation|Inventory|Journal)?(Table)?Configuration|Annotation|Analytics|IntelligentTiering|Metrics"
    r"|Abac|Torrent|DirectoryBuckets|RequestPayment|^CreateSession$|^RenameObject$|^UpdateObjectEncryption$"
    r"|^WriteGetObjectResponse$|^DeleteBucketInventory"
)
# moto's package names that are not the service name without hyphens. Source: moto.backends.
_PACKAGES = {"lambda": "awslambda", "iot-data": "iotdata", "sagemaker-runtime": "sagemakerruntime"}


@cache
def _methods(service: str) -> frozenset[str] | None:
    """Names of the operations, in snake case, that moto's response classes of a service have; None: no such package."""
    from moto.core.responses import BaseResponse

    package = _PACKAGES.get(service, service.replace("-", ""))
    try:
        module = import_module(f"moto.{package}.responses")
    except ImportError:
        return None
    classes = [c for _, c in inspect.getmembers(module, inspect.isclass) if issubclass(c, BaseResponse)]
    own = [c for c in classes if c is not BaseResponse]
    inherited = {name for name, _ in inspect.getmembers(BaseResponse, inspect.isfunction)}
    return frozenset(n for c in own for n, _ in inspect.getmembers(c, inspect.isfunction) if n not in inherited)


@cache
def emulated(service: str, operation: str) -> bool:
    """Whether moto has code for an operation."""
    methods = _methods(service)
    if methods is None:
        return False
    if service == "s3":
        return not _ABSENT_FROM_S3.search(operation)
    return camelcase_to_underscores(operation) in methods
