"""STS as far as roles go: who becomes a role, decided by the role's trust policy, and the session that comes of it.

AssumeRole is decided for the operator's key too. AssumeRoleForPodIdentity is what EKS's agent calls on a node to turn a
pod's token into a role; here the operator, who runs the control plane, calls it in the agent's place and vouches for the
token, whose signature is not checked.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from ringfence.errors import InputError
from ringfence.iam.document import parse
from ringfence.iam.evaluate import authorize
from ringfence.iam.model import Document, Permissions
from ringfence.iam.request import Principal, Request
from ringfence.local.aws_server.authorization.refusals import denial
from ringfence.local.aws_server.authorization.roles import (
    Undecided,
    document,
    managed_document,
    role_arn,
    role_of,
    tags_of,
)
from ringfence.local.aws_server.authorization.sessions import Session
from ringfence.local.aws_server.recorded.store import Store
from ringfence.local.aws_server.wire import ApiError, Call

# docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html
_SESSION_NAME = re.compile(r"^[\w+=,.@-]{2,64}\Z")
_MIN_SECONDS, _DEFAULT_SECONDS = 900, 3600
_POLICY_CHARACTERS = 2048
_MAX_POLICY_ARNS, _MAX_TAGS = 10, 50
# A session of a session lasts an hour at most ("role chaining").
_MAX_CHAINED_SECONDS = 3600
_POD_SECONDS = 6 * 3600


class Denied(Exception):
    """Policies don't let the request through. The message is AWS's sentence."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls. permissions: None for the operator, an administrator; context: condition keys of the caller; session:
    None for the operator."""

    principal: Principal
    permissions: Permissions | None
    context: Mapping[str, tuple[str, ...]]
    session: Session | None = None


_EVERYTHING = Permissions(
    (parse('{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}', "identity"),)
)


def assume_role(call: Call, caller: Caller, now: datetime) -> tuple[dict[str, Any], Session]:
    """AssumeRole: its output and the new session. Raises Denied, Undecided, ApiError."""
    params = call.params
    name = str(params.get("RoleSessionName", ""))
    if not _SESSION_NAME.match(name):
        raise ApiError("ValidationError", "RoleSessionName must be 2 to 64 characters of letters, digits and _+=,.@-")
    for member in ("TransitiveTagKeys", "SerialNumber", "TokenCode", "ProvidedContexts"):
        if params.get(member):
            raise ApiError("ValidationError", f"{member} is not taken by the embedded target")
    tags = _tags(params.get("Tags") or ())
    identity = _source_identity(params, caller)
    arn = str(params.get("RoleArn", ""))
    role = role_of(call.account, call.region, arn)
    context = _assume_context(params, caller, name, tags, identity)
    _permit(caller, role, arn, context, _actions(tags, params))
    seconds = _seconds(params, role, caller)
    policies = _session_policies(call, params)
    session = _session(call, role, name, now, seconds, policies, tags, identity)
    output = {
        "Credentials": _credentials(session),
        "AssumedRoleUser": {"AssumedRoleId": session.user_id, "Arn": session.arn},
        "PackedPolicySize": _packed_percent(params),
    }
    return output | ({"SourceIdentity": identity} if identity else {}), session


def _tags(listed: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    tags = {str(entry["Key"]): str(entry["Value"]) for entry in listed}
    if len(tags) != len(listed) or len(listed) > _MAX_TAGS:
        raise ApiError("ValidationError", f"at most {_MAX_TAGS} session tags, each key once")
    return tags


def _source_identity(params: Mapping[str, Any], caller: Caller) -> str:
    """Once set, a source identity stays through every further role."""
    asked = str(params.get("SourceIdentity") or "")
    kept = caller.session.source_identity if caller.session else ""
    if asked and kept and asked != kept:
        raise Denied(f"{caller.principal.value} can't change its source identity")
    return asked or kept


def _actions(tags: Mapping[str, str], params: Mapping[str, Any]) -> tuple[str, ...]:
    extra = (("sts:TagSession", bool(tags)), ("sts:SetSourceIdentity", bool(params.get("SourceIdentity"))))
    return ("sts:AssumeRole", *(action for action, needed in extra if needed))


def _assume_context(
    params: Mapping[str, Any], caller: Caller, name: str, tags: Mapping[str, str], identity: str
) -> dict[str, tuple[str, ...]]:
    context = dict(caller.context)
    context["sts:RoleSessionName"] = (name,)
    context["aws:TagKeys"] = tuple(tags)
    if params.get("ExternalId"):
        context["sts:ExternalId"] = (str(params["ExternalId"]),)
    if identity:
        context["sts:SourceIdentity"] = (identity,)
    return context | {f"aws:RequestTag/{key}": (value,) for key, value in tags.items()}


def _permit(
    caller: Caller, role: Any | None, arn: str, context: Mapping[str, tuple[str, ...]], actions: tuple[str, ...]
) -> None:
    """Returns when the caller's permissions and the role's trust policy both allow every action."""
    who = caller.principal.value
    if role is None:
        # As in AWS, a role that isn't there looks like one that doesn't trust the caller.
        raise Denied(f"User: {who} is not authorized to perform: {actions[0]} on resource: {arn}")
    trust = document(role.assume_role_policy_document, "trust", f"the trust policy of {role.name}")
    values = dict(context) | {f"aws:ResourceTag/{key}": (value,) for key, value in tags_of(role).items()}
    for action in actions:
        request = Request(action, arn, values, caller.principal)
        decided = authorize(
            caller.permissions or _EVERYTHING, request, resource_policy=trust, resource_policy_required=True
        )
        if not decided.allowed:
            raise Denied(denial(who, action, arn, decided))


def _seconds(params: Mapping[str, Any], role: Any, caller: Caller) -> int:
    longest = int(role.max_session_duration or _DEFAULT_SECONDS)
    seconds = int(params.get("DurationSeconds") or _DEFAULT_SECONDS)
    if caller.session:
        longest = min(longest, _MAX_CHAINED_SECONDS)
    if not _MIN_SECONDS <= seconds <= longest:
        raise ApiError("ValidationError", f"DurationSeconds must be {_MIN_SECONDS} to {longest} for this role")
    return seconds


def _session_policies(call: Call, params: Mapping[str, Any]) -> tuple[Document, ...] | None:
    text = str(params.get("Policy") or "")
    arns = [str(entry.get("arn", "")) for entry in params.get("PolicyArns") or ()]
    if len(text) + sum(map(len, arns)) > _POLICY_CHARACTERS or len(arns) > _MAX_POLICY_ARNS:
        raise ApiError("ValidationError", f"session policies may have {_POLICY_CHARACTERS} characters in all")
    documents = [managed_document(call.account, call.region, arn, "session") for arn in arns]
    if text:
        try:
            documents.append(parse(text, "session"))
        except InputError as error:
            raise ApiError("MalformedPolicyDocument", error.problems[0].message) from None
    return tuple(documents) or None


def _packed_percent(params: Mapping[str, Any]) -> int:
    """Share of the plain limit; AWS's own packing is not documented."""
    return -(-100 * len(str(params.get("Policy") or "")) // _POLICY_CHARACTERS)


def _session(
    call: Call,
    role: Any,
    name: str,
    now: datetime,
    seconds: int,
    policies: tuple[Document, ...] | None,
    tags: Mapping[str, str],
    identity: str,
) -> Session:
    arn = f"arn:{role.partition}:sts::{call.account}:assumed-role/{role.name}/{name}"
    issued = now.replace(microsecond=0)
    ends = issued + timedelta(seconds=seconds)
    return Session(role_arn(role), role.id, name, arn, issued, ends, policies, dict(tags), identity)


def _credentials(session: Session) -> dict[str, Any]:
    return {
        "AccessKeyId": session.access_key,
        "SecretAccessKey": session.secret,
        "SessionToken": session.token,
        "Expiration": session.expires,
    }


def assume_for_pod(call: Call, store: Store, now: datetime) -> tuple[dict[str, Any], Session]:
    """AssumeRoleForPodIdentity: its output and the new session. Raises Denied, Undecided, ApiError."""
    params = call.params
    cluster = str(params.get("clusterName", ""))
    claims = _claims(str(params.get("token", "")))
    namespace, account = claims["namespace"], claims["serviceaccount"]["name"]
    shelf = store.shelf(call.account, call.region, "eks", "podIdentityAssociation")
    found = next((record for key, record in shelf.items() if key == (cluster, namespace, account)), None)
    if found is None:
        message = f"No association of {namespace}/{account} in cluster {cluster}."
        raise ApiError("ResourceNotFoundException", message)
    arn = str(found.attributes["roleArn"])
    role = role_of(call.account, call.region, arn)
    partition = role.partition if role is not None else "aws"
    cluster_arn = f"arn:{partition}:eks:{call.region}:{call.account}:cluster/{cluster}"
    pod = claims.get("pod") or {}
    tags = {
        "eks-cluster-arn": cluster_arn,
        "eks-cluster-name": cluster,
        "kubernetes-namespace": namespace,
        "kubernetes-service-account": account,
        "kubernetes-pod-name": str(pod.get("name", account)),
        "kubernetes-pod-uid": str(pod.get("uid", "")) or "none",
    }
    principal = Principal("Service", "pods.eks.amazonaws.com")
    context = dict(principal.context()) | {
        "aws:SourceAccount": (call.account,),
        "aws:SourceArn": (cluster_arn,),
        "aws:TagKeys": tuple(tags),
        **{f"aws:RequestTag/{key}": (value,) for key, value in tags.items()},
    }
    caller = Caller(principal, None, context)
    _permit(caller, role, arn, context, ("sts:AssumeRole", "sts:TagSession"))
    name = f"eks-{cluster}-{tags['kubernetes-pod-name']}"[:64]
    session = _session(call, role, name, now, _POD_SECONDS, None, tags, "")
    kept = found.attributes
    credentials = {key[0].lower() + key[1:]: value for key, value in _credentials(session).items()}
    output = {
        "subject": {"namespace": namespace, "serviceAccount": account},
        "audience": "pods.eks.amazonaws.com",
        "podIdentityAssociation": {
            "associationArn": kept["associationArn"],
            "associationId": kept["associationId"],
        },
        "assumedRoleUser": {"arn": session.arn, "assumeRoleId": session.user_id},
        "credentials": credentials,
    }
    return output, session


def _claims(token: str) -> dict[str, Any]:
    """The Kubernetes claims of a service account's token. Raises ApiError."""
    try:
        payload = token.split(".")[1]
        found = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["kubernetes.io"]
        if isinstance(found["namespace"], str) and isinstance(found["serviceaccount"]["name"], str):
            return dict(found)
    except (IndexError, KeyError, TypeError, ValueError):
        pass
    raise ApiError("InvalidTokenException", "The token is not one of a Kubernetes service account.")


__all__ = ["Caller", "Denied", "Undecided", "assume_for_pod", "assume_role"]
