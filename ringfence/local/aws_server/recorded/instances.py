"""EC2 instances and their interfaces: what AWS does along with a call or shows of an instance but moto forgets."""

from __future__ import annotations

from typing import Any

from ringfence.local.aws_server.recorded.kinds import Table
from ringfence.local.aws_server.recorded.store import PASS, Context
from ringfence.local.aws_server.wire import Reply

# What an instance is launched with. Source: the EC2 API reference, InstanceMaintenanceOptions.
_MAINTENANCE = {"AutoRecovery": "default", "RebootMigration": "default"}


def _backend(context: Context) -> Any:
    from moto.ec2.models import ec2_backends

    return ec2_backends[context.account][context.region]


def prepare() -> None:
    """Gives instances their maintenance options, one source/destination check with their primary interface, and a root
    volume that is deleted with them unless the launch says otherwise."""
    from moto.ec2.models.instances import Instance
    from moto.ec2.responses.instances import InstanceResponse

    launch = InstanceResponse.run_instances

    def launch_with_options(responder: Any) -> Any:
        answer = launch(responder)
        wanted = responder._get_param("MaintenanceOptions", {})
        for instance in answer.result.instances:
            instance.maintenance_options = {**_MAINTENANCE, **wanted}
            for mapping in responder._get_param("BlockDeviceMappings", []):
                if mapping["DeviceName"] == instance.root_device_name and "DeleteOnTermination" not in mapping.get(
                    "Ebs", {}
                ):
                    instance.block_device_mapping[instance.root_device_name].delete_on_termination = True
        return answer

    def checks(instance: Any) -> bool:
        primary = getattr(instance, "nics", {}).get(0)
        return primary is None or bool(primary.source_dest_check)

    def set_checks(instance: Any, value: Any) -> None:
        # moto sets a default before the instance has interfaces; theirs is the same.
        primary = getattr(instance, "nics", {}).get(0)
        if primary is not None:
            primary.source_dest_check = flag(value)

    InstanceResponse.run_instances = launch_with_options  # type: ignore[method-assign]
    Instance.maintenance_options = dict(_MAINTENANCE)  # type: ignore[attr-defined]
    Instance.source_dest_check = property(checks, set_checks)  # type: ignore[assignment]


def flag(value: Any) -> bool:
    """A boolean that moto may have kept as it came in the request."""
    return str(value).lower() == "true"


def _modify_maintenance(context: Context) -> dict[str, Any]:
    instance = _backend(context).get_instance(context.params["InstanceId"])
    given = {name: context.params[name] for name in _MAINTENANCE if name in context.params}
    instance.maintenance_options = {**instance.maintenance_options, **given}
    return {"InstanceId": instance.id, **instance.maintenance_options}


def _modify_attribute(context: Context) -> dict[str, Any] | object:
    """moto takes a request with this attribute alone for one that empties the instance's security groups."""
    if "InstanceInitiatedShutdownBehavior" not in context.params:
        return PASS
    instance = _backend(context).get_instance(context.params["InstanceId"])
    instance.instance_initiated_shutdown_behavior = context.params["InstanceInitiatedShutdownBehavior"]["Value"]
    return {}


def _mark_interfaces(context: Context, reply: Reply) -> Reply:
    """Tells interfaces made by name from those that come and go with an instance."""
    for interface in _backend(context).enis.values():
        if interface.instance is None:
            interface.made_by_name = True
    return reply


def _let_interfaces_go(context: Context, reply: Reply) -> Reply:
    """An interface that an instance brought along is deleted with it, unless the launch says otherwise."""
    for reservation in _backend(context).reservations.values():
        for instance in reservation.instances:
            for interface in instance.nics.values():
                if not getattr(interface, "made_by_name", False):
                    interface.delete_on_termination = True
    return reply


def _free_interfaces(context: Context, reply: Reply) -> Reply:
    """An interface that outlives its instance is available again."""
    for interface in _backend(context).enis.values():
        if interface.instance is not None and interface.instance.state == "terminated":
            interface.instance = interface.attachment_id = interface.attach_time = None
            interface.status = "available"
    return reply


TABLE: Table = {
    "ModifyInstanceAttribute": _modify_attribute,
    "ModifyInstanceMaintenanceOptions": _modify_maintenance,
}
AMENDMENTS = {
    "CreateNetworkInterface": _mark_interfaces,
    "RunInstances": _let_interfaces_go,
    "TerminateInstances": _free_interfaces,
}
