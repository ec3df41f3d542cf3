"""Random documents from small vocabularies, and requests that tell most of them apart, one vocabulary per dimension."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence
from typing import Any

from tests.iam.independent_evaluator import Asked, properties

Documents = list[dict[str, Any]]
GET = "s3:GetObject"
ACCOUNT, OTHER = "111122223333", "444455556666"
ROLE, USER = f"arn:aws:iam::{ACCOUNT}:role/r", f"arn:aws:iam::{ACCOUNT}:user/u"


def documents(chance: random.Random, statement: Callable[[random.Random], dict[str, Any]]) -> Documents:
    return [
        {"Version": "2012-10-17", "Statement": [statement(chance) for _ in range(chance.choice([1, 1, 2, 2, 3]))]}
        for _ in range(chance.choice([1, 1, 1, 2]))
    ]


def effect(chance: random.Random) -> str:
    return chance.choice(["Allow", "Allow", "Deny"])


def some(chance: random.Random, values: Sequence[Any]) -> Any:
    chosen = chance.sample(values, min(len(values), chance.choice([1, 1, 2])))
    return chosen[0] if len(chosen) == 1 else chosen


# Principals

PRINCIPALS: list[Any] = [
    "*", {"AWS": "*"}, {"AWS": ACCOUNT}, {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}, {"AWS": ROLE}, {"AWS": [ROLE, USER]},
    {"AWS": [OTHER, ROLE]}, {"Service": "s3.amazonaws.com"}, {"Service": ["s3.amazonaws.com", "sns.amazonaws.com"], "AWS": USER},
    {"Service": "*"}, {"CanonicalUser": "a" * 64}, {"AWS": f"arn:aws:sts::{ACCOUNT}:assumed-role/r/s"},
    {"Federated": "accounts.google.com"},
]  # fmt: skip
PRINCIPAL_CONDITIONS: list[Any] = [
    {"StringEquals": {"aws:PrincipalAccount": ACCOUNT}}, {"StringNotEquals": {"aws:PrincipalAccount": [ACCOUNT]}},
    {"StringLike": {"aws:PrincipalAccount": "1111*"}}, {"StringLike": {"aws:PrincipalAccount": ["*6666", "7777*"]}},
    {"StringNotLike": {"aws:PrincipalAccount": "??11*"}}, {"NumericEquals": {"aws:PrincipalAccount": OTHER}},
    {"ArnLike": {"aws:PrincipalArn": f"arn:aws:iam::{ACCOUNT}:role/*"}},
    {"ArnNotLike": {"aws:PrincipalArn": "arn:aws:iam::*:role/dev*"}},
    {"StringLike": {"aws:PrincipalArn": "arn:aws:iam::*:user/*"}}, {"StringNotEqualsIfExists": {"aws:PrincipalArn": ROLE}},
    {"Bool": {"aws:PrincipalIsAWSService": "true"}}, {"BoolIfExists": {"aws:PrincipalIsAWSService": "false"}},
    {"StringEquals": {"aws:PrincipalServiceName": "sns.amazonaws.com"}},
    {"StringLike": {"aws:PrincipalServiceName": "s*.amazonaws.com"}},
    {"StringEquals": {"aws:PrincipalType": "User"}}, {"StringNotEquals": {"aws:PrincipalType": ["AssumedRole", "User"]}},
    {"StringEquals": {"aws:PrincipalType": ["Anonymous", "Account"]}}, {"StringEquals": {"aws:SourceAccount": ACCOUNT}},
    {"StringEquals": {"aws:SourceAccount": "${aws:PrincipalAccount}"}},
    {"StringEquals": {"aws:PrincipalAccount": "${aws:SourceAccount}"}},
    {"ArnLike": {"aws:PrincipalArn": "arn:aws:iam::${aws:SourceAccount}:role/*"}},
    {"Null": {"aws:PrincipalAccount": "true"}}, {"StringEquals": {"aws:PrincipalOrgID": "o1"}},
]  # fmt: skip
ASKING = [
    *(("AWS", f"arn:aws:{service}::{account}:{name}") for service, account, name in (
        ("iam", ACCOUNT, "role/r"), ("iam", ACCOUNT, "user/u"), ("iam", ACCOUNT, "root"), ("sts", ACCOUNT, "assumed-role/r/s"),
        ("iam", OTHER, "role/r"), ("iam", OTHER, "role/dev"), ("iam", OTHER, "root"), ("iam", "777788889999", "role/r"),
        ("iam", ACCOUNT, "role/dev"), ("iam", "777788889999", "user/z"), ("sts", "777788889999", "federated-user/f"),
        ("iam", "222211114444", "role/q"),
    )),
    *(("Service", f"{name}.amazonaws.com") for name in ("s3", "sns", "sqs", "ec2")),
    ("CanonicalUser", "a" * 64), ("Federated", "accounts.google.com"), ("Anonymous", ""),
]  # fmt: skip


def principal_statement(chance: random.Random) -> dict[str, Any]:
    made: dict[str, Any] = {"Effect": effect(chance), "Action": GET, "Resource": "arn:aws:s3:::b/*"}
    if made["Effect"] == "Deny" and chance.random() < 0.3:
        made["NotPrincipal"] = chance.choice(PRINCIPALS[2:])
    else:
        made["Principal"] = chance.choice(PRINCIPALS)
    if chance.random() < 0.75:
        made["Condition"] = chance.choice(PRINCIPAL_CONDITIONS)
    return made


def principal_requests() -> list[Asked]:
    made = []
    for who, source, organisation in itertools.product(ASKING, (None, ACCOUNT, OTHER), (None, "o1", "o2")):
        context = properties(who)
        context |= {"aws:sourceaccount": (source,)} if source else {}
        context |= {"aws:principalorgid": (organisation,)} if organisation else {}
        made.append(Asked(GET, "arn:aws:s3:::b/x", context, who))
    return made


# Variables

NAME, TEAM, OWNER, PREFIX = "aws:username", "aws:PrincipalTag/t", "aws:ResourceTag/o", "s3:prefix"
BUCKET = "arn:aws:s3:::b/"
VARIED_RESOURCES = [
    f"{BUCKET}{text}"
    for text in (
        "*", "${aws:username}/*", "${aws:username}", "a/*", "a*", "${aws:PrincipalTag/t}/*", "${aws:username, 'a'}/*",
        "${aws:username}/${aws:PrincipalTag/t}", "*/${aws:username}", "?/*", "a/${aws:username}/*", "*a/*",
    )
]  # fmt: skip
VARIED_VALUES = [
    "${aws:username}", "${aws:PrincipalTag/t}", "a", "b", "a*", "${aws:username}/*", "*", "${aws:ResourceTag/o}",
    "${aws:username, 'a'}", "${*}", "A", "",
]  # fmt: skip
VARIED_OPERATORS = [
    "StringEquals", "StringNotEquals", "StringLike", "StringNotLike", "StringEqualsIfExists", "StringNotEqualsIfExists",
    "StringEqualsIgnoreCase", "Null", "ForAllValues:StringEquals", "ForAnyValue:StringLike",
]  # fmt: skip


def varied_condition(chance: random.Random) -> dict[str, Any]:
    operator, key = chance.choice(VARIED_OPERATORS), chance.choice([OWNER, PREFIX, NAME, TEAM, OWNER, PREFIX])
    if operator == "Null":
        return {operator: {key: chance.choice(["true", "false"])}}
    return {operator: {key: some(chance, VARIED_VALUES)}}


def varied_statement(chance: random.Random) -> dict[str, Any]:
    made: dict[str, Any] = {"Effect": effect(chance), "Action": GET}
    inverted = chance.random() < 0.2
    made["NotResource" if inverted else "Resource"] = some(chance, VARIED_RESOURCES[inverted:])
    if chance.random() < 0.4:
        made["Condition"] = varied_condition(chance)
    return made


def varied_requests() -> list[Asked]:
    chance = random.Random(3)
    names = ("a/a", "a/b", "b/a", "b/b", "a", "ab/x", "x/y", "fresh/q", "/a", "*/a", "a/", "b/ab", "a/b/c", "ca/x")
    values: dict[str, Sequence[str | None]] = {
        NAME: (None, "a", "b", "fresh", "ab", ""),
        TEAM: (None, "a", "b", "fresh"),
        OWNER: (None, "a", "b", "fresh", "A", "ab"),
        PREFIX: (None, "a", "b", "a/", "fresh/z", "fresh"),
    }
    every = [
        Asked(GET, BUCKET + name, {k.lower(): (v,) for k, v in zip(values, chosen, strict=True) if v is not None})
        for chosen in itertools.product(*values.values())
        for name in chance.sample(names, 2)
    ]
    return chance.sample(every, 900)


# Operators on one key

OPERANDS: dict[str, tuple[list[str], list[Any]]] = {
    "aws:SourceIp": (
        ["IpAddress", "NotIpAddress", "StringEquals", "StringLike"],
        ["10.0.0.0/8", "10.0.0.0/9", "10.0.0.1", "0.0.0.0/0", "::/0", "2001:db8::/32", "128.0.0.0/1", "10.0.0.7/29"],
    ),
    "aws:CurrentTime": (
        ["DateEquals", "DateNotEquals", "DateLessThan", "DateLessThanEquals", "DateGreaterThan", "DateGreaterThanEquals"],
        ["2020-01-01", "2020-01-01T00:00:00Z", "2020-01-01T01:00:00+01:00", 1577836800, "2020-01-02T00:00:00Z", "2021"],
    ),
    "aws:EpochTime": (
        ["DateLessThan", "DateGreaterThan", "NumericLessThan", "NumericGreaterThanEquals", "NumericNotEquals"],
        ["1577836800", 1577836801, "1893456000"],
    ),
    "s3:max-keys": (
        ["NumericEquals", "NumericNotEquals", "NumericLessThan", "NumericLessThanEquals", "NumericGreaterThan"],
        [5, "5.0", 10, -1, "1e1", 7.5, "0"],
    ),
    "aws:SecureTransport": (["Bool", "StringEquals", "StringNotEquals"], ["true", "false"]),
    "aws:ResourceTag/x": (["Bool", "StringEquals", "StringNotEquals", "StringLike"], ["true", "false", "True"]),
    "aws:SourceArn": (
        ["ArnLike", "ArnEquals", "ArnNotLike", "StringLike", "StringEquals", "StringNotLike"],
        ["arn:aws:sns:us:1:t", "arn:aws:sns:*:1:*", "arn:aws:s*:us:1:t", "arn:aws:sns:*", "*", "arn:*:sns:us:1:t*"],
    ),
    "aws:TagKeys": (
        [f"{q}:{o}" for q in ("ForAllValues", "ForAnyValue") for o in ("StringEquals", "StringNotLike", "StringLike")],
        ["a", "b", "ab", "a*", "*b", "?"],
    ),
}  # fmt: skip
VALUES: dict[str, list[tuple[str, ...]]] = {
    "aws:SourceIp": [(v,) for v in ("10.0.0.1", "10.200.0.1", "11.0.0.1", "200.1.1.1", "::1", "2001:db8::1", "10.0.0.6")],
    "aws:CurrentTime": [
        (v,) for v in ("2019-12-31T23:59:59Z", "2020-01-01T00:00:00Z", "2020-01-01T12:00:00Z", "2020-06-01", "2022-01-01")
    ],
    "aws:EpochTime": [(v,) for v in ("1577836799", "1577836800", "1577836801", "1577836900", "1893456000", "1893456001")],
    "s3:max-keys": [(v,) for v in ("-2", "-1", "0", "1", "5", "6", "7.5", "8", "10", "11")],
    "aws:SecureTransport": [("true",), ("false",)],
    "aws:ResourceTag/x": [("true",), ("false",), ("foo",), ("TRUE",), ("",)],
    "aws:SourceArn": [
        (v,) for v in ("arn:aws:sns:us:1:t", "arn:aws:sns:us:1:tt", "arn:aws:sns:eu:1:t", "arn:aws:sqs:us:1:t", "foo",
                       "arn:aws-cn:sns:us:1:t", "arn:aws:sns:us:1:t:1:t", "arn:aws:sns:x:y:1:t")
    ],
    "aws:TagKeys": [c for n in (1, 2, 3) for c in itertools.combinations(("a", "b", "ab", "x", "cb"), n)],
}  # fmt: skip


def mixed(key: str) -> Callable[[random.Random], dict[str, Any]]:
    """Statements that differ in how they test one key."""
    operators, operands = OPERANDS[key]

    def condition(chance: random.Random) -> dict[str, Any]:
        if chance.random() < 0.15:
            return {"Null": {key: chance.choice(["true", "false", True])}}
        operator = chance.choice(operators)
        listed = [each for each in operands if key != "aws:SourceIp" or "IpAddress" in operator or "/" not in each]
        if operator == "StringLike" and key == "aws:SourceIp":
            listed = ["10.*", "10.0.0.1", "11.0.*"]
        return {operator + chance.choice(["", "", "IfExists"]): {key: some(chance, listed)}}

    def statement(chance: random.Random) -> dict[str, Any]:
        made: dict[str, Any] = {"Effect": effect(chance), "Action": GET, "Resource": "arn:aws:s3:::b/*"}
        if chance.random() < 0.85:
            made["Condition"] = condition(chance)
            if chance.random() < 0.4:
                for operator, tests in condition(chance).items():
                    made["Condition"].setdefault(operator, tests)
        return made

    return statement


def mixed_requests(key: str) -> list[Asked]:
    resource = "arn:aws:s3:::b/x"
    return [Asked(GET, resource, {})] + [Asked(GET, resource, {key.lower(): values}) for values in VALUES[key]]


# Actions and resources

ACTIONS = [
    "s3:*", "s3:Get*", "s3:List*", GET, "*", "iam:*", "iam:Pass*", "iam:GetRole", "sqs:*", "ec2:*", "ec2:Describe*", "*:List*",
    "*:Get*", "lambda:Invoke*", "S3:getobject", "s?s:*", "*:*", "ec2:RunInstances", "sqs:SendMessage", "*:*Role", "s3:*Object*",
    "*:Delete*", "iam:?etUser",
]  # fmt: skip
RESOURCES = [
    "*", "arn:aws:s3:::*", "arn:aws:s3:::a/*", "arn:aws:s3:::a", "arn:aws:s3:::a*", "arn:aws:s3:::*/x", "arn:*:s3:::ab*",
    "arn:aws:iam::111111111111:*", "arn:aws:iam::*:role/*", "arn:aws:iam::*:role/a*", "arn:aws:sqs:*:*:q*",
    "arn:aws:sqs:us-*:111111111111:*", "arn:aws:ec2:*:*:instance/*", "arn:aws:ec2:*::image/*", "arn:aws:lambda:*:*:function:a*",
    "*/a", "arn:aws:iam::?11111111111:role/a", "arn:aws:*",
]  # fmt: skip
REQUESTED = {
    ("s3:GetObject",): ["arn:aws:s3:::a/x", "arn:aws:s3:::ab/x", "arn:aws:s3:::a/y/x"],
    ("s3:ListBucket",): ["arn:aws:s3:::a", "arn:aws:s3:::ab"],
    ("s3:ListAllMyBuckets", "ec2:DescribeInstances"): ["*"],
    ("sqs:SendMessage",): ["arn:aws:sqs:us-east-1:111111111111:q", "arn:aws:sqs:eu-west-1:222222222222:q2"],
    ("iam:PassRole", "iam:GetRole", "iam:DeleteRole"): [
        "arn:aws:iam::111111111111:role/a", "arn:aws:iam::111111111111:role/x/ab", "arn:aws:iam::222222222222:role/a",
    ],
    ("iam:GetUser",): ["arn:aws:iam::111111111111:user/a"],
    ("ec2:RunInstances",): ["arn:aws:ec2:us-east-1:111111111111:instance/i-1", "arn:aws:ec2:us-east-1::image/ami-1"],
    ("lambda:InvokeFunction",): ["arn:aws:lambda:us-east-1:111111111111:function:a"],
}  # fmt: skip


def action_statement(chance: random.Random) -> dict[str, Any]:
    made: dict[str, Any] = {"Effect": effect(chance)}
    made["NotAction" if chance.random() < 0.3 else "Action"] = some(chance, ACTIONS)
    inverted = chance.random() < 0.15
    made["NotResource" if inverted else "Resource"] = some(chance, RESOURCES[inverted:])
    return made


def action_requests() -> list[Asked]:
    return [Asked(name, each, {}) for named, listed in REQUESTED.items() for name in named for each in listed]
