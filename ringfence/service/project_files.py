"""The project's files as the service in the cluster gets them: what it reads at its start, and nothing else.

Its pod is replaced when one of them changes, and drains first. So neither settings that the control side doesn't read
belong in them, nor what only an operator's own machine uses.
"""

from __future__ import annotations

import yaml
from pydantic.alias_generators import to_camel

from ringfence.catalog import Catalog
from ringfence.errors import InputError, Problem
from ringfence.settings import Settings
from ringfence.settings.loader import PROJECT

# Where a pod's own access to its cluster lies; it stands for the kubeconfig, without which a stack needs administrators.
_OWN_ACCESS = "/var/run/secrets/kubernetes.io/serviceaccount"
_READ = ("account_id", "target", "environment", "prefix", "region")
CATALOG = "catalog"


def project_files(settings: Settings, catalog: Catalog) -> dict[str, str]:
    """Path below the project's folder → text, for stack `settings.environment`.

    Raises InputError for a catalog that was not read from a folder.
    """
    if catalog.folder is None:
        raise InputError([Problem("catalog", "", "was not read from a folder", "use ringfence.catalog.load")])
    config: dict[str, object] = {to_camel(name): getattr(settings, name) for name in _READ}
    # Only held against the region; the first two never change.
    config["availabilityZones"] = list(settings.availability_zones[:2])
    config["catalogPath"] = CATALOG
    config["kubeconfig"] = _OWN_ACCESS
    stack = {"config": {f"{PROJECT}:{key}": value for key, value in config.items()}}
    files = {
        "Pulumi.yaml": yaml.safe_dump({"name": PROJECT, "runtime": "python"}),
        f"stacks/Pulumi.{settings.environment}.yaml": yaml.safe_dump(stack, sort_keys=True),
    }
    for path in (catalog.folder / "roles.yaml", *sorted((catalog.folder / "tools").glob("*.yaml"))):
        files[f"{CATALOG}/{path.relative_to(catalog.folder)}"] = path.read_text(encoding="utf-8")
    return files
