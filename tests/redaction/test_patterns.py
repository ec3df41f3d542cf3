"""Each shape of secret is found whole, and ordinary text is left alone; the expressions run in RE2 too."""

from __future__ import annotations

import json
import re
from re import _constants as opcode
from re import _parser as parser

import pytest

from components.log_protection import CUSTOM_IDENTIFIERS
from ringfence.redaction.patterns import PATTERNS

BY_NAME = {pattern.name: pattern for pattern in PATTERNS}
BODY = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQ"
# Pattern → (a secret, the part that must be gone). Assembled, so that no scanner takes this file for a leak.
SECRETS = [
    ("private-key", f"-----BEGIN PRIVATE KEY-----\n{BODY}\n-----END PRIVATE KEY-----", BODY),
    ("private-key", f"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\n{BODY}\n-----END RSA PRIVATE KEY-----", BODY),
    ("private-key", f"-----BEGIN EC PRIVATE KEY-----\\n{BODY}", BODY),
    ("private-key", f"-----BEGIN PGP PRIVATE KEY BLOCK-----\n\n{BODY}\n-----END PGP PRIVATE KEY BLOCK-----", BODY),
    ("aws-access-key-id", "AKIA" + "IOSFODNN7EXAMPLE", "IOSFODNN7EXAMPLE"),
    ("aws-access-key-id", "ASIA" + "IOSFODNN7EXAMPLE", "IOSFODNN7EXAMPLE"),
    ("aws-secret-access-key", "aws_secret_access_key = " + "wJalrXUtnFEMI/K7MDENG/bPxRfiCY" + "EXAMPLEKEY", "wJalrXUtnFEMI"),
    ("aws-secret-access-key", '"SecretAccessKey": "' + "wJalrXUtnFEMI/K7MDENG/bPxRfiCY" + 'EXAMPLEKEY"', "wJalrXUtnFEMI"),
    ("aws-session-token", "IQoJb3JpZ2lu" + "X2VjE" * 20, "X2VjE" * 20),
    ("json-web-token", "eyJhbGciOiJSUzI1NiJ9." + "eyJzdWIiOiIxMjM0NTY3ODkwIn0." + "c2lnbmF0dXJlLWJ5dGVz", "c2lnbmF0dXJl"),
    ("github-token", "ghp_" + "a1B2" * 9, "a1B2" * 9),
    ("github-token", "github_pat_" + "11ABCDEFG0" * 4, "11ABCDEFG0"),
    ("slack-token", "xoxb-" + "123456789012-abcdefABCDEF", "123456789012"),
    ("slack-token", "xapp-1-" + "A0123456789-abc", "A0123456789"),
    ("slack-webhook", "https://hooks.slack.com/services/" + "T00000000/B00000000/abcdefgh", "T00000000"),
    ("anthropic-key", "sk-ant-" + "api03-" + "aB3_" * 10, "aB3_" * 10),
    ("openai-key", "sk-proj-" + "aB3-" * 10, "aB3-" * 10),
    ("openai-key", "sk-" + "aB3d" * 12, "aB3d" * 12),
    ("google-api-key", "AIza" + "SyA1234567890abcdefghijklmnopqrstuv", "SyA1234567890"),
    ("vault-token", "hvs." + "CAESIJ1234567890abcdefghijkl", "CAESIJ"),
    ("vault-token", "hvb." + "AAAAAQJ1234567890abcdefghijkl", "AAAAAQJ"),
    ("openbao-token", " s." + "abcdefABCDEF012345678901", "abcdefABCDEF"),
    ("url-password", "https://user:" + "p4ssw0rd@example.com/x", "p4ssw0rd"),
    ("url-password", "postgres://:" + "p4ssw0rd@db:5432/x", "p4ssw0rd"),
    ("authorization", "Authorization: Basic " + "dXNlcjpwYXNz", "dXNlcjpwYXNz"),
    ("authorization", '{"authorization":"Bearer ' + 'abcdefgh12345678"}', "abcdefgh12345678"),
    ("authorization", "sent bearer " + "abcdefgh123456789012", "abcdefgh123456789012"),
    ("assigned-secret", "password=" + "hunter2hunter2", "hunter2"),
    ("assigned-secret", '"client_secret": "' + 'abcd1234efgh"', "abcd1234"),
    ("assigned-secret", "API_KEY: " + "0123456789abcdef", "0123456789abcdef"),
]  # fmt: skip
ORDINARY = [
    ("private-key", "-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----"),
    ("private-key", "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----"),
    ("aws-access-key-id", "AKIA is the prefix of an access key id"),
    ("aws-access-key-id", "AROAIOSFODNN7EXAMPLE is a role, not a credential"),
    ("aws-secret-access-key", "rotate the secret access key of this user every 90 days"),
    ("aws-session-token", "a session token begins with IQoJb3JpZ2lu"),
    ("json-web-token", "eyJhbGciOiJSUzI1NiJ9 is only a header"),
    ("github-token", "ghp_ begins a GitHub token"),
    ("slack-token", "xoxb- begins a Slack token"),
    ("slack-webhook", "https://slack.com/services/help/articles/webhooks"),
    ("anthropic-key", "keys begin with sk-ant-"),
    ("openai-key", "task-0123456789abcdef0123456789abcdef"),
    ("openai-key", "risk-assessment-of-the-project-in-question"),
    ("google-api-key", "AIzaSyA is too short"),
    ("vault-token", "hvs. begins a token"),
    ("openbao-token", "components.vault_config and settings.RETENTION_DAYS"),
    ("openbao-token", "kubernetes.abcdefABCDEF012345678901"),
    ("url-password", "https://example.com:8443/a@b"),
    ("url-password", "arn:aws:iam::111122223333:role/x and mail me@example.com"),
    ("authorization", "authorization: denied by policy"),
    ("authorization", "the bearer of this letter"),
    ("assigned-secret", "forgot your password? reset it"),
    ("assigned-secret", "password: none"),
]  # fmt: skip


def _masked(name: str, text: str) -> str:
    return re.sub(BY_NAME[name].regex, "****", text)


@pytest.mark.parametrize(("name", "text", "part"), SECRETS)
def test_a_secret_is_masked_whole(name, text, part):
    assert part in text
    masked = _masked(name, f"before {text} after")
    assert part not in masked and "****" in masked
    assert masked.startswith("before")


@pytest.mark.parametrize(("name", "text", "part"), SECRETS)
def test_a_secret_is_masked_inside_of_json_too(name, text, part):
    assert part not in _masked(name, json.dumps({"message": f"x {text} y"}))
    assert part not in _masked(name, json.dumps(json.dumps({"message": f"x {text} y"})))


@pytest.mark.parametrize(("name", "text"), ORDINARY)
def test_ordinary_text_is_left_alone(name, text):
    assert _masked(name, text) == text


def test_every_pattern_has_a_secret_and_an_ordinary_text():
    assert len(BY_NAME) == len(PATTERNS)
    assert set(BY_NAME) == {case[0] for case in SECRETS} == {case[0] for case in ORDINARY}


def _operations(tree):
    for operation, argument in tree:
        yield operation, argument
        parts = argument if isinstance(argument, (list, tuple)) else (argument,)
        for part in parts:
            for item in part if isinstance(part, list) else (part,):
                if isinstance(item, parser.SubPattern):
                    yield from _operations(item)


NOT_IN_RE2 = {opcode.ASSERT, opcode.ASSERT_NOT, opcode.GROUPREF, opcode.GROUPREF_EXISTS, opcode.ATOMIC_GROUP,
              opcode.POSSESSIVE_REPEAT}  # fmt: skip


def _re2_problems(regex: str) -> list[str]:
    found = list(_operations(parser.parse(regex)))
    refused = [str(operation) for operation, _ in found if operation in NOT_IN_RE2]
    repeats = [argument for operation, argument in found if operation in (opcode.MAX_REPEAT, opcode.MIN_REPEAT)]
    too_many = [f"{low},{high}" for low, high, _ in repeats if low > 1000 or 1000 < high < parser.MAXREPEAT]
    return refused + too_many


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda pattern: pattern.name)
def test_the_collector_takes_the_expression(pattern):
    assert _re2_problems(pattern.regex) == []
    assert "$" not in pattern.regex and "\\" not in pattern.regex


@pytest.mark.parametrize("regex", ["(?=a)b", "(?<!a)b", "(a)\\1", "(?>a)", "a{1001}", "(?:x|(?!y)z)+"])
def test_what_re2_lacks_is_noticed(regex):
    assert _re2_problems(regex)


def test_whatever_cloudwatch_masks_the_collector_masks_before():
    examples = {"AwsAccessKeyId": "aws-access-key-id", "GitHubToken": "github-token", "JsonWebToken": "json-web-token",
                "ModelProviderKey": "openai-key", "SlackToken": "slack-token", "VaultToken": "vault-token"}  # fmt: skip
    assert set(examples) == set(CUSTOM_IDENTIFIERS)
    for identifier, name in examples.items():
        texts = [text for case, text, _ in SECRETS if case == name and re.search(CUSTOM_IDENTIFIERS[identifier], text)]
        assert texts, identifier
        for text in texts:
            assert not re.search(CUSTOM_IDENTIFIERS[identifier], _masked(name, text))
