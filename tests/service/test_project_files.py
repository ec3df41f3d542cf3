"""What the service in the cluster reads: enough for it, the same for the same, and nothing that would replace it in vain."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from ringfence.catalog import load as load_catalog
from ringfence.errors import InputError
from ringfence.service.project_files import project_files
from ringfence.settings import Settings, load, load_stack

ROOT = Path(__file__).parents[2]
CATALOG = load_catalog(ROOT / "catalog")


def settings(**changes: Any) -> Settings:
    base = {"accountId": "123456789012", "clusterAdmins": ["arn:aws:iam::123456789012:role/operators"]}
    return load(base | changes, "dev")


def test_the_control_side_finds_its_stack_and_its_catalog_in_them(tmp_path):
    made = settings(
        environment="blue", prefix="shop", region="eu-west-1", availabilityZones=["eu-west-1b", "eu-west-1c"]
    )
    for name, text in project_files(made, CATALOG).items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    found = load_stack(tmp_path, "blue")
    assert (found.names, found.target) == (made.names, made.target)
    assert load_catalog(tmp_path / found.catalog_path) == dataclasses.replace(CATALOG, users=())
    assert (tmp_path / "Pulumi.yaml").is_file()


@pytest.mark.parametrize(
    "change",
    [
        {"monthlyBudgetUsd": 99},
        {"clusterAdmins": ["arn:aws:iam::123456789012:role/others"]},
        {"availabilityZones": ["us-east-1a", "us-east-1b", "us-east-1c"]},
        {"catalogPath": "elsewhere"},
        {"profile": "production", "systemNodes": 2},
    ],
)
def test_a_setting_that_the_control_side_does_not_read_leaves_them_as_they_were(change):
    assert project_files(settings(**change), CATALOG) == project_files(settings(), CATALOG)


def test_users_of_an_operator_s_own_machine_stay_there():
    assert CATALOG.users and not [name for name in project_files(settings(), CATALOG) if "users" in name]


def test_a_catalog_that_was_not_read_from_a_folder_is_refused():
    with pytest.raises(InputError):
        project_files(settings(), dataclasses.replace(CATALOG, folder=None))
