"""Shapes of secrets. The same table as the control side's `ringfence.redaction.patterns`, which the collector's rules are
made from; the image stands alone, so a test compares the two.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SecretPattern:
    """name: kebab-case, shown in the place of what was masked. finds: what it is. regex: see the module's rules."""

    name: str
    finds: str
    regex: str


# What may stand between a key's name and its value, quoted or not, also in JSON inside of JSON.
_GAP = "[^A-Za-z0-9/+]{1,24}"
_PEM_LABEL = "(?:[A-Z0-9]+ ){0,4}PRIVATE KEY(?: BLOCK)?-----"

PATTERNS: tuple[SecretPattern, ...] = (
    SecretPattern(
        "private-key",
        "PEM and PGP private keys, cut off ones too",
        f"-----BEGIN {_PEM_LABEL}(?:[^-]|-[^-])*(?:-----END {_PEM_LABEL})?",
    ),
    # Prefixes: docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html
    SecretPattern("aws-access-key-id", "AWS access key ids, long-lived and temporary", "(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}"),
    SecretPattern(
        "aws-secret-access-key",
        "AWS secret access keys beside their name; alone they look like any base64",
        f"(?i:secret[_-]?access[_-]?key){_GAP}[A-Za-z0-9/+]{{40}}",
    ),
    SecretPattern(
        "aws-session-token",
        "STS session tokens, by the start of the encoded protocol buffer",
        "(?:FwoGZXIvYXdz|FQoGZXIvYXdz|IQoJb3JpZ2lu)[A-Za-z0-9/+=%]{40,}",
    ),
    SecretPattern(
        "json-web-token",
        "JSON Web Tokens: Kubernetes service accounts, OIDC",
        "eyJ[A-Za-z0-9_-]{10,}[.]eyJ[A-Za-z0-9_-]{10,}[.][A-Za-z0-9_-]{10,}",
    ),
    SecretPattern("github-token", "GitHub tokens of every kind", "gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9_]{22,255}"),
    SecretPattern("slack-token", "Slack tokens", "xox[abeoprs]-[A-Za-z0-9-]{10,}|xapp-[0-9]-[A-Za-z0-9-]{10,}"),
    SecretPattern(
        "slack-webhook",
        "Slack webhook addresses",
        "hooks[.]slack[.]com/(?:services|workflows|triggers)/[A-Za-z0-9/_-]{20,}",
    ),
    SecretPattern("anthropic-key", "Anthropic API keys", "sk-ant-[A-Za-z0-9_-]{20,}"),
    SecretPattern(
        "openai-key",
        "OpenAI API keys, with and without a kind",
        "sk-(?:proj|svcacct|admin)-[A-Za-z0-9_-]{20,}|sk-[A-Za-z0-9]{40,}",
    ),
    SecretPattern("google-api-key", "Google API keys", "AIza[A-Za-z0-9_-]{35}"),
    SecretPattern("vault-token", "Vault tokens (service, batch, recovery)", "hv[bsr][.][A-Za-z0-9_-]{24,}"),
    # A full stop follows many a word, hence the character before.
    SecretPattern("openbao-token", "OpenBao tokens and Vault's before 1.10", "(?:^|[^A-Za-z0-9_])[bsr][.][A-Za-z0-9]{24,}"),
    SecretPattern(
        "url-password",
        "user and password in a URL",
        "[A-Za-z][A-Za-z0-9+.-]{1,20}://[^/ :@\"']{0,100}:[^/ @\"']{1,200}@",
    ),
    SecretPattern(
        "authorization",
        "HTTP credentials",
        "(?i:authorization)[^A-Za-z0-9]{1,24}(?i:basic|bearer|token) {1,4}[A-Za-z0-9._~+/=-]{8,}"
        "|(?i:bearer) {1,4}[A-Za-z0-9._~+/=-]{20,}",
    ),
    SecretPattern(
        "assigned-secret",
        "passwords and keys beside their name",
        "(?i:password|passwd|api[_-]?key|client[_-]?secret|access[_-]?token|refresh[_-]?token)"
        "[^A-Za-z0-9]{0,12}[:=][^A-Za-z0-9]{0,12}[A-Za-z0-9][^ ,;\"'&}]{7,}",
    ),
)  # fmt: skip
