"""email-notifier: sends plain-text mail from the agents' own address."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent_runtime.errors import ToolError
from agent_runtime.tool import Tool
from agent_runtime.tools import aws
from agent_runtime.tools.surroundings import Surroundings

MAX_RECIPIENTS = 10
_PARAMETERS = {
    "type": "object",
    "properties": {
        "recipients": {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": MAX_RECIPIENTS},
        "subject": {"type": "string"},
        "body": {"type": "string"},
    },
    "required": ["recipients", "subject", "body"],
    "additionalProperties": False,
}


def tool(surroundings: Surroundings) -> Tool:
    """The tool for one task. The sender is the one that the grant names."""
    declaration = surroundings.declaration
    senders = [
        value
        for grant in declaration.grants
        for keys in grant.conditions.values()
        for key, values in keys.items()
        if key.lower() == "ses:fromaddress"
        for value in values
    ]

    def run(arguments: Mapping[str, Any]) -> Any:
        recipients = arguments.get("recipients")
        if not isinstance(recipients, list) or not 1 <= len(recipients) <= MAX_RECIPIENTS:
            raise ToolError(f"recipients must be a list of 1 to {MAX_RECIPIENTS} addresses")
        if not all(isinstance(item, str) for item in (*recipients, arguments.get("subject"), arguments.get("body"))):
            raise ToolError("recipients, subject and body must be text")
        if not senders:
            raise ToolError("the tool's grant names no sender")
        try:
            aws.client("ses", surroundings).send_email(
                Source=senders[0],
                Destination={"ToAddresses": recipients},
                Message={
                    "Subject": {"Data": " ".join(arguments["subject"].split()), "Charset": "UTF-8"},
                    "Body": {"Text": {"Data": arguments["body"], "Charset": "UTF-8"}},
                },
            )
        except ToolError:
            raise
        except Exception as error:
            raise aws.fault(error) from error
        return {"sent": len(recipients)}

    return Tool(declaration.name, declaration.description or "Sends mail.", _PARAMETERS, run)
