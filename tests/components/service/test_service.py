"""The service's objects: who reaches what, what the pod may, and that nothing listens without TLS and identities."""

from __future__ import annotations

import dataclasses

import pytest

from components import service_manifests as manifests
from components.service import Service, ServiceArgs, gateway_address
from ringfence.broker.secret_stores import TOKEN_FILE
from ringfence.errors import InputError
from ringfence.names import Names

NAMES = Names("ringfence", "test", "111122223333", "us-east-1")
IMAGE = f"111122223333.dkr.ecr.us-east-1.amazonaws.com/ringfence@sha256:{'a' * 64}"
GOOD = ServiceArgs(
    NAMES, "test", IMAGE, {"Pulumi.yaml": "name: x\n", "catalog/tools/a.yaml": "name: a\n"}, "encrypted", "172.20.0.0/16",
    oidc_issuer="https://id.example.com", oidc_audience="ringfence", client_cidrs=("10.42.0.0/16",),
)  # fmt: skip
KIND = {
    "deployment": "kubernetes:apps/v1:Deployment",
    "network": "kubernetes:networking.k8s.io/v1:NetworkPolicy",
    "claim": "kubernetes:core/v1:PersistentVolumeClaim",
    "files": "kubernetes:core/v1:ConfigMap",
}


@pytest.fixture
def stood_up(record):
    def stand(preview: bool = False, **changes):
        def program():
            made = Service("service", dataclasses.replace(GOOD, **changes))
            return {"address": made.address, "gateway": made.gateway}

        return record(program, preview=preview)

    return stand


def pod(recording) -> dict:
    return recording.one(KIND["deployment"])["spec"]["template"]["spec"]


def test_everything_hangs_on_the_component_and_its_addresses_are_known_beforehand(stood_up, preview):
    recording = stood_up(preview=preview)
    assert recording.unparented() == []
    assert gateway_address("172.20.0.0/16").address == "172.20.0.20"
    gateway = recording.one("kubernetes:core/v1:Service", "service-gateway")
    assert gateway["spec"]["clusterIP"] == "172.20.0.20" and gateway["spec"]["ports"][0]["port"] == 14000
    assert {
        resource["metadata"]["namespace"] for resource in recording.resources if resource.type.startswith("kubernetes:")
    } == {"ringfence-system"}


def test_sandboxes_reach_the_gateway_alone_and_callers_the_api_alone(stood_up):
    policy = stood_up().one(KIND["network"])["spec"]
    rules = {rule["ports"][0]["port"]: rule["from"] for rule in policy["ingress"]}
    assert set(rules) == {14000, 8443}
    assert rules[14000] == [
        {"namespaceSelector": {"matchExpressions": [{"key": "ringfence.dev/invocation", "operator": "Exists"}]}}
    ]
    assert rules[8443] == [{"ipBlock": {"cidr": "10.42.0.0/16"}}]
    assert policy["podSelector"] == {"matchLabels": manifests.LABELS}
    ways = {(item["to"][0].get("ipBlock") or {}).get("cidr"): item for item in policy["egress"]}
    assert ways["0.0.0.0/0"]["to"][0]["ipBlock"]["except"] == ["169.254.0.0/16"]
    assert [port["port"] for port in ways["0.0.0.0/0"]["ports"]] == [443]


def test_without_named_callers_nobody_reaches_the_api(stood_up):
    policy = stood_up(client_cidrs=()).one(KIND["network"])["spec"]
    assert [rule["ports"][0]["port"] for rule in policy["ingress"]] == [14000]


def test_the_pod_is_not_root_changes_nothing_of_itself_and_stays_off_sandbox_nodes(stood_up):
    spec = pod(stood_up())
    (container,) = spec["containers"]
    assert spec["securityContext"]["runAsNonRoot"] and spec["securityContext"]["seccompProfile"] == {
        "type": "RuntimeDefault"
    }
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": True,
    }  # fmt: skip
    (term,) = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert term["matchExpressions"][0] == {"key": "ringfence.dev/sandbox", "operator": "DoesNotExist"}
    assert container["image"] == IMAGE and spec["serviceAccountName"] == "runner"


def test_the_command_line_listens_with_tls_and_an_issuer(stood_up):
    (container,) = pod(stood_up())["containers"]
    assert (
        "--oidc-issuer=https://id.example.com" in container["args"] and "--oidc-audience=ringfence" in container["args"]
    )
    assert "--tls-key=/etc/ringfence-tls/tls.key" in container["args"]
    assert not [arg for arg in container["args"] if arg.startswith("--client-ca")]
    assert {container[probe]["httpGet"]["scheme"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")} == {
        "HTTPS"
    }


def test_the_command_line_is_one_that_serve_takes():
    from ringfence.service.commands import serve

    given = manifests.arguments("test", "https://id.example.com", "ringfence", 300, True)
    known = {option for parameter in serve.params for option in parameter.opts}
    assert given[0] == "serve" and {argument.split("=")[0] for argument in given[1:]} <= known


def test_an_update_drains_first_and_a_drain_of_the_node_is_not_stopped(stood_up):
    recording = stood_up(drain_seconds=120)
    spec = recording.one(KIND["deployment"])["spec"]
    assert spec["strategy"] == {"type": "Recreate"} and spec["replicas"] == 1
    assert spec["template"]["spec"]["terminationGracePeriodSeconds"] > 120
    assert recording.one("kubernetes:policy/v1:PodDisruptionBudget")["spec"]["maxUnavailable"] == 1


def test_the_project_s_files_lie_where_they_belong_and_a_change_replaces_the_pod(stood_up):
    recording = stood_up()
    assert recording.one(KIND["files"])["data"] == {"Pulumi.yaml": "name: x\n", "catalog__tools__a.yaml": "name: a\n"}
    (volume,) = [item for item in pod(recording)["volumes"] if item["name"] == "project"]
    assert {"key": "catalog__tools__a.yaml", "path": "catalog/tools/a.yaml"} in volume["configMap"]["items"]

    def digest(recorded) -> str:
        return recorded.one(KIND["deployment"])["spec"]["template"]["metadata"]["annotations"][
            "ringfence.dev/project-sha256"
        ]

    assert digest(recording) != digest(stood_up(files={"Pulumi.yaml": "name: y\n"}))


def test_the_trail_s_volume_is_kept_unless_it_is_said_that_it_may_go(stood_up):
    assert stood_up().one(KIND["claim"]).options.protect
    assert not stood_up(keep=False).one(KIND["claim"]).options.protect


def test_the_secrets_store_is_reached_with_a_token_for_it_alone_and_left_out_where_there_is_none(stood_up):
    address = "https://vault.ringfence-vault.svc:8200"
    spec = pod(stood_up(vault_address=address))
    (container,) = spec["containers"]
    told = {item["name"]: item["value"] for item in container["env"]}
    assert told["VAULT_ADDR"] == address
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
    (source,) = volumes["vault-token"]["projected"]["sources"]
    assert source["serviceAccountToken"]["audience"] == "vault"
    assert f"{mounts['vault-token']['mountPath']}/{source['serviceAccountToken']['path']}" == str(TOKEN_FILE)
    assert told["VAULT_CACERT"] == f"{mounts['vault-authority']['mountPath']}/ca.crt"
    assert volumes["vault-authority"]["configMap"]["name"] == "vault-ca"
    without = pod(stood_up())
    assert not [item for item in without["containers"][0]["env"] if item["name"].startswith("VAULT")]
    assert not [volume for volume in without["volumes"] if volume["name"].startswith("vault")]


def test_traces_and_metrics_go_to_the_collector_s_pods_alone(stood_up):
    from components.collector_manifests import gateway_network_policy

    recording = stood_up(otlp_endpoint="http://collector.ringfence-system.svc.cluster.local:4317")
    (container,) = pod(recording)["containers"]
    told = {item["name"]: item["value"] for item in container["env"]}
    assert told["RINGFENCE_OTLP_ENDPOINT"] == "http://collector.ringfence-system.svc.cluster.local:4317"
    (rule,) = [rule for rule in recording.one(KIND["network"])["spec"]["egress"] if rule["ports"][0]["port"] == 4317]
    (peer,) = rule["to"]
    # In the own namespace: the peer has no other.
    assert peer == {"podSelector": gateway_network_policy()["podSelector"]}
    assert not [item for item in pod(stood_up())["containers"][0]["env"] if "OTLP" in item["name"]]


def test_the_store_lets_in_the_pods_that_the_service_makes_and_these_may_go_there(stood_up):
    from components.vault_manifests import network_policies

    recording = stood_up()
    labels = recording.one(KIND["deployment"])["spec"]["template"]["metadata"]["labels"]
    (peer,) = network_policies()["vault"]["ingress"][0]["from"]
    assert peer["podSelector"]["matchLabels"] == labels
    ways = [item for item in recording.one(KIND["network"])["spec"]["egress"] if "namespaceSelector" in item["to"][0]]
    reached = {item["to"][0]["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]: item for item in ways}
    assert [port["port"] for port in reached["ringfence-vault"]["ports"]] == [8200]


def test_keys_of_models_come_from_the_operator_s_secret_and_none_stands_in_the_pod(stood_up):
    (container,) = pod(stood_up())["containers"]
    assert container["envFrom"] == [{"secretRef": {"name": "ringfence-models", "optional": True}}]
    assert not [item for item in container["env"] if "KEY" in item["name"] or "valueFrom" in item]


def test_the_pod_is_replaced_when_what_sandboxes_are_made_from_changes(stood_up):
    def told(**changes) -> str:
        template = stood_up(**changes).one(KIND["deployment"])["spec"]["template"]
        return template["metadata"]["annotations"]["ringfence.dev/project-sha256"]

    assert told(unit="a") == told(unit="a") != told(unit="b")


BAD = {
    "a tag instead of a digest": {"image": "ringfence:latest"},
    "nobody who can prove who they are": {"oidc_issuer": "", "oidc_audience": ""},
    "an issuer without an audience": {"oidc_audience": ""},
    "an issuer in the clear": {"oidc_issuer": "http://id.example.com"},
    "callers from everywhere": {"client_cidrs": ("0.0.0.0/0",)},
    "an endless drain": {"drain_seconds": 601},
    "files beyond a ConfigMap": {"files": {"a": "x" * 1_000_000}},
}


@pytest.mark.parametrize("case", BAD)
def test_a_lax_service_is_refused(case: str):
    from components.service import _check

    _check(GOOD)
    with pytest.raises(InputError):
        _check(dataclasses.replace(GOOD, **BAD[case]))
