"""The words of a finding: why it matters, how to fix it, how to approve it. Shared by the packs and the reports."""

from __future__ import annotations

from ringfence.review.changes import Change, ChangeKind, request_text
from ringfence.review.facts import Slot

APPROVE = (
    "if the access is wanted, run `ringfence grants update --preview FILE --approver YOU`, commit the lockfile and let "
    "the pull request show the new grant"
)

_WHY = {
    Slot.EXISTS: "a principal that nobody approved can be given permissions later, out of sight of this review",
    Slot.TRUST: "whoever may assume the role has everything that the role has",
    Slot.INLINE: "an agent that is talked into misusing the tool can do whatever its role can",
    Slot.INLINE_NAME: "an inline policy kept by name can hold anything",
    Slot.MANAGED: "an attached policy gives all of its permissions at once, and changes when its owner changes it",
    Slot.BOUNDARY: "the boundary is the limit that holds even when a policy is too wide",
    Slot.DOCUMENT: "every principal that the policy is attached to gains at once",
    Slot.RESOURCE_POLICY: "a resource's own policy opens it to principals whose roles this review never sees",
    Slot.MEMBERSHIP: "a member has every permission of the group",
    Slot.CREDENTIAL: "a long-lived credential works from anywhere until somebody remembers to revoke it",
    Slot.INSTANCE_PROFILE: "every process on such an instance can become the role through the metadata service",
    Slot.ACCESS_ENTRY: "the principal can log in to the cluster that runs the sandboxes",
    Slot.ACCESS_POLICY: "cluster access policies reach the control side and every sandbox",
    Slot.POD_IDENTITY: "every pod of the service account becomes the role",
    Slot.CLUSTER_ACCESS: "it decides who is administrator of the cluster without any further grant",
    Slot.KMS_GRANT: "a grant lets its holder use the key whatever the key policy says",
    Slot.PROVIDER: "a trusted identity provider can vouch for anybody",
    Slot.TEMPLATE: "what it makes the engine and this review never see, IAM resources included",
    Slot.FUNCTION_URL: "a function URL without IAM authorization can be called by anybody",
    Slot.ACCESS: "AWS gives it without a policy document, so that no comparison of policies shows it",
    Slot.AUTH_MAP: "the map makes IAM principals members of cluster groups, system:masters included",
}
_FIX = {
    Slot.TRUST: "name the one principal that needs the role, and keep the approved conditions",
    Slot.INLINE: "grant only the actions and resources that the tool's catalog entry lists",
    Slot.MANAGED: "take the attachment out, or grant the few actions needed in the role's own policy",
    Slot.BOUNDARY: "put the approved boundary back",
    Slot.RESOURCE_POLICY: "name principals, not `*`, and keep the approved conditions and denies",
    Slot.CREDENTIAL: "use a role and short-lived credentials",
    Slot.TEMPLATE: "declare what it makes in the program",
    Slot.FUNCTION_URL: "set authorizationType to AWS_IAM",
}
_UNREVIEWABLE_FIX = (
    "render the document from fixed names and ARNs instead of another resource's outputs, or give that resource a fixed "
    "name, so that the preview can show it"
)


def why(change: Change) -> str:
    """Why the change matters."""
    if change.kind is ChangeKind.UNREVIEWABLE:
        return "a document that nobody can read before the update can grant anything"
    return _WHY[change.slot]


def fix(change: Change) -> str:
    """How to make the finding go away without approving it."""
    if change.kind is ChangeKind.UNREVIEWABLE:
        return _UNREVIEWABLE_FIX
    return _FIX.get(change.slot, "take it out, or narrow it to what was approved")


def approve(change: Change) -> str:
    """How to approve it instead."""
    if change.kind is ChangeKind.UNREVIEWABLE:
        return "it can't be approved while nobody can read it"
    return APPROVE


def lines(change: Change) -> list[str]:
    """The finding in full, a line each: what, witness, what was added, escalation paths, why, fix, approve."""
    told = [f"{change.message}."]
    if change.request is not None:
        told.append(f"Witness: {request_text(change.request)}")
    for addition in change.additions[:5]:
        told.append(f"Added: {addition.statement}")
    if len(change.additions) > 5:
        told.append(f"Added: {len(change.additions) - 5} more statements")
    for item in change.escalations[:5]:
        told.append(f"Escalation path now complete: {item.path.name} ({item.id}, {item.path.category})")
    if len(change.escalations) > 5:
        told.append(f"Escalation paths now complete: {len(change.escalations) - 5} more")
    told += [f"Why it matters: {why(change)}.", f"Fix: {fix(change)}.", f"Approve: {approve(change)}."]
    return told
