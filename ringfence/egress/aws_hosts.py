"""Which hosts of AWS a tool's grants stand for: what its own listener at the egress proxy opens besides its domains.

A host alone says nothing about whose bucket or table is meant: S3's and DynamoDB's front ends serve every account, and the
proxy doesn't look into TLS. That another account's are out of reach is decided by the policies of the gateway endpoints in
the proxies' route tables (`components.endpoints`), which serve the stack's own region; hence no host of another region.
Models are left out: they are called through the model gateway, which counts what they cost.
Trust zone: operator; pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from ringfence.catalog.model import Grant, Tool
from ringfence.errors import InputError, Problem
from ringfence.iam.tool_documents import expand
from ringfence.names import Names

# IAM's service prefix → first label of the regional endpoint (docs.aws.amazon.com/general/latest/gr/rande.html).
# S3's hosts name the bucket. Each service more is one more way out for a sandbox that brings credentials of its own.
_ENDPOINTS = {
    "dynamodb": "dynamodb", "events": "events", "kms": "kms", "lambda": "lambda", "secretsmanager": "secretsmanager",
    "ses": "email", "sns": "sns", "sqs": "sqs", "ssm": "ssm", "states": "states",
}  # fmt: skip
# Called by the model gateway for the sandbox, and by no tool itself.
_MODELS = "bedrock"
# Services whose gateway endpoints say by account what is reached; for the others docs/threat-model.md says what is left.
_HELD_TO_THE_ACCOUNT = frozenset({"dynamodb", "s3"})
_BUCKET = re.compile(r"^[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$")
# Names that S3 gives to other things than buckets (docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html).
_NO_BUCKETS = ("-s3alias", "--ol-s3", "--x-s3", "--table-s3")
# Stands for the placeholders where no stack is known.
_ANY = Names("ringfence", "any", "000000000000", "us-east-1")


def calls_aws(tool: Tool) -> bool:
    """Whether the tool calls AWS itself, so that it needs a listener."""
    return any(_services(grant) for grant in tool.grants)


def of_every_account(tool: Tool) -> tuple[str, ...]:
    """IAM prefixes of services that the tool's listener opens without a gateway endpoint: whoever brings keys of another
    account into the sandbox reaches that account's resources there."""
    called = frozenset().union(*(_services(grant) for grant in tool.grants))
    return tuple(sorted(called - _HELD_TO_THE_ACCOUNT))


def aws_hosts(tool: Tool, names: Names) -> tuple[str, ...]:
    """The hosts in alphabetical order. Raises InputError naming every grant that stands for no exact host."""
    found, problems = _derived(tool, names, names.region)
    if problems:
        raise InputError(problems)
    return tuple(sorted(found))


def problems(tools: Iterable[Tool]) -> list[Problem]:
    """What is wrong with the tools' grants in any stack."""
    return [problem for tool in tools for problem in _derived(tool, _ANY, None)[1]]


def _services(grant: Grant) -> frozenset[str]:
    used = {action.partition(":")[0] for action in grant.actions}
    if any(key.lower() == "kms:viaservice" for keys in grant.conditions.values() for key in keys):
        # The other service calls KMS, not the tool.
        used.discard("kms")
    return frozenset(used - {_MODELS})


def _derived(tool: Tool, names: Names, region: str | None) -> tuple[set[str], list[Problem]]:
    """Hosts and problems. region: the stack's, None when it is not known."""
    hosts: set[str] = set()
    found: list[Problem] = []
    suffix = f"{names.region}.amazonaws.com{'.cn' if names.partition == 'aws-cn' else ''}"
    for index, grant in enumerate(tool.grants):
        resources = [expand(resource, names) for resource in grant.resources]

        def report(message: str, remedy: str, at: int = index) -> None:
            found.append(Problem(tool.source.file or tool.name, f"grants[{at}]", message, remedy))

        for service in sorted(_services(grant)):
            for message, remedy in _elsewhere(service, resources, region):
                report(message, remedy)
            if service == "s3":
                buckets, wrong = _buckets(resources)
                hosts |= {f"{bucket}.s3.{suffix}" for bucket in buckets}
                for message, remedy in wrong:
                    report(message, remedy)
            elif service in _ENDPOINTS:
                hosts.add(f"{_ENDPOINTS[service]}.{suffix}")
            else:
                known = ", ".join(sorted((*_ENDPOINTS, "s3")))
                report(f"{service}: no host of AWS is known for this service", f"grant actions of {known}")
    return hosts, found


def _elsewhere(service: str, resources: list[str], region: str | None) -> Iterator[tuple[str, str]]:
    """Resources of the service in another region, which the stack's endpoints don't serve."""
    for resource in resources:
        parts = resource.split(":")
        if resource == "*" or parts[2] != service or region is None or parts[3] in ("", "*", region):
            continue
        yield f"{resource!r} is in {parts[3]}, the stack in {region}", "write ${region}, or use a stack of that region"


def _buckets(resources: list[str]) -> tuple[set[str], list[tuple[str, str]]]:
    """Buckets that a grant on S3 names, and what is wrong with the others."""
    found: set[str] = set()
    wrong = []
    own = [resource for resource in resources if resource == "*" or resource.split(":")[2] == "s3"]
    for resource in own:
        bucket = resource.split(":", 5)[-1].partition("/")[0]
        if resource == "*" or any(char in bucket for char in "*?$"):
            why = "names no bucket exactly, and the proxy opens exact hosts only"
        elif resource.split(":")[3:5] != ["", ""] or bucket.endswith(_NO_BUCKETS):
            why = "is no bucket"
        elif "." in bucket:
            why = "has a dot in the bucket's name, for which S3's certificate is not valid"
        elif not _BUCKET.match(bucket):
            why = "is no name of a bucket"
        else:
            found.add(bucket)
            continue
        wrong.append(
            (f"{resource!r} {why}", "write each bucket's name, e.g. arn:${partition}:s3:::reports-${account}/*")
        )
    if not own:
        wrong.append(
            ("has actions of s3 but no bucket", "add arn:${partition}:s3:::bucket or its objects to resources")
        )
    return found, wrong
