"""`python -m ringfence.local.providers.aws`: the plugin process that the engine starts."""

from __future__ import annotations

from importlib.metadata import version

from ringfence.local.providers.aws.backend import AwsBackend
from ringfence.local.providers.base import serve

if __name__ == "__main__":
    # The plugin reports the version of the SDK whose types it serves.
    serve(AwsBackend(), "aws", version("pulumi-aws"))
