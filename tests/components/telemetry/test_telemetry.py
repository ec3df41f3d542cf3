"""What the telemetry component makes: least rights, bounded pods, named outputs."""

from __future__ import annotations

import json

import pytest

from components import collector_config
from components.telemetry import collector_document
from ringfence.errors import InputError
from ringfence.iam.document import parse
from ringfence.iam.evaluate import evaluate
from ringfence.iam.model import Permissions
from ringfence.iam.request import Request
from ringfence.local.providers.aws.registry import all_types

GROUP = "arn:aws:logs:us-east-1:111122223333:log-group:/ringfence/{}/{}:log-stream:collector-0"


def _permits(names, action, resource, region="us-east-1"):
    context = {"aws:RequestedRegion": (region,)}
    return evaluate(Permissions((parse(collector_document(names)),)), Request(action, resource, context)).allowed


def test_everything_hangs_on_the_component_and_outputs_are_known_at_preview(make, preview):
    recording = make(preview)
    assert recording.unparented() == []
    assert recording.outputs == {
        "otlp_endpoint": "http://collector.ringfence-system.svc.cluster.local:4317",
        "otlp_port": 4317,
        "dashboard_names": ["ringfence-test-agents", "ringfence-test-platform"],
        "alarm_names": [
            "ringfence-test-agent-refusals", "ringfence-test-conversation-cost", "ringfence-test-tool-errors",
            "ringfence-test-audit-writes", "ringfence-test-egress-refusals", "ringfence-test-credential-misuse",
            "ringfence-test-agent-behaviour", "ringfence-test-collector-failing",
        ],
        "role_arn": "arn:aws:iam::111122223333:role/ringfence-test-collector",
    }  # fmt: skip


def test_the_embedded_provider_knows_every_aws_type(make):
    used = {kind for kind in make().types() if kind.startswith("aws:")}
    assert used and used <= set(all_types())


@pytest.mark.parametrize("stream", ["audit", "control", "tools", "vault-audit", "metrics"])
def test_the_collector_adds_to_its_own_groups_only(names, stream):
    for action in ("logs:CreateLogStream", "logs:PutLogEvents"):
        assert _permits(names, action, GROUP.format("test", stream))
        assert not _permits(names, action, GROUP.format("prod", stream))


@pytest.mark.parametrize("stream", ["proxy", "dns", "vpc-flow", "findings", "audit-x"])
def test_the_collector_adds_nothing_to_other_groups(names, stream):
    assert not _permits(names, "logs:PutLogEvents", GROUP.format("test", stream))


@pytest.mark.parametrize(
    "action",
    ["logs:CreateLogGroup", "logs:DeleteLogStream", "logs:FilterLogEvents", "logs:GetLogEvents", "logs:PutRetentionPolicy",
     "logs:Unmask", "cloudwatch:PutMetricData", "xray:GetTraceSummaries"],
)  # fmt: skip
def test_the_collector_reads_makes_and_deletes_nothing(names, action):
    assert not _permits(names, action, GROUP.format("test", "tools"))


def test_spans_go_to_the_environments_region_only(names):
    assert _permits(names, "xray:PutTraceSegments", "*")
    assert not _permits(names, "xray:PutTraceSegments", "*", region="eu-west-1")


def test_the_role_goes_to_the_gateways_service_account_and_nothing_else_hangs_on_it(make, preview):
    recording = make(preview)
    binding = recording.one("aws:eks/podIdentityAssociation:PodIdentityAssociation")
    assert (binding["namespace"], binding["serviceAccount"]) == ("ringfence-system", "collector")
    trust = json.loads(recording.one("aws:iam/role:Role")["assumeRolePolicy"])
    tags = trust["Statement"][0]["Condition"]["StringEquals"]
    assert tags["aws:RequestTag/kubernetes-service-account"] == ["collector"]
    assert recording.one("aws:iam/rolePolicyAttachmentsExclusive:RolePolicyAttachmentsExclusive")["policyArns"] == []
    assert len(recording.one("aws:iam/rolePoliciesExclusive:RolePoliciesExclusive")["policyNames"]) == 1


def test_both_accounts_read_pods_and_namespaces_and_nothing_else(make):
    recording = make()
    (rule,) = recording.one("kubernetes:rbac.authorization.k8s.io/v1:ClusterRole")["rules"]
    assert rule == {"apiGroups": [""], "resources": ["namespaces", "pods"], "verbs": ["get", "list", "watch"]}
    subjects = recording.one("kubernetes:rbac.authorization.k8s.io/v1:ClusterRoleBinding")["subjects"]
    assert [(s["namespace"], s["name"]) for s in subjects] == [
        ("ringfence-system", "collector"), ("ringfence-telemetry", "collector-agent"),
    ]  # fmt: skip
    assert recording.of_type("kubernetes:rbac.authorization.k8s.io/v1:Role") == []


@pytest.mark.parametrize("kind", ["Deployment", "DaemonSet"])
def test_a_collectors_pod_is_bounded_pinned_and_off_the_sandbox_nodes(make, preview, kind):
    spec = make(preview).one(f"kubernetes:apps/v1:{kind}")["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    assert "@sha256:" in container["image"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": True,
    }  # fmt: skip
    assert container["resources"]["limits"]["memory"]
    assert spec["securityContext"]["runAsNonRoot"] is True and spec["securityContext"]["runAsUser"] != 0
    term = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert term == [{"matchExpressions": [{"key": "ringfence.dev/sandbox", "operator": "DoesNotExist"}]}]
    assert "tolerations" not in spec


def test_the_agent_reads_container_logs_and_no_other_file_of_the_node(make):
    spec = make().one("kubernetes:apps/v1:DaemonSet")["spec"]["template"]["spec"]
    host = [v for v in spec["volumes"] if "hostPath" in v]
    assert host == [{"name": "logs", "hostPath": {"path": "/var/log/pods", "type": "Directory"}}]
    (mount,) = [m for m in spec["containers"][0]["volumeMounts"] if m["name"] == "logs"]
    assert mount["readOnly"] is True
    gateway = make().one("kubernetes:apps/v1:Deployment")["spec"]["template"]["spec"]
    assert not any("hostPath" in v for v in gateway["volumes"])


def test_only_the_agents_reach_the_port_on_which_pods_are_believed(make):
    policies = {
        p["metadata"]["name"]: p["spec"] for p in make().of_type("kubernetes:networking.k8s.io/v1:NetworkPolicy")
    }
    gateway, agent = policies["collector"], policies["collector-agent"]
    assert gateway["policyTypes"] == agent["policyTypes"] == ["Ingress", "Egress"]
    (trusted,) = [r for r in gateway["ingress"] if {"protocol": "TCP", "port": 4319} in r["ports"]]
    assert trusted["from"] == [{
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ringfence-telemetry"}},
        "podSelector": {"matchLabels": {"app.kubernetes.io/name": "collector-agent"}},
    }]  # fmt: skip
    assert "ingress" not in agent and agent["podSelector"] == {}
    assert not any(
        peer.get("ipBlock", {}).get("cidr") == "0.0.0.0/0" for rule in agent["egress"] for peer in rule["to"]
    )


def test_the_credential_endpoint_of_the_node_is_out_of_the_gateways_reach(make):
    (policy,) = [p for p in make().of_type("kubernetes:networking.k8s.io/v1:NetworkPolicy")
                 if p["metadata"]["name"] == "collector"]  # fmt: skip
    wide = next(r for r in policy["spec"]["egress"] if r["to"][0].get("ipBlock", {}).get("cidr") == "0.0.0.0/0")
    assert wide["to"][0]["ipBlock"]["except"] == ["169.254.0.0/16"] and wide["ports"] == [
        {"protocol": "TCP", "port": 443}
    ]


def test_a_changed_configuration_replaces_the_pods(make, monkeypatch):
    def digests(recording):
        return [recording.one(f"kubernetes:apps/v1:{kind}")["spec"]["template"]["metadata"]["annotations"]
                ["ringfence.dev/config-sha256"] for kind in ("Deployment", "DaemonSet")]  # fmt: skip

    before, gateway = digests(make()), collector_config.gateway_config
    monkeypatch.setattr(collector_config, "gateway_config", lambda names: gateway(names) | {"connectors": {}})
    after = digests(make())
    assert before[0] != after[0] and before[1] == after[1]


def test_pods_come_after_their_policies_and_rights(make):
    recording = make()
    deployment, agents = (recording.one(f"kubernetes:apps/v1:{kind}") for kind in ("Deployment", "DaemonSet"))
    assert {urn.rpartition("::")[2] for urn in deployment.options.depends_on} >= {
        "telemetry-network-collector", "telemetry-pod-identity", "telemetry-cluster-binding", "telemetry-config-collector",
    }  # fmt: skip
    assert {urn.rpartition("::")[2] for urn in agents.options.depends_on} >= {
        "telemetry-network-collector-agent", "telemetry-agent-policy-binding", "telemetry-cluster-binding",
    }  # fmt: skip


def test_all_mistakes_are_told_at_once(make):
    with pytest.raises(InputError) as caught:
        make(replicas=0, conversation_cap_usd=0, image="otel/opentelemetry-collector-contrib:latest")
    assert [problem.key for problem in caught.value.problems] == ["replicas", "conversation_cap_usd", "image"]
