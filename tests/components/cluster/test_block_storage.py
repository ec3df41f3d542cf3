"""Encrypted disks: the driver's role, its pods' place, the storage class."""

from __future__ import annotations

import json

import pytest

from components.block_storage import BlockStorage, BlockStorageArgs
from ringfence.names import Names
from tests.components.account.conftest import identity_permits

__all__ = ["identity_permits"]
NAMES = Names("ringfence", "test", "111122223333", "us-east-1")
VOLUME = "arn:aws:ec2:us-east-1:111122223333:volume/vol-1"
INSTANCE = "arn:aws:ec2:us-east-1:111122223333:instance/i-1"
OWN = {"aws:ResourceTag/ringfence.dev/environment": "test"}
MADE = OWN | {"aws:ResourceTag/ebs.csi.aws.com/cluster": "true"}
ASKED = {"aws:RequestTag/ringfence.dev/environment": "test", "ec2:Encrypted": "true"}


@pytest.fixture
def storage(record, preview):
    return lambda keep=True: record(
        lambda: BlockStorage("storage", BlockStorageArgs(NAMES, "ringfence-test", keep)) and None, preview=preview
    )


def test_the_driver_makes_only_encrypted_volumes_that_carry_the_environments_tag(storage, identity_permits):
    policy = storage().one("aws:iam/rolePolicy:RolePolicy")["policy"]
    assert identity_permits([policy], "ec2:CreateVolume", VOLUME, ASKED)
    for key, value in (("ec2:Encrypted", "false"), ("aws:RequestTag/ringfence.dev/environment", "prod")):
        assert not identity_permits([policy], "ec2:CreateVolume", VOLUME, ASKED | {key: value})
        without = {k: v for k, v in ASKED.items() if k != key}
        assert not identity_permits([policy], "ec2:CreateVolume", VOLUME, without)


@pytest.mark.parametrize("action", ["ec2:AttachVolume", "ec2:DeleteVolume", "ec2:DetachVolume", "ec2:ModifyVolume"])
def test_the_driver_touches_only_volumes_that_it_made_in_this_environment(storage, identity_permits, action):
    policy = storage().one("aws:iam/rolePolicy:RolePolicy")["policy"]
    assert identity_permits([policy], action, VOLUME, MADE)
    assert not identity_permits([policy], action, VOLUME, OWN), "a node's root volume carries the environment's tag too"
    assert not identity_permits([policy], action, VOLUME, MADE | {"aws:ResourceTag/ringfence.dev/environment": "prod"})


def test_the_driver_attaches_to_own_nodes_only_and_tags_only_what_it_makes(storage, identity_permits):
    policy = storage().one("aws:iam/rolePolicy:RolePolicy")["policy"]
    assert identity_permits([policy], "ec2:AttachVolume", INSTANCE, OWN)
    assert not identity_permits([policy], "ec2:AttachVolume", INSTANCE)
    assert identity_permits([policy], "ec2:CreateTags", VOLUME, {"ec2:CreateAction": "CreateVolume"})
    assert not identity_permits([policy], "ec2:CreateTags", VOLUME)
    assert not identity_permits([policy], "ec2:CreateSnapshot", VOLUME, MADE)


def test_the_class_encrypts_and_keeps_what_is_to_be_kept(storage):
    for keep, reclaim in ((True, "Retain"), (False, "Delete")):
        made = storage(keep).one("kubernetes:storage.k8s.io/v1:StorageClass")
        assert made["parameters"]["encrypted"] == "true" and made["parameters"]["type"] == "gp3"
        assert made["reclaimPolicy"] == reclaim and made["volumeBindingMode"] == "WaitForFirstConsumer"


def test_no_driver_pod_runs_on_a_sandbox_node_and_each_has_a_policy_first(storage):
    recording = storage()
    addon = recording.one("aws:eks/addon:Addon")
    settings = json.loads(addon["configurationValues"])
    for part in ("controller", "node"):
        required = settings[part]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        assert required["nodeSelectorTerms"][0]["matchExpressions"] == [
            {"key": "ringfence.dev/sandbox", "operator": "DoesNotExist"}
        ]
    assert settings["controller"]["extraVolumeTags"]["ringfence.dev/environment"] == "test"
    assert addon["podIdentityAssociations"][0]["serviceAccount"] == "ebs-csi-controller-sa"
    policy = recording.one("kubernetes:networking.k8s.io/v1:NetworkPolicy")
    assert policy.urn in addon.options.depends_on
    assert "ingress" not in policy["spec"] and "Ingress" in policy["spec"]["policyTypes"]
    assert recording.unparented() == []
