"""The secrets store: OpenBao or HashiCorp Vault on the control side, unsealed by KMS."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pulumi
import pulumi_aws as aws
import pulumi_kubernetes as k8s
import pulumi_random as random

from components import vault_config as config
from components import vault_manifests as manifests
from components import vault_tls as tls
from components.encryption_key import encryption_key
from components.iam_documents import Statement, document, statement
from components.pod_identity import pod_identity_trust
from components.private_bucket import PrivateBucket, PrivateBucketArgs
from ringfence.errors import InputError, Problem
from ringfence.names import SYSTEM_NAMESPACE, VAULT_NAMESPACE, VAULT_SERVICE_ACCOUNT, Names
from ringfence.runner.manifests import POD_SECURITY_LABELS
from ringfence.versions import AWS_CLI_IMAGE

UNSEAL, SNAPSHOTS = "unseal", "vault-snapshots"
REPLICAS = (1, 3, 5)
_DIGEST = re.compile(r".+@sha256:[0-9a-f]{64}")
_TOKEN_REVIEW = "ringfence-vault-token-review"  # noqa: S105 (a ClusterRole's name)


@dataclass(frozen=True)
class VaultArgs:
    """distribution: ``openbao`` or ``vault``. replicas: 1, 3 or 5. storage_class: of the replicas' disks.

    keep: protect servers and snapshots from destruction (a destroy of the stack then stops before it touches anything,
    the unseal key included), and keep the disks of servers that go.
    tls_rotation: the day (ISO date) from which the server certificate is valid, for 825 days; a new day makes a new key.
    image, upload_image: by digest; image None means the distribution's own. snapshot_schedule: cron, in UTC.
    snapshot_days: how long snapshots are kept. cluster_ready: what must be there first: the cluster, the storage class
    and the namespace `ringfence-system`.
    """

    names: Names
    cluster_name: str
    storage_class: str
    distribution: str = config.OPENBAO
    replicas: int = 1
    keep: bool = True
    tls_rotation: str = tls.DEFAULT_ROTATION
    image: str | None = None
    upload_image: str = AWS_CLI_IMAGE
    snapshot_schedule: str = "17 */6 * * *"
    snapshot_days: int = 90
    cluster_ready: tuple[pulumi.Resource, ...] = ()


def images(distribution: str) -> tuple[str, ...]:
    """The images of a distribution and of the snapshot upload, where no others are given."""
    return (config.DISTRIBUTIONS[distribution].image, AWS_CLI_IMAGE)


def _check(args: VaultArgs) -> None:
    problems = tls.rotation_problems(args.tls_rotation, datetime.now(UTC).date())
    if args.distribution not in config.DISTRIBUTIONS:
        known = " or ".join(config.DISTRIBUTIONS)
        problems.append(Problem("vault", "distribution", f"{args.distribution!r} is not known", f"write {known}"))
    if args.replicas not in REPLICAS:
        remedy = "1, 3 or 5: an even number survives no more failures than the odd one below it"
        problems.append(Problem("vault", "replicas", f"is {args.replicas}", remedy))
    if args.snapshot_days < 1:
        problems.append(Problem("vault", "snapshot_days", f"is {args.snapshot_days}", "1 or more"))
    for key, image in (("image", args.image), ("upload_image", args.upload_image)):
        if image is not None and not _DIGEST.fullmatch(image):
            problems.append(Problem("vault", key, f"{image!r} names no digest", "write <name>@sha256:<64 hex digits>"))
    if problems:
        raise InputError(problems)


def _role_arn(names: Names) -> str:
    return names.iam_arn(f"role/{names.name('vault')}")


def unseal_key_denial(names: Names) -> Statement:
    """Nobody but the store's role uses the key, whatever IAM grants elsewhere: who could decrypt with it and reads a
    disk or a snapshot has every secret. Changing this statement takes kms:PutKeyPolicy, which the audit trail shows."""
    return statement(
        "Deny",
        ["kms:CreateGrant", "kms:Decrypt", "kms:Encrypt", "kms:GenerateDataKey*", "kms:ReEncrypt*"],
        "*",
        {"ArnNotEquals": {"aws:PrincipalArn": _role_arn(names)}},
        "*",
        "OnlyTheStoreUnseals",
    )


def unseal_document(names: Names) -> str:
    """What the servers may do at AWS: use the unseal key, which is named by its alias."""
    alias = {"ForAnyValue:StringEquals": {"kms:ResourceAliases": names.key_alias(UNSEAL)}}
    actions = ["kms:Decrypt", "kms:DescribeKey", "kms:Encrypt"]
    return document(statement("Allow", actions, names.arn("kms", "key/*"), alias, sid="Unseal"))


def snapshot_document(names: Names) -> str:
    """What the snapshot job may do at AWS: add objects under its prefix; neither read, list nor delete any."""
    objects = f"{names.bucket_arn(SNAPSHOTS)}/{config.SNAPSHOT_PREFIX}/*"
    return document(statement("Allow", "s3:PutObject", objects, sid="AddSnapshots"))


class Vault(pulumi.ComponentResource):
    """Where tools' secrets are kept: OpenBao, or HashiCorp Vault. Needs an AWS and a Kubernetes provider.

    Makes: the namespace `ringfence-vault`; KMS key and alias `unseal`; the servers' and the snapshot job's role, policy
    and Pod Identity association; a certificate authority and server certificate; configuration, service accounts, the
    right to review tokens, NetworkPolicies, Services, PodDisruptionBudget and StatefulSet; the snapshot bucket and
    CronJob; the authority's certificate as ConfigMap `vault-ca` here and in `ringfence-system`.
    Protects against: secrets readable on a disk, in a snapshot or on the wire (sealed by KMS, TLS 1.3 everywhere); use of
    the unseal key by anybody else (key policy); a login by any workload but the broker, or with a token made for the
    Kubernetes API (role bound to its service account, own audience); a broker that reads more than tools' secrets;
    unseen access (audit device; without it every request fails); connections from anywhere else (default deny); a
    root token lying around (revoked in set-up, never shown); a store split in two, or lost with its disk (snapshots);
    restarts that nobody asked for (OnDelete).
    Trust zone: control side.

    Set-up: OpenBao sets itself up at its first start. HashiCorp Vault waits for `bootstrap.sh` (in ConfigMap
    `vault-config`; its head says how to run it). Operators write tools' secrets inside of a server's pod, with a token
    made by ``kubectl create token vault-operator -n ringfence-vault --audience vault --duration 10m`` and role
    `operator`. After a change of configuration or certificate, delete the pods one by one.

    Outputs, all but ca_certificate known at preview: address; ca_certificate (PEM); audience (of login tokens);
    snapshot_bucket; service_account; unseal_key_alias; role_arn; snapshot_role_arn.
    """

    def __init__(self, name: str, args: VaultArgs, opts: pulumi.ResourceOptions | None = None):
        super().__init__("ringfence:index:Vault", name, None, opts)
        _check(args)
        self._name, self._args = name, args
        self._child = pulumi.ResourceOptions(parent=self)
        self._image = args.image or config.DISTRIBUTIONS[args.distribution].image
        names = args.names
        self.address: str = config.ADDRESS
        self.audience: str = config.AUDIENCE
        self.service_account: str = VAULT_SERVICE_ACCOUNT
        self.unseal_key_alias: str = names.key_alias(UNSEAL)
        self.snapshot_bucket: str = names.bucket(SNAPSHOTS)
        self.role_arn: str = _role_arn(names)
        self.snapshot_role_arn: str = names.iam_arn(f"role/{names.name('vault-snapshot')}")
        self._namespace()
        before = [self._unseal(), *self._network(), *self._accounts(), *self._certificates()]
        self._servers(before)
        self._snapshots(before)
        self.register_outputs({})

    def _meta(self, name: str, namespace: str = VAULT_NAMESPACE, **more: Any) -> dict[str, Any]:
        labels = dict(self._args.names.labels(config.NAME))
        return {"name": name, "namespace": namespace, "labels": labels, **more}

    def _namespace(self) -> None:
        labels = dict(self._args.names.labels(config.NAME)) | dict(POD_SECURITY_LABELS)
        namespace = k8s.core.v1.Namespace(
            f"{self._name}-namespace",
            metadata={"name": VAULT_NAMESPACE, "labels": labels},
            opts=pulumi.ResourceOptions(parent=self, depends_on=list(self._args.cluster_ready)),
        )
        self._inside = pulumi.ResourceOptions(parent=self, depends_on=[namespace])

    def _identity(self, thing: str, service_account: str, description: str, policy: str) -> pulumi.Resource:
        """A role that only `service_account` gets, with this one policy; returns the association to depend on."""
        names, key = self._args.names, f"{self._name}-{thing}"
        role = aws.iam.Role(
            f"{key}-role",
            name=names.name(thing),
            description=description,
            assume_role_policy=pod_identity_trust(names, self._args.cluster_name, VAULT_NAMESPACE, service_account),
            max_session_duration=3600,
            force_detach_policies=True,  # so that a policy added by hand does not hold up a destroy
            tags=names.tags(thing),
            opts=self._child,
        )
        inline = aws.iam.RolePolicy(f"{key}-policy", name="own", role=role.name, policy=policy, opts=self._child)
        aws.iam.RolePoliciesExclusive(
            f"{key}-no-other-inline", role_name=role.name, policy_names=[inline.name], opts=self._child
        )
        aws.iam.RolePolicyAttachmentsExclusive(
            f"{key}-no-managed", role_name=role.name, policy_arns=[], opts=self._child
        )
        return aws.eks.PodIdentityAssociation(
            f"{key}-pod-identity",
            cluster_name=self._args.cluster_name,
            namespace=VAULT_NAMESPACE,
            service_account=service_account,
            role_arn=role.arn,
            tags=names.tags(thing),
            opts=pulumi.ResourceOptions(parent=self, depends_on=[*self._args.cluster_ready, inline]),
        )

    def _unseal(self) -> pulumi.Resource:
        names = self._args.names
        encryption_key(
            f"{self._name}-unseal", names, UNSEAL, "Unseals the secrets store", (unseal_key_denial(names),), self
        )
        return self._identity("vault", VAULT_SERVICE_ACCOUNT, "Secrets store: unseals itself", unseal_document(names))

    def _network(self) -> list[pulumi.Resource]:
        return [
            k8s.networking.v1.NetworkPolicy(
                f"{self._name}-network-{policy}", metadata=self._meta(policy), spec=spec, opts=self._inside
            )
            for policy, spec in manifests.network_policies().items()
        ]

    def _accounts(self) -> list[pulumi.Resource]:
        """Service accounts without tokens of their own; the servers' may ask whether a token is genuine, no more."""
        accounts = [
            k8s.core.v1.ServiceAccount(
                f"{self._name}-account-{account}",
                metadata=self._meta(account),
                automount_service_account_token=False,
                opts=self._inside,
            )
            for account in (VAULT_SERVICE_ACCOUNT, config.SNAPSHOT_SERVICE_ACCOUNT, config.OPERATOR_SERVICE_ACCOUNT)
        ]
        group = "rbac.authorization.k8s.io"
        cluster_wide = {"name": _TOKEN_REVIEW, "labels": dict(self._args.names.labels(config.NAME))}
        role = k8s.rbac.v1.ClusterRole(
            f"{self._name}-token-review",
            metadata=cluster_wide,
            rules=[{"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]}],
            opts=self._inside,
        )
        binding = k8s.rbac.v1.ClusterRoleBinding(
            f"{self._name}-token-review-binding",
            metadata=cluster_wide,
            role_ref={"apiGroup": group, "kind": "ClusterRole", "name": _TOKEN_REVIEW},
            subjects=[{"kind": "ServiceAccount", "name": VAULT_SERVICE_ACCOUNT, "namespace": VAULT_NAMESPACE}],
            opts=pulumi.ResourceOptions(parent=self, depends_on=[role]),
        )
        return [*accounts, binding]

    def _certificates(self) -> list[pulumi.Resource]:
        """Private keys stand in the state (encrypted) and in the servers' Secret; the authority's in the state only."""
        args, child = self._args, self._child
        authority_name = args.names.name("vault-authority")
        rotation = args.tls_rotation
        left = (tls.expiry(rotation) - datetime.now(UTC).date()).days
        if left < tls.WARN_DAYS:
            pulumi.log.warn(f"the server certificate ends in {left} days: set tls_rotation to today", self)
        authority = random.RandomBytes(f"{self._name}-authority-seed", length=tls.SEED_BYTES, opts=child)
        server = random.RandomBytes(
            f"{self._name}-server-seed", length=tls.SEED_BYTES, keepers={"rotation": rotation}, opts=child
        )
        certificate = authority.base64.apply(
            lambda seed: tls.authority_certificate(
                base64.b64decode(seed), authority_name, config.authority_namespaces()
            )
        )
        self.ca_certificate: pulumi.Output[str] = pulumi.Output.unsecret(certificate)
        made = pulumi.Output.secret(
            pulumi.Output.all(authority.base64, server.base64).apply(
                lambda seeds: tls.server_credentials(
                    base64.b64decode(seeds[0]),
                    authority_name,
                    base64.b64decode(seeds[1]),
                    config.server_hosts(),
                    rotation,
                )
            )
        )
        secret = k8s.core.v1.Secret(
            f"{self._name}-tls",
            metadata=self._meta(manifests.TLS_SECRET),
            type="kubernetes.io/tls",
            data={
                "tls.crt": made.apply(lambda known: _base64(known.certificate)),
                "tls.key": made.apply(lambda known: _base64(known.private_key)),
                "ca.crt": self.ca_certificate.apply(_base64),
            },
            opts=self._inside,
        )
        for namespace in (VAULT_NAMESPACE, SYSTEM_NAMESPACE):
            k8s.core.v1.ConfigMap(
                f"{self._name}-ca-{namespace}",
                metadata=self._meta(manifests.CA_MAP, namespace),
                data={"ca.crt": self.ca_certificate},
                opts=self._inside,
            )
        return [secret]

    def _servers(self, before: list[pulumi.Resource]) -> None:
        args, names = self._args, self._args.names
        files = config.config_files(args.distribution, args.replicas, names.region, self.unseal_key_alias)
        told = k8s.core.v1.ConfigMap(
            f"{self._name}-config", metadata=self._meta(manifests.CONFIG_MAP), data=files, opts=self._inside
        )
        for service, headless in ((config.NAME, False), (config.HEADLESS, True)):
            # A Service counts as ready once a server is, which may take an operator.
            meta = self._meta(service, annotations={"pulumi.com/skipAwait": "true"})
            k8s.core.v1.Service(
                f"{self._name}-service-{service}",
                metadata=meta,
                spec=manifests.service_spec(headless),
                opts=self._inside,
            )
        k8s.policy.v1.PodDisruptionBudget(
            f"{self._name}-disruption",
            metadata=self._meta(config.NAME),
            spec=manifests.disruption_budget_spec(args.replicas),
            opts=self._inside,
        )
        k8s.apps.v1.StatefulSet(
            f"{self._name}-servers",
            metadata=self._meta(config.NAME, annotations={"pulumi.com/skipAwait": "true"}),
            spec=manifests.stateful_set_spec(
                args.distribution, self._image, args.replicas, names.region, args.storage_class, args.keep,
                manifests.config_digest(files),
            ),
            opts=pulumi.ResourceOptions(parent=self, depends_on=[*before, told], protect=args.keep),
        )  # fmt: skip

    def _snapshots(self, before: list[pulumi.Resource]) -> None:
        args, names = self._args, self._args.names
        # S3's own key suffices: what is in a snapshot is sealed with the unseal key already.
        bucket = PrivateBucket(
            f"{self._name}-snapshots",
            PrivateBucketArgs(names, SNAPSHOTS, keep=args.keep, noncurrent_days=30, expire_days=args.snapshot_days),
            self._child,
        )
        identity = self._identity(
            "vault-snapshot", config.SNAPSHOT_SERVICE_ACCOUNT, "Secrets store: adds snapshots", snapshot_document(names)
        )
        scripts = k8s.core.v1.ConfigMap(
            f"{self._name}-snapshot-scripts",
            metadata=self._meta(manifests.SCRIPTS_MAP),
            data=config.snapshot_files(args.distribution, self.snapshot_bucket),
            opts=self._inside,
        )
        k8s.batch.v1.CronJob(
            f"{self._name}-snapshot",
            metadata=self._meta(config.SNAPSHOT_SERVICE_ACCOUNT),
            spec=manifests.snapshot_job_spec(
                args.distribution, self._image, args.upload_image, names.region, args.snapshot_schedule
            ),
            opts=pulumi.ResourceOptions(parent=self, depends_on=[*before, bucket, identity, scripts]),
        )


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
