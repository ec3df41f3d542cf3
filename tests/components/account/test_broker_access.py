"""The broker's role: exactly the catalog's tools, for exactly one service account."""

from __future__ import annotations

import pytest

from components.broker_access import BrokerAccess, BrokerAccessArgs, assume_documents, shard_of, work_document
from components.iam_documents import MANAGED_POLICY_LIMIT, policy_size
from components.pod_identity import pod_identity_trust
from ringfence.errors import InputError
from ringfence.iam.request import Principal

PODS = Principal("Service", "pods.eks.amazonaws.com")
FROM_BROKER = {
    "aws:SourceAccount": "111122223333",
    "aws:SourceArn": "arn:aws:eks:us-east-1:111122223333:cluster/ringfence-test",
    "aws:RequestTag/kubernetes-namespace": "ringfence-system",
    "aws:RequestTag/kubernetes-service-account": "runner",
}
MANY = tuple(f"tool-number-{index:03d}-with-a-name" for index in range(200))


def _made(record, names, tools, preview=False):
    return record(lambda: BrokerAccess("broker", BrokerAccessArgs(names, "ringfence-test", tools)), preview=preview)


def _policies(recording):
    return {r["name"]: r["policy"] for r in recording.of_type("aws:iam/policy:Policy")}


def test_the_brokers_pod_gets_its_role(resource_permits, names):
    trust = pod_identity_trust(names, "ringfence-test", "ringfence-system", "runner")
    assert resource_permits(trust, PODS, "sts:AssumeRole", context=FROM_BROKER)
    assert resource_permits(trust, PODS, "sts:TagSession", context=FROM_BROKER)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("aws:SourceAccount", "444455556666"),
        ("aws:SourceArn", "arn:aws:eks:us-east-1:111122223333:cluster/other"),
        ("aws:RequestTag/kubernetes-namespace", "sandbox-1"),
        ("aws:RequestTag/kubernetes-service-account", "default"),
    ],
)
def test_another_pod_namespace_cluster_or_account_does_not(resource_permits, names, key, value):
    trust = pod_identity_trust(names, "ringfence-test", "ringfence-system", "runner")
    assert not resource_permits(trust, PODS, "sts:AssumeRole", context=FROM_BROKER | {key: value})
    without = {k: v for k, v in FROM_BROKER.items() if k != key}
    assert not resource_permits(trust, PODS, "sts:AssumeRole", context=without)


def test_only_pod_identity_hands_out_the_role(resource_permits, names):
    trust = pod_identity_trust(names, "ringfence-test", "ringfence-system", "runner")
    node = Principal("AWS", "arn:aws:sts::111122223333:assumed-role/ringfence-test-sandbox-node/i-1")
    assert not resource_permits(trust, node, "sts:AssumeRole", context=FROM_BROKER)


def test_the_broker_becomes_exactly_the_declared_tools(identity_permits, names):
    policies = list(assume_documents(names, ("reports", "tickets")).values())
    for tool in ("reports", "tickets"):
        assert identity_permits(
            policies, "sts:AssumeRole", f"arn:aws:iam::111122223333:role/ringfence-test-tool-{tool}"
        )
    for role in ("ringfence-test-tool-other", "ringfence-test-tool-reports2", "admin"):
        assert not identity_permits(policies, "sts:AssumeRole", f"arn:aws:iam::111122223333:role/{role}")
    assert not identity_permits(
        policies, "iam:PutRolePolicy", "arn:aws:iam::111122223333:role/ringfence-test-tool-reports"
    )


def test_two_hundred_tools_fit_and_all_are_reached(record, preview, names, identity_permits):
    recording = _made(record, names, MANY, preview)
    policies = _policies(recording)
    assert len(policies) <= 10
    assert all(policy_size(text) <= MANAGED_POLICY_LIMIT for text in policies.values())
    for tool in (MANY[0], MANY[99], MANY[199]):
        arn = f"arn:aws:iam::111122223333:role/ringfence-test-tool-{tool}"
        assert identity_permits(list(policies.values()), "sts:AssumeRole", arn)
    attachments = recording.of_type("aws:iam/rolePolicyAttachment:RolePolicyAttachment")
    assert len(attachments) == len(policies)


def test_adding_a_tool_changes_one_policy_and_nothing_else(record, names):
    before, after = _made(record, names, MANY), _made(record, names, (*MANY, "the-new-one"))
    changed = {name for name, text in _policies(after).items() if _policies(before).get(name) != text}
    assert changed == {f"ringfence-test-broker-tools-{shard_of('the-new-one')}"}
    assert {r.urn for r in before.resources} == {r.urn for r in after.resources}


def test_the_order_of_tools_changes_nothing(names):
    assert assume_documents(names, MANY) == assume_documents(names, tuple(reversed(MANY)))


def test_more_tools_than_fit_are_refused_with_every_policy_that_overflows(names):
    with pytest.raises(InputError) as caught:
        assume_documents(names, tuple(f"tool-number-{index:04d}-with-a-name" for index in range(2000)))
    assert len(caught.value.problems) == 8
    assert "broker-tools-0" in caught.value.problems[0].where


def test_the_broker_has_no_policy_but_its_shards_and_its_own_work(record, names):
    recording = _made(record, names, ("reports", "tickets"))
    exclusive = recording.one("aws:iam/rolePolicyAttachmentsExclusive:RolePolicyAttachmentsExclusive")
    attached = [r["policyArn"] for r in recording.of_type("aws:iam/rolePolicyAttachment:RolePolicyAttachment")]
    assert attached and sorted(exclusive["policyArns"]) == sorted(attached)
    assert recording.one("aws:iam/rolePoliciesExclusive:RolePoliciesExclusive")["policyNames"] == []


def test_the_role_is_bound_to_the_brokers_service_account(record, preview, names):
    recording = _made(record, names, ("reports",), preview)
    binding = recording.one("aws:eks/podIdentityAssociation:PodIdentityAssociation")
    assert (binding["namespace"], binding["serviceAccount"]) == ("ringfence-system", "runner")
    assert binding["clusterName"] == "ringfence-test"
    assert recording.unparented() == []


def test_the_broker_may_revoke_and_keep_its_ledger_and_no_more(names, identity_permits):
    work = [work_document(names)]
    role = "arn:aws:iam::111122223333:role/ringfence-test-tool-reports"
    bounded = {"iam:PermissionsBoundary": "arn:aws:iam::111122223333:policy/ringfence-test-tool-boundary-reports"}
    table = "arn:aws:dynamodb:us-east-1:111122223333:table/ringfence-test-credentials"
    secret = "arn:aws:secretsmanager:us-east-1:111122223333:secret:{}-AbCdEf"
    for action, resource, context in (
        ("iam:PutRolePolicy", role, bounded),
        ("dynamodb:PutItem", table, {}),
        ("secretsmanager:GetSecretValue", secret.format("ringfence-test/tools/reports"), {}),
        ("cloudtrail:LookupEvents", "*", {}),
    ):
        assert identity_permits(work, action, resource, context), action
    for action, resource, context in (
        # A role that lost its boundary, or has another, could be given anything.
        ("iam:PutRolePolicy", role, {}),
        ("iam:PutRolePolicy", role, {"iam:PermissionsBoundary": "arn:aws:iam::aws:policy/AdministratorAccess"}),
        ("iam:PutRolePolicy", "arn:aws:iam::111122223333:role/ringfence-test-broker", bounded),
        ("iam:AttachRolePolicy", role, bounded),
        ("iam:DeleteRolePermissionsBoundary", role, bounded),
        ("iam:UpdateAssumeRolePolicy", role, bounded),
        ("dynamodb:DeleteTable", table, {}),
        ("dynamodb:PutItem", table.replace("credentials", "other"), {}),
        ("secretsmanager:GetSecretValue", secret.format("ringfence-test/other"), {}),
    ):
        assert not identity_permits(work, action, resource, context), action


def test_the_ledger_expires_its_closed_entries(record, preview, names):
    table = _made(record, names, ("reports",), preview).one("aws:dynamodb/table:Table")
    assert (table["hashKey"], table["rangeKey"]) == ("shelf", "id")
    assert table["ttl"] == {"attributeName": "forget", "enabled": True}
    assert table["pointInTimeRecovery"] == {"enabled": True}
