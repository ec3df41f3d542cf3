"""The secrets store's resources: who may reach, unseal, read and delete what."""

from __future__ import annotations

import base64
import json

import pulumi
import pytest
from cryptography import x509

from components.vault import Vault, VaultArgs
from ringfence.errors import InputError
from ringfence.iam.request import Principal
from tests.components.vault.conftest import NAMES

STATEFUL_SET, CRON_JOB = "kubernetes:apps/v1:StatefulSet", "kubernetes:batch/v1:CronJob"
SECRET, CONFIG_MAP, NETWORK = (
    "kubernetes:core/v1:Secret", "kubernetes:core/v1:ConfigMap", "kubernetes:networking.k8s.io/v1:NetworkPolicy",
)  # fmt: skip
ROLE_POLICY, KEY = "aws:iam/rolePolicy:RolePolicy", "aws:kms/key:Key"
KEY_ARN = "arn:aws:kms:us-east-1:111122223333:key/1234"
ALIAS = "alias/ringfence/test/unseal"
STORE = "arn:aws:sts::111122223333:assumed-role/ringfence-test-vault/eks-pod"
BUCKET = "arn:aws:s3:::ringfence-test-vault-snapshots-111122223333-us-east-1"


def pod(recording) -> dict:
    return recording.one(STATEFUL_SET)["spec"]["template"]["spec"]


def job_pod(recording) -> dict:
    return recording.one(CRON_JOB)["spec"]["jobTemplate"]["spec"]["template"]["spec"]


def pods(recording) -> list[dict]:
    return [pod(recording), job_pod(recording)]


def containers(spec: dict) -> list[dict]:
    return [*spec.get("initContainers", []), *spec["containers"]]


def test_everything_hangs_on_the_component_and_outputs_but_the_certificate_are_known(stood_up, preview, unknown):
    recording = stood_up(preview=preview)
    assert recording.unparented() == []
    authority = recording.outputs.pop("ca_certificate")
    assert recording.outputs == {
        "address": "https://vault.ringfence-vault.svc:8200",
        "snapshot_bucket": "ringfence-test-vault-snapshots-111122223333-us-east-1",
        "service_account": "vault",
        "unseal_key_alias": ALIAS,
        "role_arn": "arn:aws:iam::111122223333:role/ringfence-test-vault",
        "snapshot_role_arn": "arn:aws:iam::111122223333:role/ringfence-test-vault-snapshot",
        "audience": "vault",
    }
    assert authority is unknown if preview else authority.startswith("-----BEGIN CERTIFICATE-----")


@pytest.mark.parametrize("replicas", [1, 3])
@pytest.mark.parametrize("distribution", ["openbao", "vault"])
def test_the_workloads_are_the_reviewed_ones(stood_up, golden, distribution, replicas):
    recording = stood_up(distribution=distribution, replicas=replicas)
    kinds = (STATEFUL_SET, CRON_JOB, NETWORK, "kubernetes:core/v1:Service", "kubernetes:policy/v1:PodDisruptionBudget")
    made = {r.name: r["spec"] for kind in kinds for r in recording.of_type(kind)}
    golden(f"vault/{distribution}-{replicas}/workloads.json", json.dumps(made, indent=2, sort_keys=True) + "\n")


def test_iam_documents_are_the_reviewed_ones_and_known_at_preview(stood_up, preview, golden):
    recording = stood_up(preview=preview)
    texts = {
        r.name: r["policy"]
        for kind in (ROLE_POLICY, KEY, "aws:s3/bucketPolicy:BucketPolicy")
        for r in recording.of_type(kind)
    }
    texts |= {r.name: r["assumeRolePolicy"] for r in recording.of_type("aws:iam/role:Role")}
    documents = {name: json.loads(text) for name, text in texts.items()}
    golden("vault/iam.json", json.dumps(documents, indent=2, sort_keys=True) + "\n")


def test_the_store_uses_the_unseal_key_and_no_other(stood_up, preview, identity_permits):
    policy = stood_up(preview=preview).one(ROLE_POLICY, "vault-vault-policy")["policy"]
    for action in ("kms:Encrypt", "kms:Decrypt", "kms:DescribeKey"):
        assert identity_permits([policy], action, KEY_ARN, {"kms:ResourceAliases": ALIAS})
        assert not identity_permits([policy], action, KEY_ARN, {"kms:ResourceAliases": "alias/ringfence/test/audit"})
        assert not identity_permits([policy], action, KEY_ARN)
    assert not identity_permits([policy], "kms:ScheduleKeyDeletion", KEY_ARN, {"kms:ResourceAliases": ALIAS})


def test_nobody_but_the_store_unseals_whatever_iam_grants(stood_up, preview, resource_permits):
    policy = stood_up(preview=preview).one(KEY)["policy"]
    store = Principal("AWS", STORE)
    admin = Principal("AWS", "arn:aws:sts::111122223333:assumed-role/admin/someone")
    for action in ("kms:Decrypt", "kms:Encrypt", "kms:CreateGrant", "kms:ReEncryptFrom", "kms:GenerateDataKey"):
        assert resource_permits(policy, store, action, KEY_ARN)
        assert not resource_permits(policy, admin, action, KEY_ARN)
    assert resource_permits(policy, admin, "kms:DescribeKey", KEY_ARN)


def test_the_snapshot_job_adds_objects_and_reads_lists_and_deletes_none(stood_up, preview, identity_permits):
    policy = stood_up(preview=preview).one(ROLE_POLICY, "vault-vault-snapshot-policy")["policy"]
    key = f"{BUCKET}/raft/2026/11/22/000000Z.snap"
    assert identity_permits([policy], "s3:PutObject", key)
    assert not identity_permits([policy], "s3:PutObject", f"{BUCKET}/other")
    for action in ("s3:GetObject", "s3:DeleteObject", "s3:DeleteObjectVersion", "s3:PutObjectAcl"):
        assert not identity_permits([policy], action, key)
    assert not identity_permits([policy], "s3:ListBucket", BUCKET)
    assert not identity_permits([policy], "kms:Decrypt", KEY_ARN, {"kms:ResourceAliases": ALIAS})


def test_roles_belong_to_one_service_account_each_and_have_no_other_policy(stood_up, preview):
    recording = stood_up(preview=preview)
    accounts = {"vault-vault-role": "vault", "vault-vault-snapshot-role": "vault-snapshot"}
    for name, account in accounts.items():
        role = recording.one("aws:iam/role:Role", name)
        assert role["forceDetachPolicies"] is True
        trust = json.loads(role["assumeRolePolicy"])["Statement"][0]
        tags = trust["Condition"]["StringEquals"]
        assert tags["aws:RequestTag/kubernetes-service-account"] == [account]
        assert tags["aws:RequestTag/kubernetes-namespace"] == ["ringfence-vault"]
    bound = {
        (r["namespace"], r["serviceAccount"])
        for r in recording.of_type("aws:eks/podIdentityAssociation:PodIdentityAssociation")
    }
    assert bound == {("ringfence-vault", "vault"), ("ringfence-vault", "vault-snapshot")}
    exclusive = recording.of_type("aws:iam/rolePoliciesExclusive:RolePoliciesExclusive")
    assert [r["policyNames"] for r in exclusive] == [["own"], ["own"]]
    attachments = recording.of_type("aws:iam/rolePolicyAttachmentsExclusive:RolePolicyAttachmentsExclusive")
    assert [r["policyArns"] for r in attachments] == [[], []]


def test_private_keys_stand_in_one_secret_only_and_are_marked_secret(stood_up, preview):
    recording = stood_up(preview=preview)
    secret = recording.one(SECRET)
    assert secret.inputs["type"] == "kubernetes.io/tls" and "data" in secret.secret_inputs
    for resource in recording.resources:
        if resource.type != SECRET:
            assert "PRIVATE KEY" not in json.dumps(resource.inputs, default=str)
    seeds = recording.of_type("random:index/randomBytes:RandomBytes")
    assert [(r["length"], set(r.options.additional_secret_outputs)) for r in seeds] == [(32, {"base64", "hex"})] * 2
    if not preview:
        data = {key: base64.b64decode(value).decode() for key, value in secret["data"].items()}
        assert data["tls.key"].startswith("-----BEGIN PRIVATE KEY-----")
        server = x509.load_pem_x509_certificate(data["tls.crt"].encode())
        server.verify_directly_issued_by(x509.load_pem_x509_certificate(data["ca.crt"].encode()))
        assert data["ca.crt"] == recording.outputs["ca_certificate"]


def test_the_certificate_output_is_public_and_the_private_key_is_not(record):
    seen: dict[str, bool] = {}

    async def program() -> None:
        vault = Vault("vault", VaultArgs(NAMES, "ringfence-test", "ringfence-encrypted"))
        seen["certificate"] = await vault.ca_certificate.is_secret()

    record(program, preview=True)
    assert seen == {"certificate": False}


def test_a_rotation_makes_a_new_server_key_and_keeps_the_authority(stood_up, preview):
    before, after = (stood_up(preview=preview, tls_rotation=day) for day in ("2026-11-01", "2026-11-02"))

    def keepers(recording, name):
        return recording.one("random:index/randomBytes:RandomBytes", name).inputs.get("keepers")

    assert keepers(before, "vault-server-seed") != keepers(after, "vault-server-seed")
    assert keepers(before, "vault-authority-seed") == keepers(after, "vault-authority-seed")


def test_the_second_run_registers_the_same(stood_up):
    first, second = (stood_up(replicas=3) for _ in range(2))
    assert {r.urn: r.inputs for r in first.resources} == {r.urn: r.inputs for r in second.resources}


def policies(recording) -> dict[str, dict]:
    return {r["metadata"]["name"]: r["spec"] for r in recording.of_type(NETWORK)}


def test_only_the_broker_the_snapshot_job_and_peers_reach_the_store(stood_up, preview):
    specs = policies(stood_up(preview=preview))
    assert specs["default-deny"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    allowed = [
        (
            peer.get("namespaceSelector", {}).get("matchLabels", {}).get("kubernetes.io/metadata.name", "own"),
            peer["podSelector"]["matchLabels"]["app.kubernetes.io/name"],
            [port["port"] for port in rule["ports"]],
        )
        for rule in specs["vault"]["ingress"]
        for peer in rule["from"]
    ]
    assert allowed == [
        ("ringfence-system", "ringfence", [8200]),
        ("own", "vault-snapshot", [8200]),
        ("own", "vault", [8200, 8201]),
    ]
    assert "ingress" not in specs["vault-snapshot"] and "Ingress" in specs["vault-snapshot"]["policyTypes"]


def test_nothing_leaves_the_namespace_but_to_named_pods_the_agent_and_https(stood_up, preview):
    for name, spec in policies(stood_up(preview=preview)).items():
        for rule in spec.get("egress", []):
            assert rule["to"] and rule["ports"], f"{name} has an open rule"
            for peer in rule["to"]:
                block = peer.get("ipBlock")
                if block is None:
                    assert peer["podSelector"]["matchLabels"]
                elif block["cidr"] == "0.0.0.0/0":
                    assert block["except"] == ["169.254.0.0/16"]
                    assert [port["port"] for port in rule["ports"]] == [443]
                else:
                    assert (block["cidr"], [p["port"] for p in rule["ports"]]) == ("169.254.170.23/32", [80])


def test_policies_select_servers_by_exactly_the_services_own_labels(stood_up, preview):
    recording = stood_up(preview=preview)
    service = recording.one("kubernetes:core/v1:Service", "vault-service-vault")
    selectors = [
        peer["podSelector"]["matchLabels"]
        for rule in policies(recording)["vault-snapshot"]["egress"]
        for peer in rule["to"]
        if "podSelector" in peer and "namespaceSelector" not in peer
    ]
    assert selectors == [service["spec"]["selector"]]
    job = recording.one(CRON_JOB)["spec"]["jobTemplate"]["spec"]["template"]["metadata"]["labels"]
    assert not set(service["spec"]["selector"].items()) & set(job.items())


def test_pods_are_locked_down_and_stay_off_sandbox_nodes(stood_up, preview):
    for spec in pods(stood_up(preview=preview, replicas=3)):
        assert spec["automountServiceAccountToken"] is False and spec["enableServiceLinks"] is False
        assert spec["securityContext"]["runAsNonRoot"] and spec["securityContext"]["runAsUser"] > 0
        required = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        assert required["nodeSelectorTerms"] == [
            {"matchExpressions": [{"key": "ringfence.dev/sandbox", "operator": "DoesNotExist"}]}
        ]
        for container in containers(spec):
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"] is True and context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert "@sha256:" in container["image"]
            assert container["resources"]["limits"]["memory"]


def test_servers_hold_only_the_token_that_reviews_logins(stood_up, preview):
    recording = stood_up(preview=preview)
    volumes = {v["name"]: v for v in pod(recording)["volumes"]}
    tokens = [
        s for v in volumes.values() for s in v.get("projected", {}).get("sources", []) if "serviceAccountToken" in s
    ]
    assert tokens == [{"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}}]
    role = recording.one("kubernetes:rbac.authorization.k8s.io/v1:ClusterRole")
    assert role["rules"] == [
        {"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]}
    ]
    subjects = recording.one("kubernetes:rbac.authorization.k8s.io/v1:ClusterRoleBinding")["subjects"]
    assert [(s["namespace"], s["name"]) for s in subjects] == [("ringfence-vault", "vault")]
    accounts = recording.of_type("kubernetes:core/v1:ServiceAccount")
    assert {r["metadata"]["name"] for r in accounts} == {"vault", "vault-snapshot", "vault-operator"}
    assert all(r["automountServiceAccountToken"] is False for r in accounts)


def test_the_upload_container_gets_no_token_for_the_store(stood_up, preview):
    spec = job_pod(stood_up(preview=preview))
    mounts = {c["name"]: {m["name"] for m in c["volumeMounts"]} for c in containers(spec)}
    assert "token" in mounts["snapshot"] and "token" not in mounts["upload"]
    token = next(v for v in spec["volumes"] if v["name"] == "token")["projected"]["sources"]
    assert token[0]["serviceAccountToken"]["audience"] == "vault"


def test_replicas_are_apart_and_are_updated_only_by_hand(stood_up, preview):
    recording = stood_up(preview=preview, replicas=3)
    spec = recording.one(STATEFUL_SET)["spec"]
    assert spec["updateStrategy"] == {"type": "OnDelete"} and spec["podManagementPolicy"] == "Parallel"
    apart = pod(recording)["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert [term["topologyKey"] for term in apart] == ["kubernetes.io/hostname"]
    assert [c["topologyKey"] for c in pod(recording)["topologySpreadConstraints"]] == ["topology.kubernetes.io/zone"]


@pytest.mark.parametrize(("replicas", "unavailable"), [(1, 1), (3, 1), (5, 2)])
def test_a_drain_leaves_a_majority(stood_up, replicas, unavailable):
    budget = stood_up(replicas=replicas).one("kubernetes:policy/v1:PodDisruptionBudget")["spec"]
    assert budget["maxUnavailable"] == unavailable
    assert replicas == 1 or replicas - unavailable > replicas / 2


def test_the_namespace_refuses_pods_that_are_not_restricted(stood_up, preview):
    labels = stood_up(preview=preview).one("kubernetes:core/v1:Namespace")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


@pytest.mark.parametrize("keep", [True, False])
def test_what_is_to_be_kept_is_protected(stood_up, preview, keep):
    recording = stood_up(preview=preview, keep=keep)
    servers, bucket = recording.one(STATEFUL_SET), recording.one("aws:s3/bucket:Bucket")
    assert servers.options.protect is bucket.options.protect is keep
    assert bucket["forceDestroy"] is not keep
    retention = "Retain" if keep else "Delete"
    assert set(servers["spec"]["persistentVolumeClaimRetentionPolicy"].values()) == {retention}


def test_servers_start_after_their_identity_network_and_certificate(stood_up, preview):
    needed = stood_up(preview=preview).one(STATEFUL_SET).options.depends_on
    names = {urn.rpartition("::")[2] for urn in needed}
    assert {"vault-vault-pod-identity", "vault-tls", "vault-config", "vault-network-default-deny"} <= names


def test_a_changed_configuration_changes_the_pod_template_and_nothing_else_of_it(stood_up):
    one, three = (stood_up(replicas=replicas).one(STATEFUL_SET)["spec"]["template"] for replicas in (3, 5))
    assert one["metadata"]["annotations"] != three["metadata"]["annotations"]
    assert one["spec"] == three["spec"]


def test_all_bad_arguments_are_told_at_once(record):
    def program() -> None:
        Vault(
            "vault",
            VaultArgs(
                NAMES,
                "c",
                "s",
                "keywhiz",
                2,
                tls_rotation="soon",
                image="vault:latest",
                upload_image="aws-cli",
                snapshot_days=0,
            ),
        )

    with pytest.raises(InputError) as caught:
        record(program)
    assert sorted(problem.key for problem in caught.value.problems) == [
        "distribution", "image", "replicas", "snapshot_days", "tls_rotation", "upload_image",
    ]  # fmt: skip
    assert all(problem.remedy for problem in caught.value.problems)


def test_a_certificate_that_ends_soon_is_warned_about(stood_up, monkeypatch):
    warned: list[str] = []
    monkeypatch.setattr(pulumi.log, "warn", lambda message, *_: warned.append(message))
    stood_up()
    assert warned == []
    monkeypatch.setattr("components.vault_tls.WARN_DAYS", 1000)
    stood_up()
    assert len(warned) == 1 and "tls_rotation" in warned[0]
