"""The gate: authenticates each call, then asks IAM, before anything acts on it."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from ringfence.iam.evaluate import evaluate, statement_matches
from ringfence.iam.model import Permissions
from ringfence.iam.request import Principal, Request
from ringfence.local.aws_server.authorization.asking import Asked, Service, Unmapped, View, ambiguity
from ringfence.local.aws_server.authorization.assuming import Caller, Denied, assume_for_pod, assume_role
from ringfence.local.aws_server.authorization.dynamodb import DYNAMODB
from ringfence.local.aws_server.authorization.events import note
from ringfence.local.aws_server.authorization.others import BEDROCK_RUNTIME, CLOUDTRAIL, IAM, SECRETS_MANAGER
from ringfence.local.aws_server.authorization.refusals import denial, refuse
from ringfence.local.aws_server.authorization.roles import Undecided, permissions_of, role_of, tags_of
from ringfence.local.aws_server.authorization.s3 import S3
from ringfence.local.aws_server.authorization.ses import SES, SES_V2
from ringfence.local.aws_server.authorization.sessions import Session, Sessions
from ringfence.local.aws_server.authorization.signature import BadSignature, NotSigned, Signed, read, verify
from ringfence.local.aws_server.recorded.store import Store
from ringfence.local.aws_server.wire import ApiError, Call, Reply, serialize
from ringfence.local.operator_key import OperatorKey

# botocore's service name → what its operations ask for. A service that isn't here is refused to every session.
SERVICES: Mapping[str, Service] = {
    "bedrock-runtime": BEDROCK_RUNTIME,
    "cloudtrail": CLOUDTRAIL,
    "dynamodb": DYNAMODB,
    "iam": IAM,
    "s3": S3,
    "secretsmanager": SECRETS_MANAGER,
    "ses": SES,
    "sesv2": SES_V2,
    "sts": Service({}),
}
# Condition keys that are given, or are rightly absent, for every request, lower case; families end in "/".
# IAM User Guide, "AWS global condition context keys".
_GLOBAL_KEYS = frozenset(
    {
        "aws:currenttime", "aws:epochtime", "aws:tokenissuetime", "aws:sourceidentity", "aws:principaltag/",
        "aws:principalarn", "aws:principalaccount", "aws:principaltype", "aws:principalisawsservice",
        "aws:principalservicename", "aws:userid", "aws:username", "aws:sourceip", "aws:securetransport",
        "aws:requestedregion", "aws:useragent", "aws:referer", "aws:viaawsservice", "aws:resourceaccount",
        "aws:multifactorauthpresent", "aws:multifactorauthage", "aws:calledvia", "aws:calledviafirst",
        "aws:calledvialast", "aws:sourcearn", "aws:sourceaccount", "aws:sourcevpc", "aws:sourcevpce",
        "aws:vpcsourceip", "aws:federatedprovider", "aws:requesttag/", "aws:tagkeys",
    }
)  # fmt: skip


class Authorization:
    """The gate of one account. A call that it lets pass gets None, any other its answer.

    The operator may do everything, but becomes only roles that trust the account. Sessions may do what their role's
    policies, its boundary and the session's policies allow. Not synchronised: the application's lock is held around
    every call.
    """

    def __init__(self, operator: OperatorKey, store: Store, clock: Callable[[], datetime]):
        self._operator = operator
        self._store = store
        self._clock = clock
        self._sessions = Sessions()

    def forget(self) -> None:
        """Forgets every session: all of them are refused from now on."""
        self._sessions.clear()

    def __call__(self, call: Call) -> Reply | None:
        now = self._clock()
        try:
            signed = read(call.environ)
        except NotSigned as error:
            return refuse(call, "unsigned", f"Request is not authenticated: {error}.")
        if call.scope is None or (call.scope.access_key, call.scope.region) != (signed.access_key, signed.region):
            return refuse(call, "bad-signature", "The credential scope can be read in two ways.")
        if signed.access_key == self._operator.access_key_id:
            return self._check(call, signed, self._operator.secret_access_key, now) or self._operate(call, now)
        session = self._sessions.get(signed.access_key)
        if session is None:
            return refuse(call, "unknown-key", "The security token included in the request is invalid.")
        if now >= session.expires:
            return refuse(call, "expired", "The security token included in the request is expired")
        if not hmac.compare_digest(signed.token.encode(), session.token.encode()):
            return refuse(call, "bad-token", "The security token included in the request is invalid.")
        if refused := self._check(call, signed, session.secret, now):
            return refused
        answer = self._decide(call, session, now)
        if (call.service, call.name) != ("sts", "AssumeRole"):
            note(self._store, call, now, session, "AccessDenied" if answer is not None and answer.status >= 400 else "")
        return answer

    @staticmethod
    def _check(call: Call, signed: Signed, secret: str, now: datetime) -> Reply | None:
        try:
            verify(signed, call.environ, call.body, secret, now)
        except BadSignature as error:
            return refuse(call, "bad-signature", str(error))
        return None

    def _operate(self, call: Call, now: datetime) -> Reply | None:
        """The operator's calls: AssumeRole is decided by the role's trust, everything else passes."""
        if (call.service, call.name) == ("eks-auth", "AssumeRoleForPodIdentity"):
            return self._assume(call, lambda: assume_for_pod(call, self._store, now), now)
        if (call.service, call.name) == ("sts", "AssumeRole"):
            # moto's name for whoever calls with a key that it hasn't issued; AWS's principals have no such ARN.
            principal = Principal("AWS", f"arn:aws:iam::{call.account}:user/moto")
            caller = Caller(principal, None, principal.context() | _context(call, now))
            return self._assume(call, lambda: assume_role(call, caller, now), now)
        return None

    def _assume(
        self, call: Call, assume: Callable[[], tuple[dict[str, Any], Session]], now: datetime, by: Session | None = None
    ) -> Reply:
        """by: whose call it is, None for the operator's."""
        try:
            output, session = assume()
        except (Denied, Undecided) as error:
            note(self._store, call, now, by, "AccessDenied")
            return refuse(call, "denied", str(error))
        except ApiError as error:
            return serialize(call, error)
        except (KeyError, TypeError, ValueError):
            return refuse(call, "denied", "The request is malformed.")
        self._sessions.add(session)
        note(self._store, call, now, by, made=session)
        return serialize(call, output)

    def _decide(self, call: Call, session: Session, now: datetime) -> Reply | None:
        """A session's call. Everything that can't be told is a no."""
        # Answers kept for the operator's own retries are none of a session's business.
        for name in ("HTTP_X_RINGFENCE_CREATE", "HTTP_X_RINGFENCE_DELETE"):
            call.environ.pop(name, None)
        try:
            return self._allowed(call, session, now)
        except (Denied, Undecided, Unmapped) as error:
            return refuse(call, "denied", str(error))
        except (AttributeError, KeyError, TypeError, ValueError):
            return refuse(call, "denied", f"User: {session.arn}: the {call.name} request is malformed.")

    def _allowed(self, call: Call, session: Session, now: datetime) -> Reply | None:
        unclear = ambiguity(call)
        if unclear:
            raise Unmapped(f"The embedded target refuses a request that can be read in two ways: {unclear}.")
        if (call.service, call.name) == ("sts", "GetCallerIdentity"):
            # Needs no permission, in AWS either.
            output = {"UserId": session.user_id, "Account": call.account, "Arn": session.arn}
            return serialize(call, output)
        role = role_of(call.account, call.region, session.role_arn)
        if role is None or role.id != session.role_id:
            raise Undecided(f"User: {session.arn}: the session's role is gone.")
        permissions = permissions_of(role, call.region, session.policies)
        context = dict(session.principal.context()) | _context(call, now) | _of_session(session, role)
        if (call.service, call.name) == ("sts", "AssumeRole"):
            caller = Caller(session.principal, permissions, context, session)
            return self._assume(call, lambda: assume_role(call, caller, now), now, session)
        service = SERVICES.get(call.service)
        question = service.questions.get(call.name) if service else None
        if service is None or question is None:
            raise Unmapped(
                f"User: {session.arn} is not authorized to perform: {call.service}:{call.name}; the embedded target maps "
                "this operation to no IAM action and denies it to sessions"
            )
        for asked in question(View(call)):
            _settle(permissions, session, asked, context, service.keys)
        return None


def _settle(
    permissions: Permissions,
    session: Session,
    asked: Asked,
    context: Mapping[str, tuple[str, ...]],
    keys: frozenset[str],
) -> None:
    """Returns when the session may do what is asked. Raises Denied, Undecided."""
    request = Request(asked.action, asked.resource, {**context, **asked.context}, session.principal)
    _know_every_key(permissions, request, keys)
    decided = evaluate(permissions, request)
    if not decided.allowed:
        raise Denied(denial(session.arn, asked.action, asked.resource, decided))


def _know_every_key(permissions: Permissions, request: Request, keys: frozenset[str]) -> None:
    """Raises Undecided when a statement that could apply tests a key that isn't emulated: absent, it would look unmet,
    and a Deny would not deny."""
    known = keys | _GLOBAL_KEYS
    for _layer, documents in permissions.layers():
        for document in documents:
            for statement in document.statements:
                asked = {condition.key.lower() for condition in statement.conditions}
                unknown = {key for key in asked if key not in known and f"{key.partition('/')[0]}/" not in known}
                bare = replace(statement, conditions=())
                if unknown and statement_matches(bare, request, variables=document.variables_enabled):
                    raise Undecided(
                        f"{request.action} on {request.resource}: condition key {min(unknown)} is not emulated, so the "
                        "embedded target denies what depends on it"
                    )


def _context(call: Call, now: datetime) -> dict[str, tuple[str, ...]]:
    """Global keys of the request itself. The connection is plain HTTP on loopback, and said to be."""
    keys = {
        "aws:CurrentTime": (now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),),
        "aws:EpochTime": (str(int(now.timestamp())),),
        "aws:RequestedRegion": (call.region,),
        "aws:SecureTransport": ("false",),
        "aws:SourceIp": (str(call.environ.get("REMOTE_ADDR") or "127.0.0.1"),),
        "aws:ViaAWSService": ("false",),
        "aws:ResourceAccount": (call.account,),
    }
    for key, header in (("aws:UserAgent", "User-Agent"), ("aws:Referer", "Referer")):
        if call.header(header):
            keys[key] = (call.header(header),)
    return keys


def _of_session(session: Session, role: Any) -> dict[str, tuple[str, ...]]:
    """Global keys of the session: a session tag goes before the role's tag of the same key, whatever its case."""
    tags = {key.lower(): value for key, value in tags_of(role).items()}
    tags |= {key.lower(): value for key, value in session.tags.items()}
    keys = {
        "aws:TokenIssueTime": (session.issued.strftime("%Y-%m-%dT%H:%M:%SZ"),),
        "aws:userid": (session.user_id,),
        "aws:MultiFactorAuthPresent": ("false",),
        **{f"aws:PrincipalTag/{key}": (value,) for key, value in tags.items()},
    }
    return keys | ({"aws:SourceIdentity": (session.source_identity,)} if session.source_identity else {})
