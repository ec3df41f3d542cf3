"""The program that `pulumi up` runs: settings, catalog, guard, environment, outputs."""

from __future__ import annotations

import sys
from pathlib import Path

import pulumi

from ringfence.catalog import load as load_catalog
from ringfence.errors import RingfenceError
from ringfence.settings import load as load_settings
from stacks.environment import Environment
from stacks.guard import refuse_foreign_state

PROJECT_DIR = Path(__file__).resolve().parents[1]


def main() -> None:
    """Stand up the environment. Bad input ends the program with every problem and no traceback."""
    settings = load_settings(
        pulumi.runtime.config.CONFIG.get(), pulumi.get_stack(), f"Pulumi.{pulumi.get_stack()}.yaml"
    )
    refuse_foreign_state(settings)
    Environment(settings, load_catalog(PROJECT_DIR / settings.catalog_path)).export()


try:
    main()
except RingfenceError as error:
    pulumi.log.error(str(error))
    sys.exit(error.exit_code)
