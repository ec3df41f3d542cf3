"""The backend of the embedded `aws` provider: checks, compares and carries out what the engine asks, for any registered type."""

from __future__ import annotations

import os
import re
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from ringfence.local.providers.aws import checking, registry
from ringfence.local.providers.aws.cloud import Cloud, refuse_remote
from ringfence.local.providers.aws.ec2_routing import look_up_route_table
from ringfence.local.providers.aws.resource import Resource, Values, is_gone
from ringfence.local.providers.aws.schema import completed, differences, known_part, same, with_defaults
from ringfence.local.providers.base import (
    UNKNOWN,
    CheckFailure,
    DiffResult,
    NotFound,
    PartialCreate,
    ProviderError,
    ReadResult,
    contains_unknown,
)
from ringfence.local.providers.paths import format_path

# Provider settings that change which account or region is reached, or what is created: refused rather than ignored.
_REFUSED_SETTINGS = ("assumeRoles", "assumeRoleWithWebIdentity", "defaultTags", "ignoreTags", "profile")


class AwsBackend:
    """Implements `ringfence.local.providers.base.Backend` for the types in `registry`."""

    def __init__(self) -> None:
        self._cloud: Cloud | None = None
        self._seen: defaultdict[str, set[str]] = defaultdict(set)
        self._lock = threading.Lock()

    # Configuration.

    def configure(self, args: dict[str, Any]) -> None:
        """Take the region; the endpoint is AWS_ENDPOINT_URL. Raises ProviderError when it is not a loopback address."""
        for name in _REFUSED_SETTINGS:
            if args.get(name) not in (None, "", "[]", "{}", [], {}):
                raise ProviderError(
                    f"aws:{name} is not supported by the embedded aws provider: remove it for this stack"
                )
        endpoints = args.get("endpoints")
        for endpoint in re.findall(r"https?://[^\"'\s,}]+", str(endpoints or "")):
            refuse_remote(endpoint)
        region = args.get("region") or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
        if not region or not isinstance(region, str):
            raise ProviderError("aws:region is not set: set it in the stack's configuration")
        self._cloud = Cloud(os.environ.get("AWS_ENDPOINT_URL", ""), region)

    @property
    def cloud(self) -> Cloud:
        """The embedded endpoint. Raises ProviderError before `configure`."""
        if self._cloud is None:
            raise ProviderError("the aws provider is not configured yet: its configuration has an unknown value")
        return self._cloud

    # What the engine asks before anything is changed.

    def check(
        self, type_: str, urn: str, olds: Values, news: Values, random_seed: bytes
    ) -> tuple[Values, list[CheckFailure]]:
        """Inputs with the automatic name filled in, and what is wrong with them."""
        resource = registry.find(type_)
        inputs = {name: value for name, value in news.items() if value is not None}
        self._name(resource, urn, olds, inputs, random_seed)
        shape = (
            self.cloud.input_shape(resource.service, resource.create_operation) if resource.create_operation else None
        )
        failures = list(checking.failures(resource.props, inputs, resource.case, shape))
        if not failures:
            inputs = resource.normalise(inputs)
            failures = resource.problems(inputs)
        if not failures and shape is not None:
            failures = self._request_failures(resource, inputs, shape)
        return inputs, failures

    def _name(self, resource: Resource, urn: str, olds: Values, inputs: Values, seed: bytes) -> None:
        rule = resource.auto_name
        if rule is None or rule.property in inputs:
            return
        base = urn.rsplit("::", 1)[-1][: rule.limit - 8]
        made = olds.get(rule.property)
        if isinstance(made, str) and re.fullmatch(rf"{re.escape(base)}-[0-9a-f]{{7}}", made):
            inputs[rule.property] = made
        else:
            inputs[rule.property] = f"{base}-{(seed or os.urandom(4)).hex()[:7]}"

    def _request_failures(self, resource: Resource, inputs: Values, shape: Any) -> list[CheckFailure]:
        from botocore.validate import ParamValidator

        if contains_unknown(inputs):
            return []
        report = ParamValidator().validate(resource.request(inputs), shape)
        if not report.has_errors():
            return []
        return [
            CheckFailure("", f"{resource.pulumi_type} makes a request that the API refuses: {report.generate_report()}")
        ]

    def diff(self, type_: str, urn: str, id_: str, old_inputs: Values, old_outputs: Values, news: Values) -> DiffResult:
        """The differences of the declared inputs from the live state as last read."""
        resource = registry.find(type_)
        self._remember(urn, id_)
        found = list(differences(resource.props, old_outputs, resource.compared(news)))
        return DiffResult(
            changed=tuple(format_path(path) for path, _ in found),
            replaces=tuple(format_path(path) for path, replace in found if replace),
            delete_before_replace=any(replace for _, replace in found)
            and (resource.delete_before_replace or self._name_kept(resource, old_outputs, news)),
        )

    @staticmethod
    def _name_kept(resource: Resource, old: Values, news: Values) -> bool:
        """Whether a replacement would have the name of the old one, so that both can't exist side by side."""
        if resource.auto_name is None:
            return False
        name = old.get(resource.auto_name.property)
        return name is not None and name == news.get(resource.auto_name.property)

    # What changes things.

    def create(self, type_: str, urn: str, inputs: Values, preview: bool) -> tuple[str, Values]:
        """Create, unless `preview`. Raises PartialCreate when a later call of several failed."""
        resource = registry.find(type_)
        expected = resource.expected(self.cloud, inputs)
        if preview:
            return "", expected
        cloud = self.cloud
        with cloud.creating(urn, inputs, self._seen[urn]), _spoken(resource):
            id_, described = resource.create(cloud, inputs)
            self._remember(urn, id_)
            declared = with_defaults(resource.props, inputs)
            state = completed(resource.props, declared, known_part(expected) | resource.state_of(described))
            state |= resource.derived(cloud, id_, state)
            with _partial(resource, cloud, id_, state):
                described = resource.wait(cloud, id_, state, described)
                state = completed(resource.props, declared, state | resource.state_of(described))
                resource.complete(cloud, id_, state)
                if resource.tagging and not resource.tagging.create and inputs.get("tags"):
                    resource.update_tags(cloud, id_, state, {}, inputs["tags"])
                if resource.read_after_create:
                    state = completed(resource.props, declared, state | (resource.read(cloud, id_, state) or {}))
        return id_, state | ({"tagsAll": inputs.get("tags", {})} if resource.tagging else {})

    def read(self, type_: str, urn: str, id_: str, inputs: Values, outputs: Values) -> ReadResult | None:
        """The live thing. What is declared and still true keeps its declared spelling."""
        resource = registry.find(type_)
        self._remember(urn, id_)
        with _spoken(resource):
            live = resource.read(self.cloud, id_, outputs)
        if live is None:
            return None
        state = dict(live)
        seen: Values = {}
        for name, prop in resource.props.items():
            declared = inputs.get(name)
            value = outputs.get(name) if prop.write_only and name not in live else live.get(name)
            kept = declared is not None and not contains_unknown(declared) and same(prop, value, declared)
            if kept:
                state |= completed({name: prop}, {name: declared}, {name: value})
                value = declared
            elif (value := prop.default if value is None else value) is not None:
                state[name] = value
            if declared is not None or (not prop.computed and value is not None and not same(prop, value, None)):
                seen[name] = value
        return ReadResult(id_, {name: value for name, value in seen.items() if value is not None}, state)

    def update(
        self, type_: str, urn: str, id_: str, old_inputs: Values, old_outputs: Values, news: Values, preview: bool
    ) -> Values:
        """Change in place what differs, unless `preview`."""
        resource = registry.find(type_)
        self._remember(urn, id_)
        news = resource.compared(news)
        changed = frozenset(str(path[0]) for path, _ in differences(resource.props, old_outputs, news))
        state = completed(resource.props, with_defaults(resource.props, news), old_outputs)
        for name in resource.props:
            if name in old_outputs and news.get(name) is None and not resource.props[name].computed:
                if resource.props[name].default is None:
                    state.pop(name, None)
                else:
                    state[name] = resource.props[name].default
        if resource.tagging:
            state["tagsAll"] = news.get("tags", {})
        if preview:
            return state | dict.fromkeys(resource.renewed(news, changed), UNKNOWN)
        desired = with_defaults(resource.props, news)
        with _spoken(resource):
            try:
                more = None
                if changed - {"tags"}:
                    more = resource.update(self.cloud, id_, old_outputs, desired, changed - {"tags"})
                if "tags" in changed and resource.tagging:
                    before, after = old_outputs.get("tags") or {}, news.get("tags", {})
                    resource.update_tags(self.cloud, id_, old_outputs, before, after)
            except Exception as error:
                if is_gone(error):
                    raise NotFound(
                        f"{type_} {id_} is not there any more: run `pulumi refresh`, then try again"
                    ) from error
                raise
        return state | (more or {})

    def delete(self, type_: str, urn: str, id_: str, inputs: Values, outputs: Values) -> None:
        """Delete; already gone is success."""
        resource = registry.find(type_)
        with self.cloud.deleting(urn), _spoken(resource):
            try:
                resource.delete(self.cloud, id_, outputs)
            except Exception as error:
                if not is_gone(error):
                    raise

    # The rest.

    def invoke(self, token: str, args: Values) -> Values:
        """Answer the few functions that a program may ask: who and where it is, and how a subnet is routed."""
        cloud = self.cloud
        answers: dict[str, Callable[[], Values]] = {
            "aws:index/getCallerIdentity:getCallerIdentity": lambda: self._identity(cloud),
            "aws:index/getRegion:getRegion": lambda: {"id": cloud.region, "name": cloud.region, "region": cloud.region},
            "aws:index/getPartition:getPartition": lambda: {"id": cloud.partition, "partition": cloud.partition},
            "aws:index/getAvailabilityZones:getAvailabilityZones": lambda: self._zones(cloud),
            "aws:ec2/getRouteTable:getRouteTable": lambda: look_up_route_table(cloud, args),
        }
        if token not in answers:
            raise ProviderError(
                f"{token} is not supported by the embedded aws provider; it answers {', '.join(sorted(answers))}"
            )
        return answers[token]()

    @staticmethod
    def _identity(cloud: Cloud) -> Values:
        answer = cloud.call("sts", "get_caller_identity")
        return {
            "id": answer["Account"],
            "accountId": answer["Account"],
            "arn": answer["Arn"],
            "userId": answer["UserId"],
        }

    @staticmethod
    def _zones(cloud: Cloud) -> Values:
        zones = cloud.call("ec2", "describe_availability_zones")["AvailabilityZones"]
        return {
            "id": cloud.region,
            "names": [zone["ZoneName"] for zone in zones],
            "zoneIds": [zone["ZoneId"] for zone in zones],
        }

    def secret_outputs(self, type_: str) -> frozenset[str]:
        """Outputs of this type that are never shown."""
        resource = registry.find(type_)
        return resource.secret_outputs | {name for name, prop in resource.props.items() if prop.secret}

    def _remember(self, urn: str, id_: str) -> None:
        if id_:
            with self._lock:
                self._seen[urn].add(id_)


@contextmanager
def _spoken(resource: Resource) -> Iterator[None]:
    """Turns an API error into a ProviderError that names the type, the call and what the API said."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        said = error.response.get("Error", {})
        why = f"{said.get('Code')}: {said.get('Message')}"
        raise ProviderError(
            f"{resource.pulumi_type}: {resource.service} {error.operation_name} was refused: {why}"
        ) from error
    except BotoCoreError as error:
        raise ProviderError(f"{resource.pulumi_type}: the call to the embedded AWS failed: {error}") from error


@contextmanager
def _partial(resource: Resource, cloud: Cloud, id_: str, state: Values) -> Iterator[None]:
    """A failure after the thing was made: the engine must learn its id, and what it really is, so that the rest is done later."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except (ClientError, BotoCoreError, ProviderError) as error:
        live = None
        with suppress(ClientError, BotoCoreError, ProviderError):
            live = resource.read(cloud, id_, state)
        raise PartialCreate(id_, live or state, f"{id_} was made, but is not complete: {error}") from error
