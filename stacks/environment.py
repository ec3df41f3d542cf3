"""One environment, composed: which component gets what from which. The order below is the order of dependence."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from urllib.parse import urlsplit

import pulumi
import pulumi_aws as aws
import pulumi_kubernetes as k8s

from components.artifacts import Artifacts, ArtifactsArgs
from components.audit_trail import AuditTrail, AuditTrailArgs
from components.block_storage import BlockStorage, BlockStorageArgs
from components.broker_access import BrokerAccess, BrokerAccessArgs
from components.budget import Budget, BudgetArgs
from components.cluster import SERVICE_CIDR, Cluster, ClusterArgs, SystemNodes
from components.cluster_dns import ClusterDns, ClusterDnsArgs
from components.egress import Egress, EgressArgs
from components.existing_vpc import ExistingVpc
from components.gvisor_pool import GvisorPool, GvisorPoolArgs, PoolSize, ProxyEndpoint
from components.gvisor_user_data import node_hosts
from components.image_sources import image_buckets, image_domains
from components.log_store import LogStore, LogStoreArgs
from components.network import Network, NetworkArgs
from components.node_autoscaler import NodeAutoscaler, NodeAutoscalerArgs
from components.registry import Registry, RegistryArgs
from components.sandbox import Sandbox, SandboxArgs
from components.service import Service, ServiceArgs, gateway_address
from components.telemetry import Telemetry, TelemetryArgs
from components.tool_role import ToolRole, ToolRoleArgs
from components.vault import Vault, VaultArgs
from components.vault import images as vault_images
from ringfence.catalog import Catalog
from ringfence.egress.policy import EgressPolicy, ways_out
from ringfence.egress.private_names import endpoint_problems
from ringfence.errors import InputError
from ringfence.service.project_files import project_files
from ringfence.settings import Settings, zoned
from ringfence.versions import CLUSTER_AUTOSCALER_IMAGE, COLLECTOR_IMAGE


def system_images(settings: Settings) -> tuple[str, ...]:
    """Images of the control side that come from neither the account's own registry nor EKS's."""
    return (CLUSTER_AUTOSCALER_IMAGE, COLLECTOR_IMAGE, *vault_images(settings.secrets_distribution))


def egress_policy(settings: Settings, catalog: Catalog) -> EgressPolicy:
    """What the proxy lets through: each tool's domains and hosts of AWS on its own port, the nodes' calls on theirs.

    Raises InputError when an interface endpoint would take one of these hosts away.
    """
    policy = EgressPolicy(ways_out(catalog.tools, settings.names), node_hosts(settings.names))
    if problems := endpoint_problems(settings.interface_endpoints, policy, settings.names):
        raise InputError(problems)
    return policy


class Environment:
    """Everything that one stack stands up, from its settings and its catalog.

    Attributes are the components, for outputs and for programs that add their own resources beside them.
    """

    def __init__(self, settings: Settings, catalog: Catalog):
        self.settings = settings
        self.catalog = catalog
        self.names = settings.names
        self.aws_provider = self._aws_provider()
        self._on_aws = pulumi.ResourceOptions(provider=self.aws_provider)
        self._watch()
        self._connect()
        self._run()
        self._grant()
        self._fence()
        self._pool()
        self._keep_secrets()
        self._observe()
        self.service = self._serve() if settings.service_image else None

    def _aws_provider(self) -> aws.Provider:
        """One region and one account; credentials of another account are refused by the provider."""
        return aws.Provider("aws", region=self.settings.region, allowed_account_ids=[self.settings.account_id])

    def _kubernetes_provider(self) -> k8s.Provider:
        """The stack's own cluster, or the one that the settings name; the embedded target's comes from KUBECONFIG.

        All objects of the cluster come after what it depends on, and go before it.
        """
        own = None if self.settings.target == "embedded" else self.cluster.kubeconfig
        return k8s.Provider(
            "kubernetes",
            kubeconfig=self.settings.kubeconfig or own,
            # Not a part of the kubeconfig's value: with one administrator more it would be unknown in a preview, and with
            # it what becomes of every object.
            opts=pulumi.ResourceOptions(depends_on=[*self.cluster.access, *self.cluster.system_node_groups]),
        )

    def _watch(self) -> None:
        """Records first: what comes after is logged from its first second."""
        settings = self.settings
        self.budget = Budget(
            "budget", BudgetArgs(self.names, Decimal(settings.monthly_budget_usd), settings.alert_emails), self._on_aws
        )
        self.logs = LogStore(
            "logs",
            LogStoreArgs(
                self.names,
                audit_days=settings.audit_retention_days,
                application_days=settings.application_retention_days,
                network_days=settings.network_retention_days,
                alarm_topic_arn=self.budget.topic_arn,
            ),
            self._on_aws,
        )
        self.audit = AuditTrail(
            "audit",
            AuditTrailArgs(
                self.names,
                lock_mode=settings.audit_lock_mode,
                lock_days=settings.audit_lock_days,
                keep=settings.deletion_protection,
            ),
            self._on_aws,
        )
        self.artifacts = Artifacts("artifacts", ArtifactsArgs(self.names, settings.deletion_protection), self._on_aws)
        self.registry = Registry("registry", RegistryArgs(self.names, settings.deletion_protection), self._on_aws)

    def _connect(self) -> None:
        settings = self.settings
        production = settings.profile == "production"
        self.policy = egress_policy(settings, self.catalog)
        self.network = Network(
            "network",
            NetworkArgs(
                self.names,
                zones=settings.availability_zones,
                dns_allowed_domains=self._resolvable_domains(),
                flow_log_group_arn=self.logs.group_arns["vpc-flow"],
                dns_log_group_arn=self.logs.group_arns["dns"],
                vpc_cidr=settings.vpc_cidr,
                nat=settings.nat,
                nat_gateways="per-zone" if production else "single",
                interface_endpoints=settings.interface_endpoints,
                image_buckets=image_buckets(system_images(settings), settings.region),
                network_firewall=settings.network_firewall,
                firewall_log_group=self.logs.group_names["proxy"],
                existing=self._existing_vpc(),
            ),
            pulumi.ResourceOptions.merge(self._on_aws, pulumi.ResourceOptions(depends_on=[self.logs])),
        )

        self.egress = Egress(
            "egress",
            EgressArgs(
                self.names,
                zones=settings.availability_zones,
                vpc_id=self.network.vpc_id,
                vpc_cidr=settings.vpc_cidr,
                subnet_ids=self.network.public_subnet_ids,
                policy=self.policy,
                replicas="per-zone" if production else "single",
                addresses=self.network.proxy_addresses,
                nat=settings.nat == "instance" and not settings.existing_vpc_id,
                system_cidrs=self.network.system_cidrs,
                instance_type=settings.egress_instance_type,
                internet=self.network.internet,
                depends_on=(self.artifacts, self.logs.groups["proxy"]),
            ),
            self._on_aws,
        )
        if self.egress.nat_interface_ids:
            self.network.leave_by(self.egress.nat_interface_ids)

    def _resolvable_domains(self) -> tuple[str, ...]:
        """What DNS Firewall lets through: the settings' own, the identity provider, the control side's images, whatever the
        proxy may reach."""
        images = image_domains(system_images(self.settings))
        provider = urlsplit(self.settings.oidc_issuer).hostname if self.settings.service_image else None
        own = (*self.settings.dns_allowed_domains, *((provider,) if provider else ()))
        return tuple(dict.fromkeys((*own, *images, *self.policy.domains())))

    def _existing_vpc(self) -> ExistingVpc | None:
        settings = self.settings
        if not settings.existing_vpc_id:
            return None
        return ExistingVpc(
            settings.existing_vpc_id,
            settings.vpc_cidr,
            zoned(settings.existing_public_subnets),
            zoned(settings.existing_system_subnets),
            zoned(settings.existing_sandbox_subnets),
            zoned(settings.existing_system_route_tables),
            zoned(settings.existing_sandbox_route_tables),
            zoned(settings.existing_public_route_tables),
            settings.sandbox_acl_in_existing_vpc,
        )

    def _in_order(self, by_zone: Mapping[str, pulumi.Output[str]]) -> dict[str, pulumi.Output[str]]:
        """As the settings name the zones: what lives in the first one or two must stay there when another is added."""
        return {zone: by_zone[zone] for zone in self.settings.availability_zones}

    def _run(self) -> None:
        settings = self.settings
        self.cluster = Cluster(
            "cluster",
            ClusterArgs(
                self.names,
                vpc_id=self.network.vpc_id,
                subnet_ids=self._in_order(self.network.system_subnet_ids),
                log_group=self.logs.groups["cluster"],
                admin_principal_arns=settings.cluster_admins,
                public_access_cidrs=settings.cluster_public_access_cidrs,
                deletion_protection=settings.deletion_protection,
                system_nodes=SystemNodes(settings.system_nodes, (settings.system_node_type,)),
            ),
            self._on_aws,
        )
        self._on_both = pulumi.ResourceOptions(providers=[self.aws_provider, self._kubernetes_provider()])
        self.dns = ClusterDns(
            "dns",
            ClusterDnsArgs(
                self.names,
                self.cluster.cluster_name,
                settings.vpc_cidr,
                SERVICE_CIDR,
                tuple(self.cluster.system_node_groups),
            ),
            self._on_both,
        )

    def _grant(self) -> None:
        """The broker first: IAM refuses a trust policy that names a role which isn't there."""
        self.broker = BrokerAccess(
            "broker",
            BrokerAccessArgs(
                self.names,
                self.cluster.cluster_name,
                tuple(tool.name for tool in self.catalog.tools),
                cluster_ready=(self.cluster.cluster,),
            ),
            self._on_aws,
        )
        first = pulumi.ResourceOptions(depends_on=[self.broker.role])
        self.tool_roles = {
            tool.name: ToolRole(
                tool.name, ToolRoleArgs(self.names, tool), pulumi.ResourceOptions.merge(self._on_aws, first)
            )
            for tool in self.catalog.tools
        }

    def _fence(self) -> None:
        settings = self.settings
        self.sandbox = Sandbox(
            "sandbox",
            SandboxArgs(
                self.names,
                settings.sandbox_registries,
                tool_ports=self.egress.ports,
                proxy_cidrs=self._proxy_cidrs(),
                max_concurrent=settings.sandbox_max_concurrent,
                image=settings.sandbox_image,
                gateway=gateway_address(SERVICE_CIDR) if settings.service_image else None,
            ),
            self._on_both,
        )

    def _proxy_cidrs(self) -> tuple[pulumi.Input[str], ...]:
        """Where the proxies answer: known at preview, but in an existing VPC, where AWS chooses, once they are made."""
        reserved = self.network.proxy_addresses
        return tuple(
            f"{reserved[zone]}/32" if zone in reserved else pulumi.Output.format("{}/32", address)
            for zone, address in self.egress.private_addresses.items()
        )

    def _pool(self) -> None:
        settings = self.settings
        endpoint = self.egress.endpoint
        self.pool = GvisorPool(
            "gvisor",
            GvisorPoolArgs(
                self.names,
                cluster_name=self.cluster.cluster_name,
                vpc_id=self.network.vpc_id,
                vpc_cidr=settings.vpc_cidr,
                subnet_ids=self._in_order(self.network.sandbox_subnet_ids),
                control_plane_security_group_id=self.cluster.control_plane_security_group_id,
                system_security_group_id=self.cluster.system_security_group_id,
                s3_prefix_list_id=self.network.s3_prefix_list_id,
                proxy=ProxyEndpoint(endpoint.host, endpoint.node_port, endpoint.tool_ports, endpoint.security_group_id),
                spot=PoolSize(maximum=settings.sandbox_max_spot_nodes),
                on_demand=PoolSize(settings.sandbox_min_on_demand_nodes, settings.sandbox_max_on_demand_nodes),
                instance_types=settings.sandbox_node_types,
                nodes_ready=(*self.cluster.system_node_groups, self.dns.addon, self.artifacts),
            ),
            self._on_both,
        )
        self.autoscaler = NodeAutoscaler(
            "autoscaler",
            NodeAutoscalerArgs(
                self.names,
                self.cluster.cluster_name,
                settings.vpc_cidr,
                SERVICE_CIDR,
                always_on=self.pool.always_on,
                cluster_ready=(self.cluster.cluster,),
            ),
            pulumi.ResourceOptions.merge(self._on_both, pulumi.ResourceOptions(depends_on=[self.sandbox])),
        )

    def _keep_secrets(self) -> None:
        settings = self.settings
        self.storage = BlockStorage(
            "storage",
            BlockStorageArgs(
                self.names,
                self.cluster.cluster_name,
                settings.deletion_protection,
                cluster_ready=(self.cluster.cluster, *self.cluster.system_node_groups, self.dns.addon),
            ),
            self._on_both,
        )
        self.vault = Vault(
            "vault",
            VaultArgs(
                self.names,
                self.cluster.cluster_name,
                self.storage.storage_class,
                distribution=settings.secrets_distribution,
                replicas=settings.vault_replicas,
                keep=settings.deletion_protection,
                tls_rotation=settings.vault_tls_rotation,
                cluster_ready=(self.cluster.cluster, self.sandbox, *self.storage.ready),
            ),
            self._on_both,
        )

    def _observe(self) -> None:
        settings = self.settings
        self.telemetry = Telemetry(
            "telemetry",
            TelemetryArgs(
                self.names,
                cluster_name=self.cluster.cluster_name,
                alarm_topic_arn=self.budget.topic_arn,
                vpc_cidr=settings.vpc_cidr,
                service_cidr=SERVICE_CIDR,
                replicas=2 if settings.profile == "production" else 1,
                cluster_ready=(self.cluster.cluster, self.logs, self.sandbox),
            ),
            self._on_both,
        )

    def _serve(self) -> Service:
        settings = self.settings
        return Service(
            "service",
            ServiceArgs(
                self.names,
                stack=settings.environment,
                image=settings.service_image,
                files=project_files(settings, self.catalog),
                storage_class=self.storage.storage_class,
                service_cidr=SERVICE_CIDR,
                unit=self.sandbox.unit,
                vault_address=self.vault.address,
                otlp_endpoint=self.telemetry.otlp_endpoint,
                oidc_issuer=settings.oidc_issuer,
                oidc_audience=settings.oidc_audience,
                tls_secret=settings.service_tls_secret,
                client_cidrs=settings.service_client_cidrs,
                keep=settings.deletion_protection,
                cluster_ready=(self.sandbox, self.broker, self.vault, *self.storage.ready),
            ),
            self._on_both,
        )

    def export(self) -> None:
        """The stack's outputs: what an operator or another stack needs to find the environment; nothing secret."""
        pulumi.export("accountId", self.settings.account_id)
        pulumi.export("region", self.settings.region)
        pulumi.export("clusterName", self.cluster.cluster_name)
        pulumi.export("clusterEndpoint", self.cluster.endpoint)
        pulumi.export("vpcId", self.network.vpc_id)
        pulumi.export("proxyAddresses", self.egress.public_addresses)
        pulumi.export("auditBucket", self.audit.bucket)
        pulumi.export("toolRoleArns", {name: role.role_arn for name, role in self.tool_roles.items()})
        pulumi.export("brokerRoleArn", self.broker.role_arn)
        pulumi.export("secretsAddress", self.vault.address)
        pulumi.export("secretsCaCertificate", self.vault.ca_certificate)
        pulumi.export("secretsSnapshotBucket", self.vault.snapshot_bucket)
        pulumi.export("otlpEndpoint", self.telemetry.otlp_endpoint)
        pulumi.export("alertTopicArn", self.budget.topic_arn)
        pulumi.export("imageRepositories", self.registry.urls)
        pulumi.export("serviceAddress", self.service.address if self.service else "")
