"""AWS clients of one tool: its own credentials, its own way out, bounded in time; nothing from the machine's surroundings."""

from __future__ import annotations

import os
from typing import Any

from agent_runtime.errors import ToolError
from agent_runtime.tools.surroundings import Surroundings

CONNECT_TIMEOUT_S = 5
# No profile, no metadata service: a call without the tool's credentials fails instead of finding others.
_SEALED = {
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": "/dev/null",
    "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
}


def client(service: str, surroundings: Surroundings) -> Any:
    """A boto3 client of a service. Raises ToolError for a tool without credentials."""
    held = surroundings.credentials
    if held is None:
        raise ToolError(f"{surroundings.declaration.name} has no credentials in this task")
    os.environ.update(_SEALED)
    import boto3
    from botocore.config import Config

    port = surroundings.declaration.port
    through = surroundings.endpoint is None and surroundings.proxy_host and port
    config = Config(
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=surroundings.declaration.timeout_seconds,
        # The tool's own time limit and the breaker are the retry policy.
        retries={"total_max_attempts": 2, "mode": "standard"},
        s3={"addressing_style": "path" if surroundings.endpoint else "auto"},
        proxies={"https": f"http://{surroundings.proxy_host}:{port}"} if through else {},
    )
    session = boto3.session.Session(
        aws_access_key_id=held["AccessKeyId"],
        aws_secret_access_key=held["SecretAccessKey"],
        aws_session_token=held["SessionToken"],
        region_name=surroundings.region,
    )
    return session.client(service, endpoint_url=surroundings.endpoint, config=config)


def preload() -> None:
    """Imports boto3 and the models of the services in use."""
    os.environ.update(_SEALED)
    import boto3

    session = boto3.session.Session("preload", "preload", region_name="us-east-1")
    for service in ("s3", "dynamodb", "ses"):
        session.client(service)


def fault(error: Exception) -> ToolError:
    """An AWS error as the model may read it: its code, without the message, which may quote ARNs and request ids."""
    code = getattr(error, "response", {}).get("Error", {}).get("Code")
    return ToolError(f"AWS refused: {code}" if code else f"AWS could not be reached: {type(error).__name__}")
