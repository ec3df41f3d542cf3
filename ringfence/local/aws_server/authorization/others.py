"""What the other services of the example tools and of the broker itself ask for."""

from __future__ import annotations

import re

from ringfence.local.aws_server.authorization.asking import Asked, Question, Service, Unmapped, View, one
from ringfence.local.aws_server.authorization.roles import role_arn, role_by_name, tags_of

_MODEL = re.compile(r"^[a-z0-9-]+\.[A-Za-z0-9.:_-]+\Z")
# Inference profiles across regions ask for the profile and for the model in each region.
_PROFILE_PREFIXES = ("us", "us-gov", "eu", "apac", "au", "ca", "jp", "global")


def _model(action: str) -> Question:
    def ask(view: View) -> list[Asked]:
        model = view.required("modelId")
        if model.startswith("arn:"):
            resource = model
        elif _MODEL.match(model) and model.partition(".")[0] not in _PROFILE_PREFIXES:
            resource = view.arn("bedrock", f"foundation-model/{model}", account="")
        else:
            raise Unmapped("inference profiles are not mapped; name the foundation model")
        guardrail = view.params.get("guardrailIdentifier") or (view.params.get("guardrailConfig") or {}).get(
            "guardrailIdentifier"
        )
        return [Asked(f"bedrock:{action}", resource, {"bedrock:GuardrailIdentifier": one(guardrail)})]

    return ask


BEDROCK_RUNTIME = Service(
    {
        "Converse": _model("InvokeModel"),
        "ConverseStream": _model("InvokeModelWithResponseStream"),
        "InvokeModel": _model("InvokeModel"),
        "InvokeModelWithResponseStream": _model("InvokeModelWithResponseStream"),
    },
    frozenset({"bedrock:guardrailidentifier"}),
)


def _inline_policy(action: str) -> Question:
    def ask(view: View) -> list[Asked]:
        role = role_by_name(view.call.account, view.call.region, view.required("RoleName"))
        if role is None:
            raise Unmapped("there is no such role")
        context = {"iam:PermissionsBoundary": one(role.permissions_boundary_arn or None)}
        context |= {f"aws:ResourceTag/{key}": (value,) for key, value in tags_of(role).items()}
        return [Asked(f"iam:{action}", role_arn(role), context)]

    return ask


IAM = Service(
    {"GetRolePolicy": _inline_policy("GetRolePolicy"), "PutRolePolicy": _inline_policy("PutRolePolicy")},
    frozenset({"iam:permissionsboundary", "aws:resourcetag/"}),
)


def _secret(view: View) -> list[Asked]:
    from moto.secretsmanager.models import secretsmanager_backends

    wanted = view.required("SecretId")
    store = secretsmanager_backends[view.call.account][view.call.region].secrets
    secret = store.get(wanted)
    # The ARN of a secret ends in six characters of its own; one that isn't there is asked for with any.
    missing = wanted if wanted.startswith("arn:") else view.arn("secretsmanager", f"secret:{wanted}-000000")
    context = {
        "secretsmanager:SecretId": (wanted,),
        "secretsmanager:VersionId": one(view.params.get("VersionId")),
        "secretsmanager:VersionStage": one(view.params.get("VersionStage") or "AWSCURRENT"),
    }
    return [Asked("secretsmanager:GetSecretValue", str(secret.arn) if secret else missing, context)]


SECRETS_MANAGER = Service(
    {"GetSecretValue": _secret},
    frozenset({"secretsmanager:secretid", "secretsmanager:versionid", "secretsmanager:versionstage"}),
)


def _lookup(_view: View) -> list[Asked]:
    return [Asked("cloudtrail:LookupEvents", "*")]


CLOUDTRAIL = Service({"LookupEvents": _lookup})
