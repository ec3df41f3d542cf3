"""What sending mail asks for. Raw messages and templates are not mapped: their senders and recipients stand elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from ringfence.local.aws_server.authorization.asking import Asked, Service, Unmapped, View, one

# `local@domain`, alone or as `Name <local@domain>`; nothing that two readers could split differently.
_ADDRESS = re.compile(r"^(?:(?P<name>[^<>@,;:\"\r\n]*)<(?P<inner>[^<>]+)>|(?P<plain>[^<>]+))\Z")
_BARE = re.compile(r"^[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]+@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+\Z")


def _split(text: object) -> tuple[str, str]:
    """Display name and bare address. Raises Unmapped for anything but one plain address."""
    match = _ADDRESS.match(text) if isinstance(text, str) else None
    address = (match["inner"] or match["plain"] or "").strip() if match else ""
    if not _BARE.match(address):
        raise Unmapped("an address is not one plain mail address")
    return (match["name"] or "").strip() if match else "", address


def _identity(view: View, address: str) -> str:
    """The verified identity that the address is sent as: itself, its domain or the nearest domain above."""
    from moto.ses.models import ses_backends

    backend = ses_backends[view.call.account][view.call.region]
    domain = address.rpartition("@")[2].lower()
    labels = domain.split(".")
    candidates = [address, *(".".join(labels[start:]) for start in range(len(labels) - 1))]
    known = {str(name).lower() for name in backend.email_identities}
    return view.arn("ses", f"identity/{next((name for name in candidates if name.lower() in known), domain)}")


def _recipients(destination: Mapping[str, Any]) -> tuple[str, ...]:
    fields: Iterable[Any] = (destination.get(name) or () for name in ("ToAddresses", "CcAddresses", "BccAddresses"))
    return tuple(_split(entry)[1] for listed in fields for entry in listed)


def _send(view: View, sender: str, destination: Mapping[str, Any], feedback: str | None, version: str) -> list[Asked]:
    name, address = _split(sender)
    context = {
        "ses:FromAddress": (address,),
        "ses:FromDisplayName": one(name or None),
        "ses:Recipients": _recipients(destination),
        "ses:FeedbackAddress": one(_split(feedback)[1] if feedback else None),
        "ses:ApiVersion": (version,),
    }
    asked = [Asked("ses:SendEmail", _identity(view, address), context)]
    if view.text("ConfigurationSetName"):
        configuration = view.arn("ses", f"configuration-set/{view.text('ConfigurationSetName')}")
        asked.append(Asked("ses:SendEmail", configuration, context))
    return asked


def _send_v1(view: View) -> list[Asked]:
    if view.params.get("SourceArn") or view.params.get("ReturnPathArn"):
        raise Unmapped("sending for another account's identity")
    sender, feedback = view.required("Source"), view.text("ReturnPath") or None
    return _send(view, sender, view.params.get("Destination") or {}, feedback, "1")


def _send_v2(view: View) -> list[Asked]:
    params = view.params
    if set(params.get("Content") or {}) != {"Simple"}:
        raise Unmapped("only simple messages are sent; raw ones and templates name senders and recipients elsewhere")
    if (params["Content"]["Simple"] or {}).get("Headers"):
        raise Unmapped("a message with headers of its own")
    if params.get("FromEmailAddressIdentityArn") or params.get("FeedbackForwardingEmailAddressIdentityArn"):
        raise Unmapped("sending for another account's identity")
    feedback = view.text("FeedbackForwardingEmailAddress") or None
    return _send(view, view.required("FromEmailAddress"), params.get("Destination") or {}, feedback, "2")


_KEYS = frozenset({"ses:fromaddress", "ses:fromdisplayname", "ses:recipients", "ses:feedbackaddress", "ses:apiversion"})
SES = Service({"SendEmail": _send_v1}, _KEYS)
SES_V2 = Service({"SendEmail": _send_v2}, _KEYS)
