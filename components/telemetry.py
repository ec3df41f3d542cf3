"""Logs, metrics and traces of the environment: collected, redacted, shown, alarmed."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pulumi
import pulumi_aws as aws
import pulumi_kubernetes as k8s

from components import collector_config as config
from components import collector_manifests as manifests
from components.alarms import EGRESS_METRIC, Alarm, alarms, alerts_namespace, egress_namespace
from components.dashboards import AGENTS, PLATFORM, agents_dashboard, platform_dashboard
from components.iam_documents import document, statement
from components.pod_identity import pod_identity_trust
from ringfence import telemetry_names as t
from ringfence.errors import InputError, Problem
from ringfence.names import COLLECTOR_SERVICE_ACCOUNT, SYSTEM_NAMESPACE, Names
from ringfence.versions import COLLECTOR_IMAGE

GATEWAY_HOST = f"{t.COLLECTOR}.{SYSTEM_NAMESPACE}.svc.cluster.local"
_DIGEST = re.compile(r".+@sha256:[0-9a-f]{64}")
_RBAC = "rbac.authorization.k8s.io"


@dataclass(frozen=True)
class TelemetryArgs:
    """alarm_topic_arn: `Budget.topic_arn`. vpc_cidr and service_cidr: where the Kubernetes API answers. replicas: of
    the gateway. conversation_cap_usd: what one conversation may cost. image: by digest.
    cluster_ready: what must be there first: the cluster, the log groups and the namespace `ringfence-system`."""

    names: Names
    cluster_name: str
    alarm_topic_arn: pulumi.Input[str]
    vpc_cidr: str
    service_cidr: str
    replicas: int = 1
    conversation_cap_usd: Decimal = Decimal(10)
    image: str = COLLECTOR_IMAGE
    cluster_ready: tuple[pulumi.Resource, ...] = ()


def _check(args: TelemetryArgs) -> None:
    problems = []
    if not 1 <= args.replicas <= 10:
        problems.append(Problem("telemetry", "replicas", f"is {args.replicas}", "1 to 10"))
    if not args.conversation_cap_usd > 0:
        remedy = "a number of US dollars above 0"
        problems.append(Problem("telemetry", "conversation_cap_usd", f"is {args.conversation_cap_usd}", remedy))
    if not _DIGEST.fullmatch(args.image):
        remedy = "write <name>@sha256:<64 hex digits>"
        problems.append(Problem("telemetry", "image", f"{args.image!r} names no digest", remedy))
    if problems:
        raise InputError(problems)


def collector_document(names: Names) -> str:
    """What the gateway may do at AWS: add events to its own groups, hand over spans. It makes no group, reads nothing.

    X-Ray knows no resources for segments (docs.aws.amazon.com/service-authorization/latest/reference/list_awsx-ray.html),
    hence "*", in this region only.
    """
    groups = [
        names.arn("logs", f"log-group:{names.log_group(s)}:*") for s in (*config.LOG_STREAMS, config.METRICS_STREAM)
    ]
    return document(
        statement("Allow", ["logs:CreateLogStream", "logs:PutLogEvents"], groups, sid="AddEvents"),
        statement(
            "Allow",
            "xray:PutTraceSegments",
            "*",
            {"StringEquals": {"aws:RequestedRegion": names.region}},
            sid="AddSpans",
        ),
    )


class Telemetry(pulumi.ComponentResource):
    """The OpenTelemetry Collector as gateway and node agent, dashboards and alarms. Needs an AWS and a Kubernetes provider.

    Makes: the gateway's role, policy and Pod Identity association; its service account, configuration, Service,
    NetworkPolicy, PodDisruptionBudget and Deployment in `ringfence-system`; the namespace `ringfence-telemetry` with its
    admission policy, NetworkPolicy and the node agent's service account, configuration and DaemonSet; the ClusterRole by
    which both read pods' and namespaces' names; two dashboards; a metric of the proxy's refusals; the alarms.
    Protects against: secrets, prompts and tool results in logs (allow-list of attributes, patterns on values and texts;
    twice for what a node agent reads); a sandbox that writes into the audit log, speaks for another pod, invents the
    platform's figures or drives up cost with invented dimensions (the gateway goes by the sender's address); a sender that
    exhausts the gateway (memory limit, message and stream bounds); a stolen collector reading logs, secrets or other
    groups (role, RBAC); an agent pod used to reach its node (admission policy); blind spots (alarm on silence and loss).
    Trust zone: control side. The agent runs on system nodes only: on the gVisor pool it would put a Kubernetes token and
    the node's files beside hostile code. A sandbox's output is read by the runner, which knows what it was handed, and
    sent from there; instrumented agents send their own spans and metrics to port 4317.

    The agents' namespace enforces Pod Security `privileged`, the only level that takes a hostPath; the admission policy
    puts back everything else of `restricted` and leaves /var/log/pods, read-only.

    Outputs, known at preview: otlp_endpoint (gRPC, without TLS; a sandbox has no DNS: the runner resolves it);
    otlp_port; dashboard_names; alarm_names; role_arn.
    """

    def __init__(self, name: str, args: TelemetryArgs, opts: pulumi.ResourceOptions | None = None):
        super().__init__("ringfence:index:Telemetry", name, None, opts)
        _check(args)
        self._name, self._args = name, args
        self._child = pulumi.ResourceOptions(parent=self)
        self._ready = pulumi.ResourceOptions(parent=self, depends_on=list(args.cluster_ready))
        self.otlp_port: int = t.OTLP_PORT
        self.otlp_endpoint: str = f"http://{GATEWAY_HOST}:{t.OTLP_PORT}"
        self.role_arn: str = args.names.iam_arn(f"role/{args.names.name(t.COLLECTOR)}")
        namespace = k8s.core.v1.Namespace(
            f"{name}-namespace",
            metadata={
                "name": t.TELEMETRY_NAMESPACE,
                "labels": dict(args.names.labels(t.COLLECTOR_AGENT)) | manifests.AGENT_NAMESPACE_LABELS,
            },
            opts=self._ready,
        )
        self._inside = pulumi.ResourceOptions(parent=self, depends_on=[namespace])
        readers = self._readers()
        self._gateway([self._identity(), *readers])
        self._agents(readers)
        self.dashboard_names: tuple[str, ...] = self._dashboards()
        self.alarm_names: tuple[str, ...] = self._alarms()
        self.register_outputs({})

    def _meta(self, name: str, namespace: str, **more: Any) -> dict[str, Any]:
        return {"name": name, "namespace": namespace, "labels": dict(self._args.names.labels(name)), **more}

    def _identity(self) -> pulumi.Resource:
        args, names = self._args, self._args.names
        role = aws.iam.Role(
            f"{self._name}-role",
            name=names.name(t.COLLECTOR),
            description="Telemetry collector: adds log events, metrics and spans",
            assume_role_policy=pod_identity_trust(
                names, args.cluster_name, SYSTEM_NAMESPACE, COLLECTOR_SERVICE_ACCOUNT
            ),
            max_session_duration=3600,
            tags=names.tags(t.COLLECTOR),
            opts=self._child,
        )
        inline = aws.iam.RolePolicy(
            f"{self._name}-policy", name="own", role=role.name, policy=collector_document(names), opts=self._child
        )
        aws.iam.RolePoliciesExclusive(
            f"{self._name}-no-other-inline", role_name=role.name, policy_names=[inline.name], opts=self._child
        )
        aws.iam.RolePolicyAttachmentsExclusive(
            f"{self._name}-no-managed", role_name=role.name, policy_arns=[], opts=self._child
        )
        return aws.eks.PodIdentityAssociation(
            f"{self._name}-pod-identity",
            cluster_name=args.cluster_name,
            namespace=SYSTEM_NAMESPACE,
            service_account=COLLECTOR_SERVICE_ACCOUNT,
            role_arn=role.arn,
            tags=names.tags(t.COLLECTOR),
            opts=pulumi.ResourceOptions(parent=self, depends_on=[*args.cluster_ready, inline]),
        )

    def _readers(self) -> list[pulumi.Resource]:
        """The two service accounts and what they may read."""
        accounts = {COLLECTOR_SERVICE_ACCOUNT: SYSTEM_NAMESPACE, t.COLLECTOR_AGENT: t.TELEMETRY_NAMESPACE}
        made: list[pulumi.Resource] = [
            k8s.core.v1.ServiceAccount(
                f"{self._name}-account-{account}",
                metadata=self._meta(account, namespace),
                automount_service_account_token=False,
                opts=self._inside,
            )
            for account, namespace in accounts.items()
        ]
        role_name = f"ringfence-{t.COLLECTOR}"
        cluster_wide = {"name": role_name, "labels": dict(self._args.names.labels(t.COLLECTOR))}
        role = k8s.rbac.v1.ClusterRole(
            f"{self._name}-cluster-role", metadata=cluster_wide, rules=manifests.reader_rules(), opts=self._ready
        )
        binding = k8s.rbac.v1.ClusterRoleBinding(
            f"{self._name}-cluster-binding",
            metadata=cluster_wide,
            role_ref={"apiGroup": _RBAC, "kind": "ClusterRole", "name": role_name},
            subjects=[
                {"kind": "ServiceAccount", "name": account, "namespace": namespace}
                for account, namespace in accounts.items()
            ],
            opts=pulumi.ResourceOptions(parent=self, depends_on=[role, *made]),
        )
        return [*made, binding]

    def _configured(self, name: str, namespace: str, text: str) -> tuple[pulumi.Resource, str]:
        """The ConfigMap, and a digest of it: pods are replaced when it changes."""
        made = k8s.core.v1.ConfigMap(
            f"{self._name}-config-{name}",
            metadata=self._meta(name, namespace),
            data={manifests.CONFIG_FILE: text},
            opts=self._inside,
        )
        return made, hashlib.sha256(text.encode()).hexdigest()

    def _network(self, name: str, namespace: str, spec: dict[str, Any]) -> pulumi.Resource:
        return k8s.networking.v1.NetworkPolicy(
            f"{self._name}-network-{name}", metadata=self._meta(name, namespace), spec=spec, opts=self._inside
        )

    def _gateway(self, before: list[pulumi.Resource]) -> None:
        args, name = self._args, t.COLLECTOR
        text = config.render(config.gateway_config(args.names))
        configured, digest = self._configured(name, SYSTEM_NAMESPACE, text)
        network = self._network(name, SYSTEM_NAMESPACE, manifests.gateway_network_policy())
        # Neither is ready before pods run, which is no reason to hold up everything else.
        waitless = {"annotations": {"pulumi.com/skipAwait": "true"}}
        k8s.core.v1.Service(
            f"{self._name}-service",
            metadata=self._meta(name, SYSTEM_NAMESPACE, **waitless),
            spec=manifests.service_spec(),
            opts=self._inside,
        )
        k8s.policy.v1.PodDisruptionBudget(
            f"{self._name}-disruption",
            metadata=self._meta(name, SYSTEM_NAMESPACE),
            spec=manifests.disruption_budget_spec(),
            opts=self._inside,
        )
        k8s.apps.v1.Deployment(
            f"{self._name}-gateway",
            metadata=self._meta(name, SYSTEM_NAMESPACE, **waitless),
            spec=manifests.gateway_spec(args.image, args.replicas, digest),
            opts=pulumi.ResourceOptions(parent=self, depends_on=[*before, configured, network]),
        )

    def _agents(self, before: list[pulumi.Resource]) -> None:
        args, name, namespace = self._args, t.COLLECTOR_AGENT, t.TELEMETRY_NAMESPACE
        text = config.render(config.agent_config(GATEWAY_HOST))
        configured, digest = self._configured(name, namespace, text)
        network = self._network(name, namespace, manifests.agent_network_policy(args.vpc_cidr, args.service_cidr))
        cluster_wide = {"name": manifests.AGENT_POLICY, "labels": dict(args.names.labels(name))}
        policy = k8s.admissionregistration.v1.ValidatingAdmissionPolicy(
            f"{self._name}-agent-policy", metadata=cluster_wide, spec=manifests.agent_policy_spec(), opts=self._ready
        )
        binding = k8s.admissionregistration.v1.ValidatingAdmissionPolicyBinding(
            f"{self._name}-agent-policy-binding",
            metadata=cluster_wide,
            spec=manifests.agent_binding_spec(),
            opts=pulumi.ResourceOptions(parent=self, depends_on=[policy]),
        )
        k8s.apps.v1.DaemonSet(
            f"{self._name}-agents",
            metadata=self._meta(name, namespace, annotations={"pulumi.com/skipAwait": "true"}),
            spec=manifests.agent_spec(args.image, digest),
            opts=pulumi.ResourceOptions(parent=self, depends_on=[*before, configured, network, binding]),
        )

    def _dashboards(self) -> tuple[str, ...]:
        names = self._args.names
        bodies = {AGENTS: agents_dashboard(names), PLATFORM: platform_dashboard(names)}
        for board, body in bodies.items():
            aws.cloudwatch.Dashboard(
                f"{self._name}-dashboard-{board}",
                dashboard_name=names.name(board),
                dashboard_body=body,
                opts=self._child,
            )
        return tuple(names.name(board) for board in bodies)

    def _alarms(self) -> tuple[str, ...]:
        names = self._args.names
        aws.cloudwatch.LogMetricFilter(
            f"{self._name}-egress-refusals",
            name=names.name("egress-refusals"),
            log_group_name=names.log_group("proxy"),
            pattern='{ $.decision = "refused" }',
            metric_transformation={"name": EGRESS_METRIC, "namespace": egress_namespace(names), "value": "1"},
            opts=self._ready,
        )
        # The trail's lines come by the pod's output, into the control log, or as audit events; wrapped in either.
        for metric, events in t.ALERT_EVENTS.items():
            thing = metric.removesuffix("Alerts").lower() + "-alerts"
            for stream in (config.CONTROL, config.AUDIT):
                aws.cloudwatch.LogMetricFilter(
                    f"{self._name}-{thing}-{stream}",
                    name=names.name(f"{thing}-{stream}"),
                    log_group_name=names.log_group(stream),
                    pattern=" ".join(f'?"{event}"' for event in events),
                    metric_transformation={"name": metric, "namespace": alerts_namespace(names), "value": "1"},
                    opts=self._ready,
                )
        made = alarms(names, self._args.conversation_cap_usd)
        for alarm in made:
            self._alarm(alarm)
        return tuple(names.name(alarm.thing) for alarm in made)

    def _alarm(self, alarm: Alarm) -> None:
        names = self._args.names
        aws.cloudwatch.MetricAlarm(
            f"{self._name}-alarm-{alarm.thing}",
            name=names.name(alarm.thing),
            alarm_description=alarm.description,
            metric_queries=alarm.queries(),
            evaluation_periods=alarm.periods,
            threshold=alarm.threshold,
            comparison_operator="GreaterThanThreshold",
            treat_missing_data=alarm.missing,
            alarm_actions=[self._args.alarm_topic_arn],
            ok_actions=[self._args.alarm_topic_arn],
            tags=names.tags(alarm.thing),
            opts=self._child,
        )
