"""Policy documents on types without a row: read wherever they lie, and never passed over when they can't be read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pulumi_aws
import pytest

from ringfence.review.extract import EXTRACTORS, facts_of
from ringfence.review.extract_other import NOT_IAM, is_document_name
from ringfence.review.facts import AT_PREVIEW, Slot, Unknown
from ringfence.review.resource import Resource

DOCUMENT = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": "*", "Action": "*", "Resource": "*"}],
}
# Properties whose description speaks of a policy document although they hold none.
NO_DOCUMENT = {
    "aws:cloudsearch/domainServiceAccessPolicy:DomainServiceAccessPolicy": {"accessPolicy"},
    "aws:emr/instanceGroup:InstanceGroup": {"autoscalingPolicy"},
    "aws:ecr/repositoryCreationTemplate:RepositoryCreationTemplate": {"lifecyclePolicy"},
    "aws:networkmanager/coreNetwork:CoreNetwork": {"basePolicyDocument"},
    "aws:networkmanager/coreNetworkPolicyAttachment:CoreNetworkPolicyAttachment": {"policyDocument"},
    "aws:route53/trafficPolicy:TrafficPolicy": {"document"},
    "aws:sns/topicSubscription:TopicSubscription": {"deliveryPolicy", "filterPolicy", "redrivePolicy", "replayPolicy"},
    "aws:sqs/queue:Queue": {"redriveAllowPolicy", "redrivePolicy"},
    "aws:sqs/redriveAllowPolicy:RedriveAllowPolicy": {"redriveAllowPolicy"},
    "aws:sqs/redrivePolicy:RedrivePolicy": {"redrivePolicy"},
    "aws:workspacesweb/browserSettings:BrowserSettings": {"browserPolicy"},
}
# Of these the description names the policy, while the property holds its name, number, place or the like.
_ABOUT_A_POLICY = re.compile(
    r"(?:Arns?|Ids?|Names?|Type|Version|Revision|Mode|Lockout\w*|Responses|HeaderValue)$|^(?:tags|description)$"
)
_SAYS_DOCUMENT = re.compile(
    r"polic\w+ document|JSON[- ](?:formatted )?(?:IAM |resource )?polic|IAM (?:JSON )?polic|(?:resource|access)(?:-based)? polic"
    r"|policy (?:as|in) (?:a )?JSON|(?:text|content) of the (?:resource )?polic",
    re.IGNORECASE,
)


def resource(type_: str, **props: Any) -> Resource:
    return Resource(type_, "x", f"urn:pulumi:s::p::{type_}::x", props)


UNREADABLE = {
    "aws:s3tables/tableBucketPolicy:TableBucketPolicy": {"resourcePolicy": AT_PREVIEW},
    "aws:redshift/resourcePolicy:ResourcePolicy": {"policy": AT_PREVIEW},
    "aws:schemas/registryPolicy:RegistryPolicy": {"policy": AT_PREVIEW},
    "aws:networkfirewall/resourcePolicy:ResourcePolicy": {"policy": AT_PREVIEW},
    "aws:s3control/bucketPolicy:BucketPolicy": {"policy": AT_PREVIEW},
    "aws:xray/resourcePolicy:ResourcePolicy": {"policyDocument": AT_PREVIEW},
    "aws:organizations/resourcePolicy:ResourcePolicy": {"content": AT_PREVIEW},
    "aws:odb/network:Network": {"s3PolicyDocument": AT_PREVIEW},
    "aws-native:s3:AccessPoint": {"policy": {"Version": "2012-10-17", "Statement": AT_PREVIEW}},
    "aws-native:dynamodb:Table": {"resourcePolicy": {"policyDocument": AT_PREVIEW}},
    "aws-native:opensearchservice:Domain": {
        "accessPolicies": {"Statement": [{"Effect": "Allow", "Principal": "*", "Action": "*", "Resource": AT_PREVIEW}]}
    },
}


@pytest.mark.parametrize("type_", UNREADABLE)
def test_a_document_that_can_not_be_read_is_a_fact_that_can_not_be_reviewed(type_: str) -> None:
    assert type_ not in EXTRACTORS
    (fact,) = facts_of(resource(type_, **UNREADABLE[type_]))
    assert fact.slot is Slot.RESOURCE_POLICY and isinstance(fact.value, Unknown)


@pytest.mark.parametrize(
    "props",
    [{"policy": DOCUMENT}, {"deep": {"est": [{"any": DOCUMENT}]}}, {"resourcePolicy": {"policyDocument": DOCUMENT}}],
    ids=["on top", "deep below", "in a block"],
)
def test_a_document_is_read_wherever_it_lies(props: dict[str, Any]) -> None:
    (fact,) = facts_of(resource("aws-native:new:Thing", **props))
    assert fact.value == DOCUMENT


def test_documents_of_one_resource_are_told_apart() -> None:
    found = facts_of(resource("aws:odb/network:Network", s3PolicyDocument=DOCUMENT, stsPolicyDocument=AT_PREVIEW))
    assert {fact.key for fact in found} == {"s3PolicyDocument", "stsPolicyDocument"}


@pytest.mark.parametrize(
    "name", ["lifecyclePolicy", "policyType", "retentionPolicy", "accessPolicyArn", "terminationPolicies"]
)
def test_what_is_unknown_but_no_document_is_no_fact(name: str) -> None:
    assert facts_of(resource("aws:new/thing:Thing", **{name: AT_PREVIEW})) == []


@pytest.mark.parametrize("type_", NOT_IAM)
def test_policies_that_are_none_of_iam_s_are_no_fact(type_: str) -> None:
    props = dict.fromkeys(("policy", "policyDocument", "policyText", "notificationPolicy"), AT_PREVIEW)
    assert facts_of(resource(type_, **props)) == []


def described_inputs() -> Iterator[tuple[str, str, str]]:
    """Type, property and description of every text that a resource of the SDK takes."""
    token = re.compile(r"super\([^)]*\)\.__init__\(\s*'(aws:[^']+)'")
    getter = re.compile(
        r'@pulumi\.getter(?:\(name="(\w+)"\))?\s+def (\w+)\(self\) -> ([^\n]+):\n(?:\s+"""(.*?)""")?', re.DOTALL
    )
    for path in sorted(Path(pulumi_aws.__file__).parent.rglob("*.py")):
        text = path.read_text(encoding="utf-8") if not path.name.startswith(("get_", "_", "outputs")) else ""
        found, arguments = token.search(text), re.search(r"\nclass \w+Args[:(].*?(?=\nclass |\Z)", text, re.DOTALL)
        for item in getter.finditer(arguments[0]) if found and arguments else ():
            if "str]" in item[3]:
                yield found[1], item[1] or item[2], " ".join((item[4] or "").split())


def test_every_policy_document_that_the_sdk_s_resources_take_is_read() -> None:
    inputs = list(described_inputs())
    assert len(inputs) > 5000
    missed = [
        f"{type_} {name}: {said[:80]}"
        for type_, name, said in inputs
        if type_ not in EXTRACTORS
        and type_ not in NOT_IAM
        and ((_SAYS_DOCUMENT.search(said) and "polic" in name.lower()) or name == "policy")
        and not _ABOUT_A_POLICY.search(name)
        and not is_document_name(name)
        and name not in NO_DOCUMENT.get(type_, ())
    ]
    assert missed == []
    documents = [
        (type_, name) for type_, name, said in inputs if _SAYS_DOCUMENT.search(said) and is_document_name(name)
    ]
    assert len(documents) > 60
