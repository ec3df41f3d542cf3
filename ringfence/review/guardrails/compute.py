"""Guardrails of the cluster and its nodes."""

from __future__ import annotations

from collections.abc import Iterator

from ringfence.review.facts import Unknown
from ringfence.review.guardrails.model import Guardrail, at, entries, is_set, is_true, open_to_everybody
from ringfence.review.resource import Resource

# Log types without which refused and unusual calls leave no trace.
_NEEDED_LOGS = frozenset({"audit", "authenticator"})


def _public_endpoint(resource: Resource) -> Iterator[str]:
    vpc = resource.get("vpcConfig")
    public = at(vpc, "endpointPublicAccess")
    # EKS opens the endpoint when nothing is said.
    if public is False or public == "false":
        return
    ranges = entries(at(vpc, "publicAccessCidrs"))
    wide = [str(item) if isinstance(item, str) else "a range unknown at preview" for item in ranges]
    if not ranges or any(open_to_everybody(item) for item in ranges):
        yield f"the API endpoint of cluster {resource.name} is open to {', '.join(wide) or 'the whole internet'}"


def _secrets_encryption(resource: Resource) -> Iterator[str]:
    if not is_set(at(resource.get("encryptionConfig"), "provider", "keyArn")):
        yield f"cluster {resource.name} does not encrypt Kubernetes secrets with a key of its own"


def _control_logs(resource: Resource) -> Iterator[str]:
    types = entries(resource.get("enabledClusterLogTypes"))
    missing = _NEEDED_LOGS - {item for item in types if isinstance(item, str)}
    if missing:
        yield f"cluster {resource.name} keeps no {' and no '.join(sorted(missing))} log"


def _launch_template(resource: Resource) -> Iterator[str]:
    template = resource.get("launchTemplate")
    if not (is_set(at(template, "id")) or is_set(at(template, "name"))):
        yield f"node group {resource.name} has no launch template, so its metadata service and disks keep AWS's defaults"


def _metadata_service(resource: Resource) -> Iterator[str]:
    options = resource.get("metadataOptions")
    if options is None and is_set(resource.get("launchTemplate")):
        # The template's own options hold, and the template is looked at by itself.
        return
    if at(options, "httpEndpoint") == "disabled":
        return
    if at(options, "httpTokens") != "required":
        yield f"{resource.name} leaves version 1 of the instance metadata service on (httpTokens is not required)"
    hops = at(options, "httpPutResponseHopLimit")
    known = isinstance(hops, int | float) or (isinstance(hops, str) and hops.isdigit())
    if hops is not None and (not known or float(hops) > 1):
        told = "unknown at preview" if isinstance(hops, Unknown) else f"{float(hops):g}" if known else "no number"
        yield f"{resource.name} lets metadata replies travel more than one hop (httpPutResponseHopLimit is {told})"


def _disks(resource: Resource) -> Iterator[str]:
    for mapping in entries(resource.get("blockDeviceMappings")):
        disk = at(mapping, "ebs")
        if disk is not None and not is_true(at(disk, "encrypted")):
            yield f"a disk of {resource.name} is not encrypted"
    for prop in ("rootBlockDevice", "ebsBlockDevices"):
        for disk in entries(resource.get(prop)):
            if not is_true(at(disk, "encrypted")):
                yield f"a disk of {resource.name} is not encrypted ({prop})"


def _volume(resource: Resource) -> Iterator[str]:
    if not is_true(resource.get("encrypted")):
        yield f"{resource.name} is not encrypted"


_NODES = (
    "aws:ec2/launchTemplate:",
    "aws:ec2/instance:",
    "aws:ec2/launchConfiguration:",
    "aws:ec2/spotInstanceRequest:",
)

GUARDRAILS = (
    Guardrail(
        "cluster-endpoint-private",
        "compute",
        "an API server that the internet reaches is one stolen token away from every sandbox",
        "set endpointPublicAccess to false, or publicAccessCidrs to your own ranges",
        ("aws:eks/cluster:",),
        _public_endpoint,
    ),
    Guardrail(
        "cluster-secrets-encrypted",
        "compute",
        "credentials of running invocations are Kubernetes secrets",
        "set encryptionConfig with a KMS key for resources [secrets]",
        ("aws:eks/cluster:",),
        _secrets_encryption,
    ),
    Guardrail(
        "cluster-audit-logs",
        "compute",
        "without them a refused or unusual call to the cluster leaves no trace",
        "add audit and authenticator to enabledClusterLogTypes",
        ("aws:eks/cluster:",),
        _control_logs,
    ),
    Guardrail(
        "node-group-launch-template",
        "compute",
        "AWS's defaults let pods reach the node's own credentials",
        "give the node group a launch template with metadataOptions and encrypted disks",
        ("aws:eks/nodeGroup:",),
        _launch_template,
    ),
    Guardrail(
        "instance-metadata-service",
        "compute",
        "a request forged inside a workload reads the node's credentials from the metadata service",
        "set metadataOptions with httpTokens required and httpPutResponseHopLimit 1",
        _NODES,
        _metadata_service,
    ),
    Guardrail(
        "disk-encrypted",
        "compute",
        "disks of sandbox nodes hold whatever agents wrote",
        "set encrypted to true",
        _NODES,
        _disks,
    ),
    Guardrail(
        "volume-encrypted",
        "encryption",
        "a snapshot of the volume can be copied out of the account",
        "set encrypted to true",
        ("aws:ebs/volume:", "aws:efs/fileSystem:"),
        _volume,
    ),
)
