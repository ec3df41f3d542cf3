"""`ringfence serve`: agent tasks over HTTP."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import click

from ringfence.errors import InputError, Problem
from ringfence.local.console import Clock
from ringfence.local.lifecycle import Embedded, find_project, home_of
from ringfence.redaction import MaskedOutput
from ringfence.runner.assembly import ControlSide
from ringfence.service.app import application
from ringfence.service.desk import Desk
from ringfence.service.identity import MAX_LEEWAY_S, Oidc
from ringfence.service.keys import ALGORITHMS, FileKeys, RemoteKeys
from ringfence.service.limits import Rate
from ringfence.service.metrics import Metrics
from ringfence.service.routes import Parts, Rates
from ringfence.service.server import Listen, server
from ringfence.service.store import Store
from ringfence.settings import load_stack

STORE = Path("service", "requests.sqlite")
# Failed proofs of identity of one source that are recorded each minute.
UNKNOWN_PER_MINUTE = 30
_FILE = click.Path(path_type=Path, dir_okay=False)


def _oidc(given: Mapping[str, Any]) -> Oidc | None:
    """The provider; None when no issuer is named. Raises InputError."""
    issuer, audience, jwks = given["oidc_issuer"], given["oidc_audience"], given["oidc_jwks"]
    if not issuer:
        stray = [name for name, value in (("--oidc-audience", audience), ("--oidc-jwks", jwks)) if value]
        if stray:
            raise InputError([Problem(name, "", "goes with --oidc-issuer", "give both") for name in stray])
        return None
    file = bool(jwks) and not jwks.startswith("https://")
    found = []
    if not audience:
        found.append(Problem("--oidc-audience", "", "is missing", "name this service as the provider knows it"))
    if not file and not issuer.startswith("https://"):
        found.append(
            Problem("--oidc-issuer", "", f"{issuer!r} is no https address", "give the issuer, or --oidc-jwks FILE")
        )
    if found:
        raise InputError(found)
    keys = FileKeys(Path(jwks)) if file else RemoteKeys(issuer, jwks)
    algorithms = tuple(given["oidc_algorithms"].split(","))
    if unknown := sorted(set(algorithms) - set(ALGORITHMS)):
        remedy = f"some of {', '.join(ALGORITHMS)}"
        raise InputError([Problem("--oidc-algorithms", "", f"{', '.join(unknown)} is not taken", remedy)])
    return Oidc(
        issuer, audience, keys, given["oidc_user_claim"], given["oidc_groups_claim"], algorithms, given["clock_skew"]
    )


def _rates(given: Mapping[str, Any]) -> Rates:
    """A third of a minute's calls at once, a minute's tasks at once."""
    calls, runs = given["calls_per_minute"], given["runs_per_minute"]
    return Rates(Rate(calls, max(1, calls // 3)), Rate(runs, runs), Rate(UNKNOWN_PER_MINUTE, UNKNOWN_PER_MINUTE))


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="address to listen on; another needs TLS")
@click.option("--port", default=8443, show_default=True, type=click.IntRange(0, 65535), help="port")
@click.option("--tls-certificate", "certificate", type=_FILE, help="PEM")
@click.option("--tls-key", "key", type=_FILE, help="PEM")
@click.option(
    "--client-ca", type=_FILE, help="take client certificates of this authority: CN is the user, O the groups"
)
@click.option("--oidc-issuer", default="", help="identity provider; its tokens are taken as bearer tokens")
@click.option("--oidc-audience", default="", help="what a token's aud must name")
@click.option("--oidc-jwks", default="", help="key set: an https address or a file  [default: the issuer's discovery]")
@click.option("--oidc-user-claim", default="sub", show_default=True, help="claim that names the user")
@click.option("--oidc-groups-claim", default="groups", show_default=True, help="claim that lists the groups")
@click.option("--oidc-algorithms", default="RS256,ES256", show_default=True, help="what the provider signs with")
@click.option("--clock-skew", default=30, show_default=True, type=click.IntRange(0, MAX_LEEWAY_S), help="seconds")
@click.option(
    "--executor", type=click.Choice(["local", "kubernetes"]), default="local", show_default=True, help="where tasks run"
)
@click.option(
    "--warm", default=0, show_default=True, type=click.IntRange(0, 100), help="sandboxes that are kept waiting"
)
@click.option(
    "--script", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="steps of the scripted model"
)
@click.option("--model", default="", help="model of tasks that name none")
@click.option("--max-running", default=20, show_default=True, type=click.IntRange(1, 5000), help="tasks at once")
@click.option(
    "--max-open", default=1000, show_default=True, type=click.IntRange(1, 100_000), help="tasks accepted and not ended"
)
@click.option("--calls-per-minute", default=600, show_default=True, type=click.IntRange(1), help="of each caller")
@click.option(
    "--runs-per-minute", default=60, show_default=True, type=click.IntRange(1), help="new tasks of each caller"
)
@click.option(
    "--drain-seconds", default=30, show_default=True, type=click.IntRange(0, 600), help="for running tasks, at the end"
)
@click.option("--stack", "-s", default="local", show_default=True, help="stack to work on")
@click.option(
    "--project", type=click.Path(path_type=Path, exists=True, file_okay=False), default=Path(), help="project folder"
)
def serve(**given: Any) -> None:
    """Serve agent tasks over HTTP: OpenAPI at /openapi.json, probes at /healthz and /readyz, counters at /metrics.

    Callers prove who they are by a bearer token (--oidc-issuer) or a client certificate (--client-ca). A TERM signal drains:
    running tasks get --drain-seconds, waiting ones are kept for the next start.
    """
    listen = Listen(given["host"], given["port"], given["certificate"], given["key"], given["client_ca"])
    listen.check()
    oidc = _oidc(given)
    if not oidc and not listen.client_ca:
        raise InputError([Problem("serve", "", "nobody could prove who they are", "give --oidc-issuer or --client-ca")])
    output = MaskedOutput().install()
    logging.basicConfig(format="%(levelname)s %(name)s %(message)s", force=True)
    clock = Clock(functools.partial(click.echo, err=True))
    asyncio.run(_serve(_control(given, clock), listen, oidc, given, clock, output))


def _control(given: Mapping[str, Any], clock: Clock) -> AbstractAsyncContextManager[ControlSide]:
    """The control side of the stack's target. Raises RingfenceError, InputError."""
    from ringfence.runner import embedded as on_this_machine

    folder = find_project(given["project"])
    stack = given["stack"]
    settings = load_stack(folder, stack)
    options = {"script": given["script"], "warm": given["warm"], "max_concurrent": given["max_running"]}
    if settings.target == "aws":
        from ringfence.runner import cluster

        return cluster.running(folder, stack, clock.say, **options)
    embedded = Embedded(folder, stack=stack, home=home_of(folder), clock=clock)
    found = on_this_machine.ground(embedded, stack)
    return on_this_machine.running(found, clock.say, executor=given["executor"], **options)


async def _serve(
    context: AbstractAsyncContextManager[ControlSide],
    listen: Listen,
    oidc: Oidc | None,
    given: Mapping[str, Any],
    clock: Clock,
    output: MaskedOutput,
) -> None:
    async with context as control:
        with output.also(control.secrets):
            await _serving(control, listen, oidc, given, clock)


async def _serving(
    control: ControlSide, listen: Listen, oidc: Oidc | None, given: Mapping[str, Any], clock: Clock
) -> None:
    # Waiting sandboxes begin now, not with the first task.
    await asyncio.to_thread(control.runner.start)
    store, metrics = Store(control.folder / STORE), Metrics()
    desk = Desk(control.runner, store, metrics, max_running=given["max_running"], max_open=given["max_open"])
    parts = Parts(
        control.catalog,
        desk,
        store,
        control.trail,
        control.refusals,
        metrics,
        control.redactor,
        oidc,
        listen.client_ca is not None,
        _rates(given),
        given["model"] or control.default_model,
        control.gateway.metrics_text,
        control.names,
    )
    made = server(application(parts), desk, listen, given["drain_seconds"])
    scheme = "https" if listen.certificate else "http"
    clock.say(f"serving on {scheme}://{listen.host}:{listen.port}; /openapi.json describes it")
    try:
        await made.serve()
    finally:
        store.close()
    clock.say("ended; nothing is left running")
