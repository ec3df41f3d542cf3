"""Takes each protection out of the rendered configuration once and shows that the attack then gets through: a protection
that nothing depends on would pass every other test."""

from __future__ import annotations

import pytest

DOCS = "docs.example.com:443"


def _filters(bootstrap, listener):
    (found,) = [item for item in bootstrap["static_resources"]["listeners"] if item["name"] == listener]
    return found["filter_chains"][0]["filters"]


def _without(filters, name):
    filters[:] = [item for item in filters if item["name"] != name]


def _no_server_name_check(bootstrap, listeners):
    _without(_filters(bootstrap, "inspect"), "envoy.filters.network.rbac")


def _only_the_version_check(bootstrap, listeners):
    del _filters(bootstrap, "inspect")[2:4]


def _no_tls_requirement(bootstrap, listeners):
    _no_server_name_check(bootstrap, listeners)
    inspect = next(item for item in bootstrap["static_resources"]["listeners"] if item["name"] == "inspect")
    del inspect["filter_chains"][0]["filter_chain_match"]


def _upstream_filters(bootstrap):
    (manager,) = _filters(bootstrap, "dial")
    router = manager["typed_config"]["http_filters"][-1]
    return router["typed_config"]["upstream_http_filters"]


def _no_address_check(bootstrap, listeners):
    _without(_upstream_filters(bootstrap), "envoy.filters.http.upstream_rbac")


def _address_lists(bootstrap, listeners):
    """The plain dynamic forward proxy, address check left in: it falls over to addresses that nobody checked."""
    (manager,) = _filters(bootstrap, "dial")
    cache = {"name": "egress", "dns_lookup_family": "V4_ONLY"}
    forward, _ = manager["typed_config"]["http_filters"]
    forward["typed_config"] = {
        "@type": forward["typed_config"]["@type"], "dns_cache_config": cache, "save_upstream_address": True
    }  # fmt: skip
    cluster = bootstrap["static_resources"]["clusters"][-1]
    for key in ("dns_refresh_rate", "respect_dns_ttl", "dns_lookup_family"):
        del cluster[key]
    plain = cluster["cluster_type"]["typed_config"]
    del plain["sub_clusters_config"]
    plain["dns_cache_config"] = cache


def _manager(listeners, tool):
    (found,) = [item for item in listeners["resources"] if item["name"] == tool]
    return found["filter_chains"][0]["filters"][-1]["typed_config"]


def _no_form_check(bootstrap, listeners):
    _without(_manager(listeners, "fetch")["http_filters"], "envoy.filters.http.rbac")


def _every_host(bootstrap, listeners):
    _manager(listeners, "mail")["route_config"]["virtual_hosts"][0]["domains"] = ["*"]


def _no_form_check_and_every_host(bootstrap, listeners):
    _no_form_check(bootstrap, listeners)
    _manager(listeners, "fetch")["route_config"]["virtual_hosts"][0]["domains"] = ["*"]


@pytest.mark.parametrize(
    ("change", "tool", "host", "more", "reaches"),
    [
        (_no_server_name_check, "fetch", DOCS, {"sni": "other.example.com"}, "8.8.4.4:443"),
        (_only_the_version_check, "fetch", DOCS, {"sni": None}, "8.8.4.4:443"),
        (_no_server_name_check, "fetch", DOCS, {"newest_tls": "TLSv1_1"}, "8.8.4.4:443"),
        (_no_tls_requirement, "fetch", DOCS, {"payload": "SSH-2.0-x\r\n"}, "8.8.4.4:443"),
        (_no_address_check, "fetch", "rebind.example.com:443", {}, "169.254.169.254:443"),
        (_address_lists, "fetch", "mixed.example.com:443", {}, "10.42.200.5:443"),
        (_every_host, "mail", DOCS, {}, "8.8.4.4:443"),
        (_no_form_check_and_every_host, "fetch", "docs.example.com:22", {"sni": "docs.example.com"}, None),
    ],
)
def test_without_the_protection_the_attack_gets_through(running_lab, change, tool, host, more, reaches):
    answers = {"rebind.example.com": [["169.254.169.254"]], "mixed.example.com": [["8.8.8.8", "10.42.200.5"]]}

    running_lab.configure()
    running_lab.do("dns", answers=answers)
    running_lab.reached()
    assert running_lab.connect(tool, host, **more)["answer"] == ""
    assert running_lab.reached() == []

    running_lab.configure(change)
    running_lab.do("dns", answers=answers)
    status = running_lab.connect(tool, host, **more)["status"]
    if reaches is None:  # the server name check is a second line here: the request form alone let it in
        assert status == 200
    else:
        assert reaches in running_lab.reached()


def test_without_the_form_check_a_get_and_another_spelling_come_further(running_lab):
    running_lab.configure(_no_form_check)
    assert running_lab.connect("fetch", "DOCS.example.com:443", sni="docs.example.com")["status"] == 200
    running_lab.configure()
    assert running_lab.connect("fetch", "DOCS.example.com:443", sni="docs.example.com")["status"] == 403
