"""The embedded provider's types are those of the official SDK: same tokens, same property names, same shape, same duties."""

from __future__ import annotations

import importlib
import inspect
from functools import cache
from typing import Any, get_args

import pytest
from pulumi._types import input_type_py_to_pulumi_names, input_type_types

from ringfence.local.providers.aws import registry
from ringfence.local.providers.aws.schema import Prop, Props

# Required by what AWS accepts, though the SDK can't say so: an address range, a domain's name, or either of two.
STRICTER = {
    ("aws:ec2/vpcEndpoint:VpcEndpoint", "serviceName"),
    ("aws:ec2/vpc:Vpc", "cidrBlock"),
    ("aws:ec2/subnet:Subnet", "cidrBlock"),
    ("aws:ec2/eipAssociation:EipAssociation", "allocationId"),
    ("aws:route53/zone:Zone", "name"),
    ("aws:ec2/natGateway:NatGateway", "subnetId"),
    ("aws:dynamodb/table:Table", "hashKey"),
    ("aws:dynamodb/table:Table", "attributes"),
    ("aws:ec2/defaultSecurityGroup:DefaultSecurityGroup", "vpcId"),
    ("aws:cloudwatch/logResourcePolicy:LogResourcePolicy", "policyName"),
    ("aws:networkfirewall/firewall:Firewall", "vpcId"),
    ("aws:networkfirewall/firewall:Firewall", "subnetMappings"),
    ("aws:s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration", "rules"),
    ("aws:s3/bucketLifecycleConfiguration:BucketLifecycleConfiguration", "rules"),
    ("aws:ssm/parameter:Parameter", "value"),
    ("aws:route53/resolverFirewallRule:ResolverFirewallRule", "firewallDomainListId"),
    ("aws:networkfirewall/ruleGroup:RuleGroup", "targets"),
}


@cache
def _sdk(token: str) -> tuple[type, type]:
    """The SDK's resource class and its arguments' class."""
    module, name = token.split(":")[1].split("/")[0], token.split(":")[2]
    found = getattr(importlib.import_module(f"pulumi_aws.{module}"), name)
    assert found.pulumi_type == token
    source = inspect.getmodule(found)
    return found, getattr(source, f"{name}InitArgs", None) or getattr(source, f"{name}Args")


def _nested(annotation: Any) -> type | None:
    """The input type somewhere inside an annotation."""
    if inspect.isclass(annotation) and annotation.__name__.endswith("Args"):
        return annotation
    for inner in get_args(annotation):
        if (found := _nested(inner)) is not None:
            return found
    return None


def _disagreements(token: str, props: Props, arguments: type, path: str = "") -> list[str]:
    names = {camel: python for python, camel in input_type_py_to_pulumi_names(arguments).items()}
    types = input_type_types(arguments)
    signature = inspect.signature(arguments.__init__).parameters
    found = []
    for name, prop in props.items():
        if name not in names:
            found.append(f"{path}{name} isn't in the SDK")
            continue
        required = signature[names[name]].default is inspect.Parameter.empty
        if required and not prop.required:
            found.append(f"{path}{name} is required in the SDK")
        if prop.required and not required and (token, name) not in STRICTER:
            found.append(f"{path}{name} is optional in the SDK")
        fields = _fields(prop)
        inner = _nested(types.get(names[name]))
        if fields is not None and inner is not None:
            found += _disagreements(token, fields, inner, f"{path}{name}.")
    missing = {
        camel
        for camel, python in names.items()
        if signature[python].default is inspect.Parameter.empty and camel not in props
    }
    return found + [f"{path}{name} is required in the SDK and unknown here" for name in sorted(missing)]


def _fields(prop: Prop) -> Props | None:
    return prop.fields if prop.fields is not None else prop.item.fields if prop.item is not None else None


@pytest.mark.parametrize("token", sorted(registry.all_types()))
def test_a_type_has_the_properties_of_the_sdk(token: str) -> None:
    _, arguments = _sdk(token)
    assert _disagreements(token, registry.all_types()[token].props, arguments) == []


@pytest.mark.parametrize("token", sorted(registry.all_types()))
def test_a_type_has_only_outputs_that_the_sdk_can_read(token: str) -> None:
    found, _ = _sdk(token)
    resource = registry.all_types()[token]
    assert {*resource.outputs, *resource.known} <= _output_names(found)


def _output_names(resource: type) -> set[str]:
    names = set()
    for name, member in inspect.getmembers(resource, lambda value: isinstance(value, property)):
        getter = getattr(member.fget, "_pulumi_name", None)
        names.add(getter or name)
    return names
