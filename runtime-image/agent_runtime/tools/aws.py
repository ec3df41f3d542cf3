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
    """A boto3 client of a service. Raises ToolError for a tool without credentials, or without a way to AWS."""
    held = surroundings.credentials
    if held is None:
        raise ToolError(f"{surroundings.declaration.name} has no credentials in this task")
    proxies = {} if surroundings.endpoint else {"https": _proxy(surroundings)}
    os.environ.update(_SEALED)
    import boto3
    from botocore.config import Config

    config = Config(
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=surroundings.declaration.timeout_seconds,
        # The tool's own time limit and the breaker are the retry policy.
        retries={"total_max_attempts": 2, "mode": "standard"},
        # The hosts that the tool's listener opens, and no other spelling of them: see ringfence/egress/aws_hosts.py.
        s3={
            "addressing_style": "path" if surroundings.endpoint else "virtual",
            "us_east_1_regional_endpoint": "regional",
        },
        account_id_endpoint_mode="disabled",
        use_dualstack_endpoint=False,
        use_fips_endpoint=False,
        ignore_configured_endpoint_urls=True,
        # Given, even when empty: botocore would look for others in the environment.
        proxies=proxies,
    )
    session = boto3.session.Session(
        aws_access_key_id=held["AccessKeyId"],
        aws_secret_access_key=held["SecretAccessKey"],
        aws_session_token=held["SessionToken"],
        region_name=surroundings.region,
    )
    made = session.client(service, endpoint_url=surroundings.endpoint, config=config)
    if proxies:
        from agent_runtime.tools import aws_connection

        aws_connection.tunnel(made)
    return made


def _proxy(surroundings: Surroundings) -> str:
    """The tool's own listener of the egress proxy: a sandbox has no other way to AWS, and resolves no names."""
    port = surroundings.declaration.port
    if surroundings.proxy_host is None or port is None:
        raise ToolError(f"{surroundings.declaration.name} has no way to AWS in this task")
    return f"http://{surroundings.proxy_host}:{port}"


def preload() -> None:
    """Imports boto3 and the models of the services in use."""
    os.environ.update(_SEALED)
    import boto3

    from agent_runtime.tools import aws_connection  # noqa: F401 (loaded for later)

    session = boto3.session.Session("preload", "preload", region_name="us-east-1")
    for service in ("s3", "dynamodb", "ses"):
        session.client(service)


def fault(error: Exception) -> ToolError:
    """An AWS error as the model may read it: its code, without the message, which may quote ARNs and request ids."""
    code = getattr(error, "response", {}).get("Error", {}).get("Code")
    return ToolError(f"AWS refused: {code}" if code else f"AWS could not be reached: {type(error).__name__}")
