"""Facts of access that AWS gives without a policy document: assignments, shares, registrations of roles, access lists.

Such a fact says who gets what, in the words of the resource's own properties. Opaque code that an update runs with the
deployer's credentials stands here too, approved as a whole by its digest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ringfence.review.extract_eks import role_key
from ringfence.review.extract_iam import ROLE, own_name
from ringfence.review.extract_other import any_policy
from ringfence.review.facts import Fact, Slot, Unknown
from ringfence.review.resource import Resource, first_unknown

# Type token → the kind of its subject and the properties that say who gets what. Source: the schemas of the aws provider
# 7.51 and of aws-native. Left out are properties that AWS fills in, which a preview doesn't know and a state does.
_ROWS: dict[str, tuple[str, str]] = {
    "aws:ssoadmin/accountAssignment:AccountAssignment": (
        "account-assignment",
        "permissionSetArn principalId principalType targetId",
    ),
    "aws:ssoadmin/managedPolicyAttachmentsExclusive:ManagedPolicyAttachmentsExclusive": (
        "permission-set-policies",
        "permissionSetArn managedPolicyArns",
    ),
    "aws:ssoadmin/customerManagedPolicyAttachment:CustomerManagedPolicyAttachment": (
        "permission-set-policies",
        "permissionSetArn customerManagedPolicyReference",
    ),
    "aws:ssoadmin/customerManagedPolicyAttachmentsExclusive:CustomerManagedPolicyAttachmentsExclusive": (
        "permission-set-policies",
        "permissionSetArn customerManagedPolicyReferences",
    ),
    "aws:ssoadmin/permissionsBoundaryAttachment:PermissionsBoundaryAttachment": (
        "permission-set-boundary",
        "permissionSetArn permissionsBoundary",
    ),
    "aws:ssoadmin/trustedTokenIssuer:TrustedTokenIssuer": ("token-issuer", "trustedTokenIssuerConfiguration"),
    "aws:identitystore/groupMembership:GroupMembership": ("identity-group-member", "groupId memberId"),
    "aws:rolesanywhere/profile:Profile": ("roles-anywhere-profile", "roleArns managedPolicyArns sessionPolicy"),
    "aws:rolesanywhere/trustAnchor:TrustAnchor": ("roles-anywhere-anchor", "source"),
    "aws:iot/policyAttachment:PolicyAttachment": ("iot-policy-attachment", "policy target"),
    "aws:iot/roleAlias:RoleAlias": ("iot-role-alias", "roleArn"),
    "aws:iot/provisioningTemplate:ProvisioningTemplate": ("iot-provisioning", "provisioningRoleArn templateBody"),
    "aws:cognito/identityPoolRoleAttachment:IdentityPoolRoleAttachment": (
        "identity-pool-roles",
        "identityPoolId roles roleMappings",
    ),
    "aws:ram/principalAssociation:PrincipalAssociation": ("share-principal", "principal resourceShareArn"),
    "aws:ram/resourceAssociation:ResourceAssociation": ("share-resource", "resourceArn resourceShareArn"),
    "aws:ram/resourceShare:ResourceShare": ("share", "allowExternalPrincipals permissionArns"),
    "aws:ram/resourceShareAssociationsExclusive:ResourceShareAssociationsExclusive": (
        "share",
        "principals resourceArns resourceShareArn",
    ),
    "aws:ram/permission:Permission": ("share-permission", "policyTemplate resourceType"),
    "aws:lakeformation/permissions:Permissions": (
        "lake-permissions",
        "principal permissions permissionsWithGrantOptions catalogResource dataCellsFilter dataLocation database lfTag "
        "lfTagPolicy table tableWithColumns",
    ),
    "aws:lakeformation/dataLakeSettings:DataLakeSettings": (
        "lake-settings",
        "admins readOnlyAdmins createDatabaseDefaultPermissions createTableDefaultPermissions trustedResourceOwners "
        "allowExternalDataFiltering allowFullTableExternalDataAccess externalDataFilteringAllowLists",
    ),
    "aws:lakeformation/resource:Resource": ("lake-location", "arn roleArn"),
    "aws:opensearch/serverlessAccessPolicy:ServerlessAccessPolicy": ("search-access", "type policy"),
    "aws:s3control/accessGrant:AccessGrant": (
        "bucket-grant",
        "accessGrantsLocationId accessGrantsLocationConfiguration grantee permission",
    ),
    "aws:s3control/accessGrantsLocation:AccessGrantsLocation": ("bucket-grant-location", "iamRoleArn locationScope"),
    "aws:ec2/amiLaunchPermission:AmiLaunchPermission": (
        "image-share",
        "imageId accountId group organizationArn organizationalUnitArn",
    ),
    "aws:ec2/snapshotCreateVolumePermission:SnapshotCreateVolumePermission": ("snapshot-share", "snapshotId accountId"),
    "aws:ec2/networkInterfacePermission:NetworkInterfacePermission": (
        "interface-share",
        "networkInterfaceId awsAccountId permission",
    ),
    "aws:ssm/document:Document": ("document-share", "permissions"),
    "aws:rds/snapshot:Snapshot": ("database-snapshot-share", "sharedAccounts"),
    "aws:rds/snapshotCopy:SnapshotCopy": ("database-snapshot-share", "sharedAccounts"),
    "aws:rds/clusterSnapshot:ClusterSnapshot": ("database-snapshot-share", "sharedAccounts"),
    "aws:rds/clusterSnapshotCopy:ClusterSnapshotCopy": ("database-snapshot-share", "sharedAccounts"),
    "aws:chatbot/slackChannelConfiguration:SlackChannelConfiguration": (
        "chat-channel",
        "iamRoleArn guardrailPolicyArns slackChannelId slackTeamId",
    ),
    "aws:chatbot/teamsChannelConfiguration:TeamsChannelConfiguration": (
        "chat-channel",
        "iamRoleArn guardrailPolicyArns channelId teamId tenantId",
    ),
    "aws:quicksight/iamPolicyAssignment:IamPolicyAssignment": ("quicksight-policy", "policyArn identities"),
    "aws:signer/signingProfilePermission:SigningProfilePermission": (
        "signing-profile-share",
        "profileName action principal",
    ),
    "aws:acmpca/permission:Permission": (
        "certificate-authority-share",
        "certificateAuthorityArn actions principal sourceAccount",
    ),
    "aws:lambda/layerVersionPermission:LayerVersionPermission": (
        "layer-share",
        "layerName action principal organizationId",
    ),
    "aws:cloudwatch/eventPermission:EventPermission": ("event-bus-share", "eventBusName action principal condition"),
    "aws:redshift/dataShareAuthorization:DataShareAuthorization": (
        "data-share",
        "dataShareArn consumerIdentifier allowWrites",
    ),
    "aws:redshift/endpointAuthorization:EndpointAuthorization": (
        "warehouse-share",
        "clusterIdentifier account vpcIds",
    ),
    "aws:servicecatalog/portfolioShare:PortfolioShare": ("portfolio-share", "portfolioId principalId type"),
    "aws:servicecatalog/principalPortfolioAssociation:PrincipalPortfolioAssociation": (
        "portfolio-principal",
        "portfolioId principalArn",
    ),
    "aws:servicecatalog/provisionedProduct:ProvisionedProduct": (
        "provisioned-product",
        "productId productName provisioningArtifactId provisioningArtifactName provisioningParameters",
    ),
    "aws:serverlessrepository/cloudFormationStack:CloudFormationStack": (
        "serverless-application",
        "applicationId capabilities parameters",
    ),
    "aws:organizations/delegatedAdministrator:DelegatedAdministrator": (
        "delegated-administrator",
        "accountId servicePrincipal",
    ),
    "aws:eks/identityProviderConfig:IdentityProviderConfig": ("cluster-identity-provider", "clusterName oidc"),
    "aws:transfer/user:User": ("transfer-user", "serverId role userName"),
    "aws:transfer/access:Access": ("transfer-access", "serverId role externalId"),
    "aws-native:sso:Assignment": ("account-assignment", "permissionSetArn principalId principalType targetId"),
    "aws-native:sso:PermissionSet": (
        "permission-set-policies",
        "managedPolicies customerManagedPolicyReferences permissionsBoundary",
    ),
    "aws-native:identitystore:GroupMembership": ("identity-group-member", "groupId memberId"),
    "aws-native:rolesanywhere:Profile": ("roles-anywhere-profile", "roleArns managedPolicyArns sessionPolicy"),
    "aws-native:rolesanywhere:TrustAnchor": ("roles-anywhere-anchor", "source"),
    "aws-native:iot:RoleAlias": ("iot-role-alias", "roleArn"),
    "aws-native:cognito:IdentityPoolRoleAttachment": ("identity-pool-roles", "identityPoolId roles roleMappings"),
    "aws-native:ram:ResourceShare": ("share", "allowExternalPrincipals permissionArns principals resourceArns"),
    "aws-native:ram:Permission": ("share-permission", "policyTemplate resourceType"),
    "aws-native:lakeformation:PrincipalPermissions": (
        "lake-permissions",
        "principal permissions permissionsWithGrantOption resource",
    ),
    "aws-native:lakeformation:DataLakeSettings": ("lake-settings", "admins trustedResourceOwners parameters"),
    "aws-native:opensearchserverless:AccessPolicy": ("search-access", "type policy"),
    "aws-native:s3:AccessGrant": ("bucket-grant", "accessGrantsLocationId grantee permission"),
    "aws-native:s3:AccessGrantsLocation": ("bucket-grant-location", "iamRoleArn locationScope"),
    "aws-native:chatbot:SlackChannelConfiguration": (
        "chat-channel",
        "iamRoleArn guardrailPolicies slackChannelId slackWorkspaceId",
    ),
    "aws-native:chatbot:MicrosoftTeamsChannelConfiguration": (
        "chat-channel",
        "iamRoleArn guardrailPolicies teamId teamsChannelId teamsTenantId",
    ),
    "aws-native:lambda:LayerVersionPermission": ("layer-share", "layerVersionArn action principal organizationId"),
    "aws-native:eks:IdentityProviderConfig": ("cluster-identity-provider", "clusterName oidc"),
}
# Text that is JSON counts by what it says, not by how it is written.
_JSON = ("policy", "sessionPolicy", "policyTemplate", "templateBody")


def _access(kind: str, names: tuple[str, ...]) -> Callable[[Resource], Iterator[Fact]]:
    def extract(resource: Resource) -> Iterator[Fact]:
        value = {name: named for name in names if (named := _named(resource, name)) not in (None, "", [], {})}
        if value:
            yield Fact(f"{kind}/{resource.name}", Slot.ACCESS, "", first_unknown(value) or value)
        # A document among them is read as one besides.
        yield from any_policy(resource)

    return extract


def _named(resource: Resource, name: str) -> Any:
    """A property's value with resources of the same program by their names: their ids are made up at creation."""
    value = resource.get(name)
    if name in _JSON and isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return value
    origins = resource.links.get(name, ())
    unknown = _count_unknown(value)
    # With more unknown values than resources that they can come from, nobody can tell what the others are.
    told = iter([_label(other) for other in origins]) if unknown == len(origins) else iter(())
    return _labelled(value, origins, told)


def _labelled(value: Any, origins: tuple[Resource, ...], told: Iterator[str]) -> Any:
    if isinstance(value, Unknown):
        return next(told, value)
    if isinstance(value, Mapping):
        return {key: _labelled(item, origins, told) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        items = [_labelled(item, origins, told) for item in value]
        return sorted(items, key=str) if all(isinstance(item, str) for item in items) else items
    if isinstance(value, str) and value:
        own = next((other for other in origins if value in (other.id, other.props.get("arn"))), None)
        return _label(own) if own else role_key(value)
    return value


def _count_unknown(value: Any) -> int:
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return 1 if isinstance(value, Unknown) else sum(map(_count_unknown, parts))


def _label(resource: Resource) -> str:
    return f"role/{own_name(resource)}" if resource.type == ROLE else own_name(resource)


# Access lists that give nobody else anything. Source: Amazon S3 user guide, canned ACL.
_OWN_ACLS = ("", "private", "bucket-owner-read", "bucket-owner-full-control", "log-delivery-write")


def acl_facts(resource: Resource, kind: str, name: str) -> Iterator[Fact]:
    """What a bucket's or object's access list gives others than the owner."""
    acl = resource.text("acl", "accessControl")
    canned = isinstance(acl, Unknown) or acl.replace("_", "-").lower() not in (*_OWN_ACLS, "logdeliverywrite")
    value: dict[str, Any] = {"acl": acl} if canned else {}
    policy = resource.get("accessControlPolicy")
    listed = policy.get("grants") if isinstance(policy, Mapping) else policy
    owner = (policy.get("owner") or {}) if isinstance(policy, Mapping) else {}
    own = owner.get("id") if isinstance(owner, Mapping) else None
    others = [grant for grant in _list(listed) if not _of(grant, own)]
    # A state lists the owner's own grant, which its program never mentions.
    entries = _list(resource.get("grants"))
    others += [grant for grant in entries if not (len(entries) == 1 and _only_owner(grant))]
    if others:
        value["grants"] = others
    if value:
        yield Fact(f"{kind}/{name}", Slot.ACCESS, "access list", first_unknown(value) or value)


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [] if value is None else [value]


def _of(grant: Any, owner: Any) -> bool:
    grantee = grant.get("grantee") if isinstance(grant, Mapping) else None
    return isinstance(grantee, Mapping) and isinstance(owner, str) and grantee.get("id") == owner


def _only_owner(grant: Any) -> bool:
    return (
        isinstance(grant, Mapping)
        and isinstance(grant.get("id"), str)
        and not grant.get("uri")
        and grant.get("permissions") == ["FULL_CONTROL"]
    )


def _object_acl(resource: Resource) -> Iterator[Fact]:
    bucket, key = resource.text("bucket"), resource.text("key")
    known = isinstance(bucket, str) and isinstance(key, str)
    yield from acl_facts(resource, "object", f"{bucket}/{key}" if known else resource.name)


# What an update runs with the deployer's credentials, and the properties that hold the code.
_CODE = {
    "pulumi-python:dynamic:Resource": ("__provider",),
    "pulumi-nodejs:dynamic:Resource": ("__provider",),
    "command:local:Command": ("create", "update", "delete", "interpreter"),
}


def _code(resource: Resource) -> Iterator[Fact]:
    held = [resource.get(name) for name in _CODE[resource.type]]
    digest = first_unknown(held) or hashlib.sha256(json.dumps(held, sort_keys=True).encode()).hexdigest()
    yield Fact(f"code/{resource.name}", Slot.TEMPLATE, "", digest)


# Settings of an explicit AWS provider that let it act as somebody else, or somewhere else.
_ELSEWHERE = ("assumeRoles", "assumeRole", "assumeRoleWithWebIdentity", "profile", "accessKey")
_ELSEWHERE += ("sharedConfigFiles", "sharedCredentialsFiles", "endpoints", "roleArn")
_SHOWN = ("assumeRoles", "assumeRole", "assumeRoleWithWebIdentity", "profile", "roleArn")


def _provider(resource: Resource) -> Iterator[Fact]:
    """Names in a lockfile are those of one account: what a provider for another one makes must not pass as approved."""
    # The engine's own provider has the stack's settings, which no preview shows.
    if resource.name == "default" or resource.name.startswith("default_"):
        return
    held = {name: _settings(resource.get(name)) for name in _ELSEWHERE}
    given = {name: value if name in _SHOWN else "given" for name, value in held.items() if value not in (None, [], {})}
    if given:
        yield Fact(f"aws-provider/{resource.name}", Slot.ACCESS, "", first_unknown(given) or given)


def _settings(value: Any) -> Any:
    """A provider's setting: the engine hands nested ones over as JSON text."""
    if isinstance(value, str) and value[:1] in ("[", "{"):
        try:
            value = json.loads(value)
        except ValueError:
            return value
    if isinstance(value, list | tuple):
        return [_settings(item) for item in value]
    # Of an assumed role the rest is a session's name, duration and external id, which works as a shared secret.
    return value.get("roleArn", "given") if isinstance(value, Mapping) else value


EXTRACTORS: dict[str, Callable[[Resource], Iterator[Fact]]] = {
    **{token: _access(kind, tuple(names.split())) for token, (kind, names) in _ROWS.items()},
    **dict.fromkeys(
        ("aws:s3/bucketObject:BucketObject", "aws:s3/bucketObjectv2:BucketObjectv2", "aws:s3/objectCopy:ObjectCopy"),
        _object_acl,
    ),
    **dict.fromkeys(_CODE, _code),
    **dict.fromkeys(("pulumi:providers:aws", "pulumi:providers:aws-native"), _provider),
}
