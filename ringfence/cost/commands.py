"""`ringfence cost`: the monthly estimate, every line with its source."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import click

from ringfence.catalog import load as load_catalog
from ringfence.cost.estimate import Estimate, Usage, estimate
from ringfence.settings import load_stack
from ringfence.settings.model import PROFILES


def _table(result: Estimate) -> str:
    width = max(len(line.item) for line in result.lines)
    rows = [
        f"{line.item:<{width}}  {line.quantity:>9,.2f} {line.unit:<15} × {line.unit_usd:<7g} = {line.usd:>8,.2f}   {line.source}"
        for line in result.lines
    ]
    return "\n".join([*rows, f"{'total, USD a month':<{width}}  {'':>36}{result.total_usd:>8,.2f}"])


@click.command()
@click.option("--stack", "-s", default="local", show_default=True, help="stack whose settings are priced")
@click.option(
    "--profile", type=click.Choice(sorted(PROFILES)), help="price this profile's defaults instead of the stack"
)
@click.option(
    "--project", type=click.Path(path_type=Path), default=Path(), help="project folder; default: the current one"
)
@click.option("--log-gb", type=click.FloatRange(min=0), help="GB of logs a month; default: by profile (12 or 40)")
@click.option(
    "--sandbox-hours", type=click.FloatRange(min=0), help="spot node hours a month; default: by profile (0 or 200)"
)
@click.option("--json", "as_json", is_flag=True, help="print JSON")
def cost(
    stack: str, profile: str | None, project: Path, log_gb: float | None, sandbox_hours: float | None, as_json: bool
) -> None:
    """Estimate the monthly cost of a stack's settings on AWS.

    Prices are list prices from a dated table; usage is an assumption that is printed and can be set.
    """
    settings = load_stack(project, stack)
    if profile:
        settings = settings.defaults_of(profile)
    assumed = Usage.of(settings.profile)
    usage = dataclasses.replace(
        assumed,
        log_gb=assumed.log_gb if log_gb is None else log_gb,
        sandbox_spot_hours=assumed.sandbox_spot_hours if sandbox_hours is None else sandbox_hours,
    )
    catalog = load_catalog(project / settings.catalog_path)
    result = estimate(settings, sum(len(tool.egress.domains) for tool in catalog.tools), usage)
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(result) | {"total_usd": round(result.total_usd, 2)}, indent=2))
        return
    click.echo(f"profile {settings.profile}, {result.region} list prices of {result.date}")
    click.echo(
        f"assumed: {usage.log_gb:g} GB of logs ({usage.masked_gb:g} masked), {usage.metric_months:g} custom metrics all month, "
        f"{usage.sandbox_spot_hours:g} spot node hours\n"
    )
    click.echo(_table(result))
