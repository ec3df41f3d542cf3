"""The process around the application: arguments, a loopback socket, supervision and a graceful end."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ringfence.local.operator_key import OperatorKey, operator_key
from ringfence.local.state import Home

if TYPE_CHECKING:
    from ringfence.local.aws_server.server import LoopbackServer

# botocore and moto read these when they are imported; nothing of the caller's own AWS set-up may matter here.
_FOREIGN = ("AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_CA_BUNDLE")
DEFAULT_ACCOUNT = "123456789012"
# What nearly every environment calls first. moto loads a service when it is called, which takes a second or more for
# EC2: done beforehand it doesn't delay the first `up`.
_WARM = ("ec2", "iam", "kms", "s3", "logs", "eks", "sts")
# Seconds between two looks at whether the parent is still there.
_PARENT_INTERVAL = 1.0
# Seconds that requests under way get to finish.
_DRAIN = 5.0


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), required=True, help="Port on 127.0.0.1; 0 takes a free one.")
@click.option("--home", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder for the log.")
@click.option("--account", default=DEFAULT_ACCOUNT, show_default=True, help="The account's twelve digits.")
@click.option("--parent", type=int, default=0, help="End when this process is gone.")
def main(port: int, home: Path, account: str, parent: int) -> None:
    """Serve one account's AWS APIs on 127.0.0.1. Prints one JSON line with endpoint and pid when ready."""
    if not re.fullmatch(r"\d{12}", account):
        raise click.BadParameter("twelve digits are expected", param_hint="--account")
    for name in _FOREIGN:
        os.environ.pop(name, None)
    operator = operator_key(Home.of(home))
    os.environ.update(
        MOTO_ACCOUNT_ID=account,
        MOTO_DISABLE_GLOBAL_CORS="true",
        # Roles attach policies that AWS manages; without this there are none.
        MOTO_IAM_LOAD_MANAGED_POLICIES="true",
        # moto's internal clients, which call this very server, act for the operator.
        AWS_ACCESS_KEY_ID=operator.access_key_id,
        AWS_SECRET_ACCESS_KEY=operator.secret_access_key,
        AWS_EC2_METADATA_DISABLED="true",
    )
    # moto warns about error codes that a service's model doesn't list, such as our own NotImplemented.
    warnings.filterwarnings("ignore", module=r"moto\.")
    server = _server(port, home, account, operator)
    signal.signal(signal.SIGTERM, _stopper(server))
    signal.signal(signal.SIGINT, _stopper(server))
    if parent:
        threading.Thread(target=_watch_parent, args=(parent, server), daemon=True).start()
    threading.Thread(target=_warm, daemon=True).start()
    click.echo(json.dumps({"endpoint": f"http://127.0.0.1:{server.port}", "pid": os.getpid()}))
    sys.stdout.flush()
    server.serve_forever(poll_interval=0.1)
    server.server_close()
    server.drain(_DRAIN)
    logging.shutdown()
    # Everything that matters is closed; taking moto's heap apart object by object would take seconds.
    os._exit(0)


def _server(port: int, home: Path, account: str, operator: OperatorKey) -> LoopbackServer:
    """A listening server. Imported here: the environment must be set before moto is."""
    from ringfence.local.aws_server.app import Application
    from ringfence.local.aws_server.bucket_policies import leave_undecided
    from ringfence.local.aws_server.journal import Journal
    from ringfence.local.aws_server.server import LoopbackServer

    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    leave_undecided()
    server = LoopbackServer(port, Application(account, Journal(home / "logs"), operator))
    # moto calls itself over HTTP for some integrations.
    os.environ["MOTO_PORT"] = str(server.port)
    return server


def _warm() -> None:
    from ringfence.local.aws_server.coverage import emulated
    from ringfence.local.aws_server.wire import load

    for service in _WARM:
        load(service)
        emulated(service, "")


def _stopper(server: LoopbackServer) -> Any:
    def stop(_signal: int, _frame: Any) -> None:
        # shutdown() waits for the serving loop, which runs in this very thread.
        threading.Thread(target=server.shutdown, daemon=True).start()

    return stop


def _watch_parent(parent: int, server: LoopbackServer) -> None:
    """Stops the server when the given process is gone. Its start time tells it from a later one with its number."""
    import psutil

    try:
        process = psutil.Process(parent)
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            time.sleep(_PARENT_INTERVAL)
    except psutil.NoSuchProcess:
        pass
    server.shutdown()
