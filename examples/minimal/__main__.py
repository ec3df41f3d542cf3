"""The smallest program: settings, catalog, environment. Copy it to start your own."""

from pathlib import Path

import pulumi

from ringfence.catalog import load as load_catalog
from ringfence.settings import load as load_settings
from stacks.environment import Environment

settings = load_settings(pulumi.runtime.config.CONFIG.get(), pulumi.get_stack())
Environment(settings, load_catalog(Path(__file__).parent / settings.catalog_path)).export()
