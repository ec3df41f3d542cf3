"""What CloudWatch Logs masks in a log group, and who may not lift the mask.

The last of three redactions (the first two: values that the broker issued, and the collector's rules). Masking applies
to events that arrive after the policy is set, so the policy is made together with the log group.
"""

from __future__ import annotations

import json

from components.iam_documents import Statement, statement
from ringfence.names import Names

# Managed identifiers: docs.aws.amazon.com/AmazonCloudWatch/latest/logs/CWL-managed-data-identifiers.html
MANAGED_IDENTIFIERS = (
    "AwsSecretKey",
    "BankAccountNumber-US",
    "CreditCardNumber",
    "OpenSshPrivateKey",
    "PgpPrivateKey",
    "PkcsPrivateKey",
    "PuttyPrivateKey",
    "Ssn-US",
)
# Credentials that agents and their tools meet and that have no managed identifier. At most 10 per policy, 200
# characters each, and no parentheses (docs.aws.amazon.com/AmazonCloudWatch/latest/logs/CWL-custom-data-identifiers.html).
CUSTOM_IDENTIFIERS = {
    "AwsAccessKeyId": r"A[KS]IA[A-Z0-9]{16}",
    "GitHubToken": r"gh[pousr]_[A-Za-z0-9]{36,255}",
    "JsonWebToken": r"eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}",
    "ModelProviderKey": r"sk-[A-Za-z0-9_-]{20,}",
    "SlackToken": r"xox[abprs]-[A-Za-z0-9-]{10,}",
    "VaultToken": r"hv[bsr]\.[A-Za-z0-9_-]{24,}",
}


def data_protection_policy(names: Names, findings_log_group: str) -> str:
    """The data protection policy document: reports findings to `findings_log_group` and masks what was found."""
    managed = [
        names.arn("dataprotection", f"data-identifier/{name}", region="", account="aws") for name in MANAGED_IDENTIFIERS
    ]
    identifiers = [*managed, *sorted(CUSTOM_IDENTIFIERS)]
    policy = {
        "Name": names.name("log-protection"),
        "Description": "Masks credentials and account numbers that reached a log",
        "Version": "2021-06-01",
        "Configuration": {
            "CustomDataIdentifier": [
                {"Name": name, "Regex": regex} for name, regex in sorted(CUSTOM_IDENTIFIERS.items())
            ]
        },
        "Statement": [
            {
                "Sid": "Report",
                "DataIdentifier": identifiers,
                "Operation": {"Audit": {"FindingsDestination": {"CloudWatchLogs": {"LogGroup": findings_log_group}}}},
            },
            {"Sid": "Mask", "DataIdentifier": identifiers, "Operation": {"Deidentify": {"MaskConfig": {}}}},
        ],
    }
    # Keys stay in this order: CloudWatch returns the document as it was written, and it is compared as text.
    return json.dumps(policy, separators=(",", ":"))


def unmask_denial() -> Statement:
    """Nobody reads masked text in the clear, in any log group, nor takes the mask off a group."""
    return statement(
        "Deny",
        ["logs:DeleteDataProtectionPolicy", "logs:PutDataProtectionPolicy", "logs:Unmask"],
        "*",
        sid="MasksStay",
    )
