"""Registries' hosts and buckets: every image that the control side pulls must be reachable, and nothing besides."""

from __future__ import annotations

import json

import pytest

from components.endpoints import s3_endpoint_policy
from components.image_sources import REGISTRIES, image_buckets, image_domains
from components.vault import images
from components.vault_config import DISTRIBUTIONS
from ringfence import versions
from ringfence.errors import InputError
from ringfence.names import Names

NAMES = Names("ringfence", "test", "111122223333", "us-east-1")
PINNED = [value for name, value in vars(versions).items() if name.endswith("_IMAGE")]


def test_every_pinned_image_comes_from_a_known_registry():
    assert len(PINNED) >= 5
    assert set(image_domains(PINNED)) == {domain for registry in REGISTRIES.values() for domain in registry.domains}


def test_an_image_of_an_unknown_registry_is_refused_with_the_known_ones():
    with pytest.raises(InputError) as caught:
        image_domains(["ghcr.io/someone/something@sha256:0"])
    (problem,) = caught.value.problems
    assert problem.key == "ghcr.io" and "quay.io" in problem.remedy


def test_ecr_needs_neither_host_nor_bucket():
    own = ["111122223333.dkr.ecr.us-east-1.amazonaws.com/ringfence/sandbox@sha256:0"]
    assert image_domains(own) == () and image_buckets(own, "us-east-1") == ()


def test_docker_hub_has_all_of_its_documented_hosts():
    wanted = {
        "registry-1.docker.io",
        "auth.docker.io",
        "production.cloudflare.docker.com",
        "production.cloudfront.docker.com",
        "docker-images-prod.6aa30f8b08e16409b46e0173d6de2f56.r2.cloudflarestorage.com",
    }
    assert set(image_domains([versions.COLLECTOR_IMAGE])) == wanted == set(image_domains([versions.VAULT_IMAGE]))


@pytest.mark.parametrize(
    ("image", "region", "buckets"),
    [
        (versions.CLUSTER_AUTOSCALER_IMAGE, "us-east-1", ("prod-registry-k8s-io-us-east-1",)),
        (versions.CLUSTER_AUTOSCALER_IMAGE, "eu-central-1", ("prod-registry-k8s-io-eu-central-1",)),
        (versions.CLUSTER_AUTOSCALER_IMAGE, "eu-west-2", ("767373bbdcb8270361b96548387bf2a9ad0d48758c35-eu-west-2",)),
        # Nobody has a bucket there: a name that follows the pattern could be registered by anybody.
        (versions.CLUSTER_AUTOSCALER_IMAGE, "us-gov-west-1", ()),
        (versions.OPENBAO_IMAGE, "us-east-1", ("quayio-production-s3",)),
        (versions.OPENBAO_IMAGE, "eu-central-1", ()),
        (versions.AWS_CLI_IMAGE, "us-east-1", ()),
    ],
)
def test_layers_are_read_from_the_registrys_bucket_in_the_region(image, region, buckets):
    assert image_buckets([image], region) == buckets


def test_only_the_chosen_secrets_stores_registry_is_reached():
    openbao, vault = (image_domains(images(distribution)) for distribution in DISTRIBUTIONS)
    assert "quay.io" in openbao and "registry-1.docker.io" not in openbao
    assert "quay.io" not in vault and "registry-1.docker.io" in vault


def test_the_s3_endpoint_lets_layers_be_read_from_named_buckets_and_nothing_be_written():
    buckets = image_buckets([versions.CLUSTER_AUTOSCALER_IMAGE, versions.OPENBAO_IMAGE], "us-east-1")
    *_, layers = json.loads(s3_endpoint_policy(NAMES, buckets))["Statement"]
    assert layers["Action"] == ["s3:GetObject"] and layers["Effect"] == "Allow"
    assert layers["Resource"] == [
        "arn:aws:s3:::prod-registry-k8s-io-us-east-1/*",
        "arn:aws:s3:::quayio-production-s3/*",
    ]
    assert "*" not in buckets and len(json.loads(s3_endpoint_policy(NAMES))["Statement"]) == 2
