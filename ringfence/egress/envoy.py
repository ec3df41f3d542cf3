"""Renders the proxy's Envoy configuration from the policy: one bootstrap that never changes, and the tools' listeners.

The way of a connection, all inside one Envoy:

1. the tool's own port: HTTP/1.1 CONNECT to a lower-case host name on 443 that is on this tool's list, nothing else;
2. internal listener ``inspect``: waits for the TLS ClientHello; its server name must equal the CONNECT host, its version
   be 1.2 or newer;
3. internal listener ``dial``: resolves the host, and refuses the one address it is about to dial when that is not public.

Step 3 is apart and uses DNS sub-clusters for a reason: a plain dynamic forward proxy checks the first address of an answer
but, when that fails, dials the next one unchecked (seen in 1.40.0 with a name that answers a public and a private address).
A sub-cluster makes each address a host of its own, and `upstream_rbac` judges the host that was chosen.
Refusals before the tunnel answer 403, 404 or 4xx; later ones close the connection, since CONNECT was already answered.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ringfence.egress.policy import NODES, REFUSED_RANGES, EgressPolicy
from ringfence.egress.ports import NODE_PORT

Json = dict[str, Any]

# The VPC resolver, which DNS Firewall filters (docs.aws.amazon.com/vpc/latest/userguide/AmazonDNS-concepts.html).
RESOLVER = "169.254.169.253"
DEFAULT_FOLDER = "/etc/ringfence-egress"
# The instance's security group decides who reaches it there.
_EVERY_ADDRESS = "0.0.0.0"  # noqa: S104
LOOPBACK = "127.0.0.1"
_HOST_STATE, _TOOL_STATE, _SOURCE_STATE = "ringfence.host", "ringfence.tool", "ringfence.source"
_JA4_STATE = "ringfence.ja4"
# Of one invocation, whose wall clock is 300 s; image pulls may take longer.
_TOOL_STREAM_SECONDS, _NODE_STREAM_SECONDS = 600, 3600
_HANDSHAKE_SECONDS = "10s"
# As `policy.HOST_PATTERN`, without lengths: Envoy refuses expressions that compile to more than 100 steps.
_HOST_FORM = r"([a-z0-9-]+\.)+[a-z][a-z0-9-]*"
_HEADERS_KB = 8
# So that one tool can't take every socket of the instance, which the overload manager caps.
_TOOL_CONNECTIONS, _ALL_CONNECTIONS = 512, 4096
_BUFFER_BYTES = 65536


def _typed(name: str, type_: str, **fields: Any) -> Json:
    return {"name": name, "typed_config": {"@type": f"type.googleapis.com/envoy.extensions.{type_}", **fields}}


def _filter_state(key: str, value: str, *, shared: bool) -> Json:
    state: Json = {
        "object_key": key,
        "factory_key": "envoy.string",
        "format_string": {"text_format_source": {"inline_string": value}},
    }
    return state | {"shared_with_upstream": "TRANSITIVE"} if shared else state


def _status(operator: str, code: int) -> Json:
    return {
        "status_code_filter": {"comparison": {"op": operator, "value": {"default_value": code, "runtime_key": "none"}}}
    }


def _when(expression: str) -> Json:
    name, type_ = "envoy.access_loggers.extension_filters.cel", "access_loggers.filters.cel.v3.ExpressionFilter"
    return {"extension_filter": _typed(name, type_, expression=expression)}


def _log(decision: str, reason: str, condition: Json, *, tool: str, host: str, source: str) -> Json:
    """One JSON line to stdout, which the instance ships to CloudWatch. No header but the CONNECT host is ever logged."""
    return _typed(
        "envoy.access_loggers.stdout",
        "access_loggers.stream.v3.StdoutAccessLog",
        log_format={
            "json_format": {
                "time": "%START_TIME%",
                "decision": decision,
                "reason": reason,
                "tool": tool,
                "host": host,
                "source": source,
                "server_name": "%REQUESTED_SERVER_NAME%",
                "address": "%UPSTREAM_HOST%",
                "bytes_from_tool": "%BYTES_RECEIVED%",
                "bytes_to_tool": "%BYTES_SENT%",
                "duration_ms": "%DURATION%",
                "flags": "%RESPONSE_FLAGS%",
            }
        },
    ) | {"filter": condition}


def _passed(key: str) -> str:
    return f"%FILTER_STATE({key}:PLAIN)%"


def _inner_log(decision: str, reason: str, condition: Json) -> Json:
    return _log(
        decision, reason, condition,
        tool=_passed(_TOOL_STATE), host=_passed(_HOST_STATE), source=_passed(_SOURCE_STATE),
    )  # fmt: skip


def _http_manager(prefix: str, **fields: Any) -> Json:
    return _typed(
        "envoy.filters.network.http_connection_manager",
        "filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix=prefix,
        codec_type="HTTP1",
        upgrade_configs=[{"upgrade_type": "CONNECT"}],
        generate_request_id=False,
        **fields,
    )


def _header(name: str, pattern: str, *, invert: bool) -> Json:
    match: Json = {"name": name, "string_match": {"safe_regex": {"regex": pattern}}}
    return {"header": match | {"invert_match": True} if invert else match}


def _request_form() -> Json:
    """Denies what is not `CONNECT <lower-case host name>:443`; logs name the rule. A missing header fails the match."""

    def denied(rule: Json) -> Json:
        return {"permissions": [rule], "principals": [{"any": True}]}

    policies = {
        "method_is_not_connect": denied(_header(":method", "CONNECT", invert=True)),
        "not_a_host_name": denied(_header(":authority", rf"{_HOST_FORM}:[0-9]+", invert=True)),
        "port_is_not_443": denied(_header(":authority", r".*:443", invert=True)),
    }
    return _typed(
        "envoy.filters.http.rbac", "filters.http.rbac.v3.RBAC", rules={"action": "DENY", "policies": policies}
    )


def _tunnel_route(domains: list[str], cluster: str) -> Json:
    route = {
        "cluster": cluster,
        "timeout": "0s",
        "upgrade_configs": [{"upgrade_type": "CONNECT", "connect_config": {}}],
    }
    host = {"name": "listed", "domains": domains, "routes": [{"match": {"connect_matcher": {}}, "route": route}]}
    return {"name": cluster, "virtual_hosts": [host]}


def _listener(tool: str, address: Json, domains: tuple[str, ...], stream_seconds: int) -> Json:
    """A tool's port. What is refused here is logged here; what passes is logged by the later step that decides on it."""
    authority = "%REQ(:AUTHORITY)%"
    source = "%DOWNSTREAM_REMOTE_ADDRESS%"
    manager = _http_manager(
        tool,
        max_request_headers_kb=_HEADERS_KB,
        request_headers_timeout=_HANDSHAKE_SECONDS,
        common_http_protocol_options={
            "idle_timeout": "60s",
            "max_stream_duration": f"{stream_seconds}s",
            "headers_with_underscores_action": "REJECT_REQUEST",
        },
        access_log=[
            _log("refused", "%RESPONSE_CODE_DETAILS%", _status("NE", 200), tool=tool, host=authority, source=source)
        ],
        route_config=_tunnel_route([f"{domain}:443" for domain in sorted(domains)], "inspect"),
        http_filters=[
            _request_form(),
            _typed(
                "envoy.filters.http.set_filter_state",
                "filters.http.set_filter_state.v3.Config",
                on_request_headers=[
                    _filter_state(_HOST_STATE, authority, shared=True),
                    _filter_state(_TOOL_STATE, tool, shared=True),
                    _filter_state(_SOURCE_STATE, source, shared=True),
                ],
            ),
            _typed("envoy.filters.http.router", "filters.http.router.v3.Router"),
        ],
    )
    limit = _typed(
        "envoy.filters.network.connection_limit",
        "filters.network.connection_limit.v3.ConnectionLimit",
        stat_prefix=tool,
        max_connections=_TOOL_CONNECTIONS,
    )
    return {
        "@type": "type.googleapis.com/envoy.config.listener.v3.Listener",
        "name": tool,
        "address": address,
        "per_connection_buffer_limit_bytes": _BUFFER_BYTES,
        "filter_chains": [{"filters": [limit, manager]}],
    }


def _server_name_is_host() -> Json:
    """CEL: ``connection.requested_server_name + ":443" == string(filter_state["ringfence.host"])``, as a syntax tree."""

    def call(function: str, *args: Json) -> Json:
        return {"call_expr": {"function": function, "args": list(args)}}

    def text(value: str) -> Json:
        return {"const_expr": {"string_value": value}}

    name = {"select_expr": {"operand": {"ident_expr": {"name": "connection"}}, "field": "requested_server_name"}}
    host = call("_[_]", {"ident_expr": {"name": "filter_state"}}, text(_HOST_STATE))
    return call("_==_", call("_+_", name, text(":443")), call("string", host))


def _network_rbac(prefix: str, action: str, name: str, principal: Json, condition: Json | None = None) -> Json:
    policy: Json = {"permissions": [{"any": True}], "principals": [principal]}
    if condition:
        policy["condition"] = condition
        policy["cel_config"] = {"enable_string_conversion": True, "enable_string_concat": True}
    return _typed(
        "envoy.filters.network.rbac",
        "filters.network.rbac.v3.RBAC",
        stat_prefix=prefix,
        rules={"action": action, "policies": {name: policy}},
    )


def _inspect() -> Json:
    """Checks the ClientHello. JA4 spells a TCP ClientHello's version as t13, t12, t11 …, and d when it names a server."""
    modern = {"filter_state": {"key": _JA4_STATE, "string_match": {"safe_regex": {"regex": "t1[23].*"}}}}
    differs = {"call_expr": {"function": "!_", "args": [_server_name_is_host()]}}
    filters = [
        _typed(
            "envoy.filters.network.set_filter_state",
            "filters.network.set_filter_state.v3.Config",
            on_new_connection=[_filter_state(_JA4_STATE, "%TLS_JA4_FINGERPRINT%", shared=False)],
        ),
        _network_rbac("version", "DENY", "tls_older_than_1_2", {"not_id": modern}),
        # This one puts a name to the refusal in the log. The next one is the control: an expression that can't be
        # evaluated matches neither, and an Allow that doesn't match refuses.
        _network_rbac("differs", "DENY", "server_name_is_not_the_connect_host", {"any": True}, differs),
        _network_rbac("equals", "ALLOW", "server_name_is_the_connect_host", {"any": True}, _server_name_is_host()),
        _typed(
            "envoy.filters.network.tcp_proxy",
            "filters.network.tcp_proxy.v3.TcpProxy",
            stat_prefix="inspect",
            cluster="dial",
            idle_timeout="0s",  # the tool's listener has the timeouts
            # Nothing may be dialled before the rules above have seen the first bytes.
            upstream_connect_mode="ON_DOWNSTREAM_DATA",
            max_early_data_bytes=_BUFFER_BYTES,
            tunneling_config={"hostname": _passed(_HOST_STATE)},
        ),
    ]
    # A connection that was passed on has an upstream, and `dial` logs it; one that no rule judged never said TLS.
    judged = _when("!has(upstream.address) && has(connection.termination_details)")
    unheard = _when("!has(upstream.address) && !has(connection.termination_details)")
    return {
        "name": "inspect",
        "internal_listener": {},
        "listener_filters_timeout": _HANDSHAKE_SECONDS,
        "per_connection_buffer_limit_bytes": _BUFFER_BYTES,
        "access_log": [
            _inner_log("refused", "%CONNECTION_TERMINATION_DETAILS%", judged),
            _inner_log("refused", "no_tls_client_hello", unheard),
        ],
        "listener_filters": [
            _typed(
                "envoy.filters.listener.tls_inspector",
                "filters.listener.tls_inspector.v3.TlsInspector",
                enable_ja4_fingerprinting=True,
            )
        ],
        # Without a chain for anything else, what is not TLS is closed.
        "filter_chains": [{"filter_chain_match": {"transport_protocol": "tls"}, "filters": filters}],
    }


def _range(cidr: str) -> Json:
    address, _, length = cidr.partition("/")
    return {"address_prefix": address, "prefix_len": int(length)}


def _public_only() -> Json:
    """Refuses the chosen address before a connection to it is made."""
    ranges = [
        {
            "matcher": _typed(
                "envoy.rbac.matchers.upstream_ip_port",
                "rbac.matchers.upstream_ip_port.v3.UpstreamIpPortMatcher",
                upstream_ip=_range(cidr),
            )
        }
        for cidr in REFUSED_RANGES
    ]
    policy = {"permissions": [{"or_rules": {"rules": ranges}}], "principals": [{"any": True}]}
    return _typed(
        "envoy.filters.http.upstream_rbac",
        "filters.http.rbac.v3.RBAC",
        rules={"action": "DENY", "policies": {"address_is_not_public": policy}},
    )


def _dial() -> Json:
    other = {"and_filter": {"filters": [_status("NE", 200), _status("NE", 403)]}}
    manager = _http_manager(
        "dial",
        access_log=[
            _inner_log("allowed", "listed", _status("EQ", 200)),
            _inner_log("refused", "%RESPONSE_CODE_DETAILS%", _status("EQ", 403)),
            _inner_log("failed", "%RESPONSE_CODE_DETAILS%", other),
        ],
        stream_idle_timeout="0s",
        route_config=_tunnel_route(["*"], "internet"),
        http_filters=[
            _typed(
                "envoy.filters.http.dynamic_forward_proxy",
                "filters.http.dynamic_forward_proxy.v3.FilterConfig",
                sub_cluster_config={"cluster_init_timeout": "5s"},
            ),
            _typed(
                "envoy.filters.http.router",
                "filters.http.router.v3.Router",
                upstream_http_filters=[
                    _public_only(),
                    _typed("envoy.filters.http.upstream_codec", "filters.http.upstream_codec.v3.UpstreamCodec"),
                ],
            ),
        ],
    )
    return {
        "name": "dial",
        "internal_listener": {},
        "per_connection_buffer_limit_bytes": _BUFFER_BYTES,
        "filter_chains": [{"filters": [manager]}],
    }


def _internal_cluster(name: str) -> Json:
    endpoint = {"address": {"envoy_internal_address": {"server_listener_name": name}}}
    return {
        "name": name,
        "connect_timeout": "5s",
        "per_connection_buffer_limit_bytes": _BUFFER_BYTES,
        "circuit_breakers": _unlimited(),
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": endpoint}]}]},
        # Carries the filter state (host, tool, source) over to the next listener.
        "transport_socket": _typed(
            "envoy.transport_sockets.internal_upstream",
            "transport_sockets.internal_upstream.v3.InternalUpstreamTransport",
            transport_socket=_typed("envoy.transport_sockets.raw_buffer", "transport_sockets.raw_buffer.v3.RawBuffer"),
        ),
    }


def _unlimited() -> Json:
    """The listeners' limits and the overload manager decide; Envoy's default would be 1,024 for all tools together."""
    return {"thresholds": [{"max_connections": _ALL_CONNECTIONS, "max_pending_requests": _ALL_CONNECTIONS,
                            "max_requests": _ALL_CONNECTIONS}]}  # fmt: skip


def _internet() -> Json:
    return {
        "name": "internet",
        "connect_timeout": "5s",
        "lb_policy": "CLUSTER_PROVIDED",
        "dns_lookup_family": "V4_ONLY",
        # Deprecated in 1.40 for the cluster type `dns`, which sub-clusters can't be. Their default is a query every 5 s.
        "dns_refresh_rate": "60s",
        "respect_dns_ttl": True,
        "per_connection_buffer_limit_bytes": _BUFFER_BYTES,
        "circuit_breakers": _unlimited(),
        "cluster_type": _typed(
            "envoy.clusters.dynamic_forward_proxy",
            "clusters.dynamic_forward_proxy.v3.ClusterConfig",
            sub_clusters_config={"lb_policy": "ROUND_ROBIN", "max_sub_clusters": 1024, "sub_cluster_ttl": "300s"},
        ),
    }


def _address(host: str, port: int) -> Json:
    return {"socket_address": {"address": host, "port_value": port}}


def bootstrap(folder: str = DEFAULT_FOLDER, resolvers: Sequence[str] = (RESOLVER,)) -> Json:
    """What Envoy starts with. `folder` holds the file ``listeners/lds.json``, which is watched and may be replaced
    (atomically, by renaming) while Envoy runs. resolvers: addresses of DNS servers. There is no admin interface."""
    monitor = _typed(
        "envoy.resource_monitors.global_downstream_max_connections",
        "resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
        max_active_downstream_connections=_ALL_CONNECTIONS,
    )
    return {
        "node": {"id": "egress", "cluster": "egress"},
        "bootstrap_extensions": [
            _typed("envoy.bootstrap.internal_listener", "bootstrap.internal_listener.v3.InternalListener")
        ],
        "overload_manager": {"resource_monitors": [monitor]},
        "typed_dns_resolver_config": _typed(
            "envoy.network.dns_resolver.cares",
            "network.dns_resolver.cares.v3.CaresDnsResolverConfig",
            resolvers=[_address(resolver, 53) for resolver in resolvers],
            dns_resolver_options={"no_default_search_domain": True},
        ),
        "static_resources": {
            "listeners": [_inspect(), _dial()],
            "clusters": [_internal_cluster("inspect"), _internal_cluster("dial"), _internet()],
        },
        "dynamic_resources": {
            "lds_config": {
                "resource_api_version": "V3",
                "path_config_source": {
                    "path": f"{folder}/listeners/lds.json",
                    "watched_directory": {"path": f"{folder}/listeners"},
                },
            }
        },
    }


def _listeners(policy: EgressPolicy, host: str, ports: Mapping[str, int]) -> list[Json]:
    made = [
        _listener(tool.name, _address(host, ports[tool.name]), tool.domains, _TOOL_STREAM_SECONDS)
        for tool in sorted(policy.tools, key=lambda tool: tool.name)
        if tool.domains
    ]
    if policy.node_domains:
        made.append(_listener(NODES, _address(host, NODE_PORT), policy.node_domains, _NODE_STREAM_SECONDS))
    return made


def listeners(policy: EgressPolicy) -> Json:
    """The content of ``lds.json``: a listener per tool that has a domain, and the nodes'. Raises InputError."""
    policy.check()
    return {"resources": _listeners(policy, _EVERY_ADDRESS, policy.ports())}


def on_this_machine(policy: EgressPolicy, ports: Mapping[str, int], resolvers: Sequence[str]) -> Json:
    """The same as one document, for a proxy that serves one control side: on loopback, at `ports`, with the machine's own
    resolvers. Nothing is watched, and Envoy doesn't start when it can't have a port. Raises InputError."""
    policy.check()
    whole = bootstrap(resolvers=resolvers)
    del whole["dynamic_resources"]
    for listener in _listeners(policy, LOOPBACK, ports):
        del listener["@type"]
        # The control side holds each port, so that nobody else gets it; see `runner.local_executor.proxy`.
        whole["static_resources"]["listeners"].append(listener | {"enable_reuse_port": True})
    return whole


def text(document: Json) -> str:
    """The canonical text of a configuration."""
    return json.dumps(document, indent=1, sort_keys=True) + "\n"
