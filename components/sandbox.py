"""The fence around sandboxes inside the cluster: admission rules, Pod Security, the runner's rights, the unit's limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pulumi
import pulumi_kubernetes as k8s

from components import sandbox_policies as policies
from ringfence.names import RUNNER_SERVICE_ACCOUNT, SYSTEM_NAMESPACE, Names
from ringfence.runner import manifests
from ringfence.runner.unit_settings import CONFIG_MAP, KEY, GatewayAddress, UnitSettings

ADMISSION = "admissionregistration.k8s.io"
RUNNER_CLUSTER_ROLE = "ringfence-sandbox-runner"
RECORDS_ROLE = "ringfence-runner-records"


@dataclass(frozen=True)
class SandboxArgs:
    """registries: where sandbox images may come from; tool_ports: tool → proxy listener port; proxy_cidrs: its addresses;
    image: the sandbox's own, by digest; gateway: where sandboxes reach the model gateway. Without these two no runner can
    make a sandbox."""

    names: Names
    registries: Sequence[str]
    tool_ports: Mapping[str, int] = field(default_factory=dict)
    proxy_cidrs: Sequence[pulumi.Input[str]] = ()
    limits: manifests.UnitLimits = field(default_factory=manifests.UnitLimits)
    max_concurrent: int = 100
    image: str = ""
    gateway: GatewayAddress | None = None


class Sandbox(pulumi.ComponentResource):
    """What the API server refuses in `sandbox-*` namespaces, and what the runner may do there.

    Makes: the `ringfence-system` namespace (Pod Security restricted, all ingress denied) with the runner's service account;
    ValidatingAdmissionPolicies, each bound with Deny, for sandbox pods, for entering them, for their namespace's labels, for
    the NetworkPolicy, ResourceQuota and LimitRange that must be there first, and for the runner's own requests; the runner's
    ClusterRoles, and its Role for Leases beside itself; the ConfigMap with the unit's limits, image, gateway and proxy ports.

    Protects against: a sandbox without gVisor, with a host namespace, path, port or device, with a token or identity, with an
    image that was not reviewed, without bounds in size or time, with DNS or any network before its policy stands; a shell in
    a running sandbox; a runner that is taken over and turns to other namespaces or binds itself more rights.

    Trust zone: control side. It holds whatever runs in the sandbox, since the API server decides.

    Attributes: system_namespace, runner_service_account, unit (the ConfigMap's text; an Output if an address of the proxy
    is one); known at preview.
    """

    def __init__(self, name: str, args: SandboxArgs, opts: pulumi.ResourceOptions | None = None):
        super().__init__("ringfence:index:Sandbox", name, None, opts)
        self._name = name
        self._args = args
        self._child = pulumi.ResourceOptions(parent=self)
        self.system_namespace = SYSTEM_NAMESPACE
        self.runner_service_account = RUNNER_SERVICE_ACCOUNT
        self._control_namespace()
        self._pod_policies()
        self._unit_policies()
        self._runner_policy()
        self._runner_rights()
        self._runner_records()
        self.register_outputs({})

    def _meta(self, name: str, namespace: str | None = None, **labels: str) -> k8s.meta.v1.ObjectMetaArgs:
        return k8s.meta.v1.ObjectMetaArgs(
            name=name, namespace=namespace, labels={**self._args.names.labels("sandbox"), **labels}
        )

    def _control_namespace(self) -> None:
        namespace = k8s.core.v1.Namespace(
            f"{self._name}-system",
            metadata=self._meta(SYSTEM_NAMESPACE, **manifests.POD_SECURITY_LABELS),
            opts=self._child,
        )
        self._inside = pulumi.ResourceOptions(parent=self, depends_on=[namespace])
        k8s.networking.v1.NetworkPolicy(
            f"{self._name}-system-ingress",
            metadata=self._meta("default-deny-ingress", SYSTEM_NAMESPACE),
            spec={"pod_selector": {}, "policy_types": ["Ingress"]},
            opts=self._inside,
        )
        k8s.core.v1.ServiceAccount(
            f"{self._name}-runner",
            metadata=self._meta(RUNNER_SERVICE_ACCOUNT, SYSTEM_NAMESPACE),
            automount_service_account_token=False,
            opts=self._inside,
        )
        args = self._args
        known = [cidr for cidr in args.proxy_cidrs if isinstance(cidr, str)]
        whole = len(known) == len(args.proxy_cidrs)
        self.unit: pulumi.Input[str] = (
            self._unit(known) if whole else pulumi.Output.all(*args.proxy_cidrs).apply(self._unit)
        )
        k8s.core.v1.ConfigMap(
            f"{self._name}-unit",
            metadata=self._meta(CONFIG_MAP, SYSTEM_NAMESPACE),
            data={KEY: self.unit},
            opts=self._inside,
        )

    def _unit(self, proxy_cidrs: Sequence[str]) -> str:
        args = self._args
        return UnitSettings(
            limits=args.limits,
            max_concurrent=args.max_concurrent,
            registries=tuple(args.registries),
            proxy_cidrs=tuple(proxy_cidrs),
            tool_ports=args.tool_ports,
            image=args.image,
            gateway=args.gateway,
        ).render()

    def _policy(
        self,
        suffix: str,
        rules: Sequence[policies.Rule],
        match: Mapping[str, Any],
        *,
        conditions: Sequence[tuple[str, str]] = (),
        variables: Sequence[Mapping[str, str]] = (),
        param: tuple[str, str, str] | None = None,
        namespace_selector: Mapping[str, Any] | None = None,
    ) -> None:
        """One ValidatingAdmissionPolicy and its binding. `param`: (apiVersion, kind, name) that must exist beside the object."""
        policy_name = f"{self._args.names.prefix}-{suffix}"
        spec: dict[str, Any] = {
            "failurePolicy": "Fail",
            "matchConstraints": {"resourceRules": [match]},
            "matchConditions": [{"name": key, "expression": value} for key, value in conditions],
            "variables": list(variables),
            "validations": [rule.validation() for rule in rules],
        }
        binding: dict[str, Any] = {"policyName": policy_name, "validationActions": ["Deny", "Audit"]}
        if param:
            spec["paramKind"] = {"apiVersion": param[0], "kind": param[1]}
            binding["paramRef"] = {"name": param[2], "parameterNotFoundAction": "Deny"}
        if namespace_selector:
            binding["matchResources"] = {"namespaceSelector": namespace_selector}
        policy = k8s.admissionregistration.v1.ValidatingAdmissionPolicy(
            f"{self._name}-{suffix}", metadata=self._meta(policy_name), spec=spec, opts=self._child
        )
        k8s.admissionregistration.v1.ValidatingAdmissionPolicyBinding(
            f"{self._name}-{suffix}-binding",
            metadata=self._meta(policy_name),
            spec=binding,
            opts=pulumi.ResourceOptions(parent=self, depends_on=[policy]),
        )

    def _pod_policies(self) -> None:
        in_sandbox = [("in-a-sandbox-namespace", policies.IN_SANDBOX)]
        self._policy(
            "sandbox-pod",
            policies.pod_rules(self._args.registries),
            _match("", ["pods"], ["CREATE", "UPDATE"]),
            conditions=in_sandbox,
            variables=[policies.CONTAINERS_VARIABLE],
        )
        # resize is a door of its own too: limits raised through it would pass by the rules above.
        ways = ("exec", "attach", "portforward", "proxy", "ephemeralcontainers", "resize")
        entries = [f"pods/{way}" for way in ways]
        self._policy(
            "sandbox-entry",
            [policies.DENY_ENTRY],
            _match("", entries, ["CREATE", "UPDATE", "CONNECT"]),
            conditions=in_sandbox,
        )

    def _unit_policies(self) -> None:
        self._policy(
            "sandbox-namespace",
            policies.NAMESPACE_RULES,
            _match("", ["namespaces"], ["CREATE", "UPDATE"]),
            conditions=[("is-a-sandbox-namespace", policies.IS_SANDBOX_NAMESPACE)],
        )
        required = {
            "network": (
                policies.NETWORK_RULES,
                ("networking.k8s.io/v1", "NetworkPolicy", manifests.NETWORK_POLICY_NAME),
            ),
            "quota": (policies.QUOTA_RULES, ("v1", "ResourceQuota", manifests.QUOTA_NAME)),
            "limits": (policies.LIMIT_RULES, ("v1", "LimitRange", manifests.LIMIT_RANGE_NAME)),
        }
        # Selected by label, not by name: a missing parameter is refused before match conditions are looked at, which
        # would stop pods everywhere. The namespace rule above makes the label certain on every sandbox namespace.
        labelled = {"matchExpressions": [{"key": manifests.INVOCATION_LABEL, "operator": "Exists"}]}
        for kind, (rules, param) in required.items():
            self._policy(
                f"sandbox-needs-{kind}",
                rules,
                _match("", ["pods"], ["CREATE"]),
                param=param,
                namespace_selector=labelled,
            )

    def _runner_policy(self) -> None:
        self._policy(
            "runner-stays-in-sandboxes",
            policies.RUNNER_RULES,
            _match("*", ["*"], ["CREATE", "UPDATE", "DELETE"]),
            conditions=[("is-the-runner", f"request.userInfo.username == '{policies.RUNNER_USER}'")],
        )

    def _runner_rights(self) -> None:
        cluster_rules = [
            _rule("", ["namespaces"], ["create", "delete", "get", "list", "watch"]),
            _rule("rbac.authorization.k8s.io", ["rolebindings"], ["create"]),
            {
                **_rule("rbac.authorization.k8s.io", ["clusterroles"], ["bind"]),
                "resourceNames": [policies.UNIT_CLUSTER_ROLE],
            },
        ]
        unit_rules = [
            # patch: the wall clock of a sandbox that waited for its task, which the API lets nobody raise.
            _rule("", ["pods"], ["create", "delete", "get", "list", "watch", "patch"]),
            _rule("", ["pods/log"], ["get"]),
            # No get, list or watch: the runner hands credentials in and never reads one back.
            _rule("", ["secrets"], ["create", "delete"]),
            _rule("", ["resourcequotas", "limitranges"], ["create", "get"]),
            _rule("networking.k8s.io", ["networkpolicies"], ["create", "get"]),
        ]
        runner = k8s.rbac.v1.ClusterRole(
            f"{self._name}-runner-role", metadata=self._meta(RUNNER_CLUSTER_ROLE), rules=cluster_rules, opts=self._child
        )
        k8s.rbac.v1.ClusterRole(
            f"{self._name}-unit-role",
            metadata=self._meta(policies.UNIT_CLUSTER_ROLE),
            rules=unit_rules,
            opts=self._child,
        )
        k8s.rbac.v1.ClusterRoleBinding(
            f"{self._name}-runner-binding",
            metadata=self._meta(RUNNER_CLUSTER_ROLE),
            role_ref={"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": RUNNER_CLUSTER_ROLE},
            subjects=[{"kind": "ServiceAccount", "name": RUNNER_SERVICE_ACCOUNT, "namespace": SYSTEM_NAMESPACE}],
            opts=pulumi.ResourceOptions(parent=self, depends_on=[runner]),
        )

    def _runner_records(self) -> None:
        """Leases in the system namespace: who lives, and which invocations aren't finished; and the unit's settings."""
        rules = [
            _rule("coordination.k8s.io", ["leases"], ["create", "delete", "get", "list", "update"]),
            {**_rule("", ["configmaps"], ["get"]), "resourceNames": [CONFIG_MAP]},
        ]
        role = k8s.rbac.v1.Role(
            f"{self._name}-runner-records",
            metadata=self._meta(RECORDS_ROLE, SYSTEM_NAMESPACE),
            rules=rules,
            opts=self._inside,
        )
        k8s.rbac.v1.RoleBinding(
            f"{self._name}-runner-records-binding",
            metadata=self._meta(RECORDS_ROLE, SYSTEM_NAMESPACE),
            role_ref={"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": RECORDS_ROLE},
            subjects=[{"kind": "ServiceAccount", "name": RUNNER_SERVICE_ACCOUNT, "namespace": SYSTEM_NAMESPACE}],
            opts=pulumi.ResourceOptions(parent=self, depends_on=[role]),
        )


def _match(group: str, resources: list[str], operations: list[str]) -> dict[str, Any]:
    return {"apiGroups": [group], "apiVersions": ["*"], "resources": resources, "operations": operations}


def _rule(group: str, resources: list[str], verbs: list[str]) -> dict[str, Any]:
    return {"apiGroups": [group], "resources": resources, "verbs": verbs}
