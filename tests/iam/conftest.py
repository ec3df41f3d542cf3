"""Small worlds in which every question can be answered by trying every request."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from ringfence.iam.containment import Decision, Outcome, contains
from ringfence.iam.document import CURRENT_VERSION, Document, Permissions, Statement, parse
from ringfence.iam.evaluate import evaluate, statement_matches
from ringfence.iam.request import Principal, Request


def statement(
    effect: str, action: Any, resource: Any, condition: Mapping[str, Any] | None = None, **others: Any
) -> dict[str, Any]:
    """One statement. `NotAction=…` and `NotResource=…` replace the positional ones when these are None."""
    made: dict[str, Any] = {"Effect": effect, "Action": action, "Resource": resource, **others}
    if condition:
        made["Condition"] = condition
    return {key: value for key, value in made.items() if value is not None}


def document(*statements: Mapping[str, Any], version: str = CURRENT_VERSION, kind: Any = None) -> Document:
    return parse({"Version": version, "Statement": list(statements)}, kind)


@dataclass
class World:
    """A pool of statements and every request worth making, so that a document is a set of requests."""

    name: str
    statements: Sequence[Mapping[str, Any]]
    requests: Sequence[Request]
    version: str = CURRENT_VERSION
    kind: Any = None
    shown: dict[bool, int] = field(default_factory=lambda: {True: 0, False: 0})
    _masks: dict[int, int] = field(default_factory=dict)
    _parsed: dict[int, Statement] = field(default_factory=dict)

    def documents(self, size: int) -> Iterator[tuple[int, ...]]:
        """Every choice of one to `size` statements of the pool."""
        for count in range(1, size + 1):
            yield from itertools.combinations(range(len(self.statements)), count)

    def document(self, chosen: Iterable[int]) -> Document:
        return document(*(self.statements[place] for place in chosen), version=self.version, kind=self.kind)

    def mask(self, place: int) -> int:
        """The requests that a statement of the pool applies to."""
        if place not in self._masks:
            parsed = self.document([place])
            only = parsed.statements[0]
            self._parsed[place] = only
            self._masks[place] = sum(
                1 << number
                for number, request in enumerate(self.requests)
                if statement_matches(only, request, variables=parsed.variables_enabled)
            )
        return self._masks[place]

    def allowed(self, chosen: Iterable[int]) -> int:
        """The requests that the document of these statements allows."""
        allowed = denied = 0
        for place in chosen:
            mask = self.mask(place)
            if self._parsed[place].effect == "Allow":
                allowed |= mask
            else:
                denied |= mask
        return allowed & ~denied

    def disagreement(self, old: tuple[int, ...], new: tuple[int, ...]) -> tuple[str, Decision]:
        """What is wrong with the decision on a pair, empty when nothing: a miss, a false alarm or an undecided.

        A request outside the world may show a widening too, so a witness is judged by evaluating both documents.
        """
        before, after = self.document(old), self.document(new)
        decision = contains(before, after, deadline_s=20)
        gained = self.allowed(new) & ~self.allowed(old)
        if decision.outcome is Outcome.UNDECIDED:
            return f"undecided: {decision.reason}", decision
        if decision.contained:
            return (f"missed {self.requests[(gained & -gained).bit_length() - 1]}" if gained else ""), decision
        witness = decision.witness.request
        if not evaluate(Permissions((after,)), witness).allowed or evaluate(Permissions((before,)), witness).allowed:
            return f"false alarm {witness}", decision
        self.shown[bool(gained)] += 1
        return "", decision


def requests(
    actions: Iterable[str],
    resources: Iterable[str],
    contexts: Mapping[str, Sequence[Any]],
    principals: Iterable[Principal | None] = (None,),
) -> list[Request]:
    """Every combination. contexts: key → values to try; None leaves the key out, a tuple gives several values."""
    made = []
    for action, resource, principal in itertools.product(actions, resources, principals):
        for values in itertools.product(*contexts.values()):
            context = {
                key: value if isinstance(value, tuple) else (value,)
                for key, value in zip(contexts, values, strict=True)
                if value is not None
            }
            if principal is not None:
                context = principal.context() | context
            made.append(Request(action, resource, context, principal))
    return made


def worlds() -> dict[str, World]:
    """The worlds, by name: one per dimension of the language."""
    return {world.name: world for world in _worlds()}


def _worlds() -> Iterator[World]:
    get, put, buckets = "s3:GetObject", "s3:PutObject", "s3:ListAllMyBuckets"
    everything = "arn:aws:s3:::*"
    yield World(
        "actions",
        [
            statement(effect, *spec)
            for effect in ("Allow", "Deny")
            for spec in ((get, "*"), ("s3:Get*", "*"), ("S3:?ETObject", "*"), ("*", "*"), (["s3:P*", buckets], "*"))
        ]
        + [
            statement(effect, None, "*", NotAction=kept)
            for effect in ("Allow", "Deny")
            for kept in (get, ["s3:Get*", "iam:*"], "s3:*")
        ],
        requests(
            [get, put, buckets, "s3:GetBucketAcl", "s3:GetNew", "s3:New", "iam:ListUsers", "new:New"],
            ["*", f"{everything[:-1]}a/a"],
            {},
        ),
    )
    bucket = "arn:aws:s3:::"
    texts = [
        "a", "b", "ab", "aa/", "a/a", "a/b", "a/ab", "a/abb", "b/a", "b/b", "ab/b", "a/b/a", "b/aab", "c/c", "a/cb",
    ]  # fmt: skip
    yield World(
        "resources",
        [
            statement(effect, get, listed)
            for effect in ("Allow", "Deny")
            for listed in (
                f"{bucket}a/*", f"{bucket}a*", f"{bucket}*/b", f"{bucket}?/a*", f"{bucket}a/a*b", "*", "arn:aws:s3:*a/b",
                [f"{bucket}a/b", f"{bucket}b/*"],
                [f"{bucket}a/b", f"{bucket}b/*", f"{bucket}?b/*", f"{bucket}*b/a", f"{bucket}c/*"],
            )
        ]
        + [
            statement(effect, get, None, NotResource=kept)
            for effect in ("Allow", "Deny")
            for kept in (f"{bucket}a/*", [f"{bucket}a/a*", f"{bucket}*b"])
        ],
        requests([get], ["*", *(bucket + text for text in texts), "arn:aws:s3:eu:1:accesspoint/p/object/b"], {}),
    )  # fmt: skip
    yield from _condition_worlds()
    yield _variable_world()
    yield _resource_policy_world()
    yield _trust_world()


_TAG = "aws:RequestTag/t"


def _conditioned(tests: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    plain = [statement(effect, "s3:GetObject", "arn:aws:s3:::a/*") for effect in ("Allow", "Deny")]
    return plain + [
        statement(effect, "s3:GetObject", "arn:aws:s3:::a/*", test) for effect in ("Allow", "Deny") for test in tests
    ]


def _condition_world(name: str, tests: Sequence[Mapping[str, Any]], contexts: Mapping[str, Sequence[Any]]) -> World:
    return World(name, _conditioned(tests), requests(["s3:GetObject"], ["arn:aws:s3:::a/a"], contexts))


def _condition_worlds() -> Iterator[World]:
    yield from _text_worlds()
    yield from _ordered_worlds()
    yield from _flag_worlds()
    yield from _arn_worlds()


def _text_worlds() -> Iterator[World]:
    yield _condition_world(
        "text",
        [
            {"StringEquals": {_TAG: "a"}}, {"StringEquals": {_TAG: ["a", "ab"]}}, {"StringNotEquals": {_TAG: "a"}},
            {"StringNotEqualsIfExists": {_TAG: ["a", "b"]}}, {"StringEqualsIfExists": {_TAG: "a"}},
            {"StringLike": {_TAG: "a*"}}, {"StringNotLike": {_TAG: "a*"}}, {"StringLike": {_TAG: "*b"}},
            {"StringLikeIfExists": {_TAG: "?"}}, {"StringEqualsIgnoreCase": {_TAG: "A"}},
            {"StringNotEqualsIgnoreCase": {_TAG: "aB"}}, {"Null": {_TAG: "true"}}, {"Null": {_TAG: "false"}},
            {"StringLike": {_TAG: "*"}}, {"StringEquals": {_TAG: []}}, {"StringEquals": {_TAG.upper(): "a"}},
        ],
        {_TAG: [None, "", "a", "A", "b", "ab", "aB", "AB", "B", "abb", "acb", "xx", "x", "aa"]},
    )  # fmt: skip
    keys = "aws:TagKeys"
    yield _condition_world(
        "sets",
        [
            {f"{quantifier}:{test}": {keys: values}}
            for quantifier in ("ForAllValues", "ForAnyValue")
            for test, values in (
                ("StringEquals", "a"), ("StringEquals", ["a", "b"]), ("StringLike", "a*"), ("StringNotEquals", "a"),
                ("StringNotLike", ["a*", "b"]), ("StringEqualsIfExists", "b"),
            )
        ]
        + [{"Null": {keys: "true"}}, {"Null": {keys: "false"}}],
        {
            keys: [None]
            + [
                chosen
                for count in (1, 2, 3)
                for chosen in itertools.combinations(("a", "b", "ab", "x"), count)
            ]
        },
    )  # fmt: skip


def _ordered_worlds() -> Iterator[World]:
    number = "s3:max-keys"
    yield _condition_world(
        "numbers",
        [
            {f"Numeric{relation}": {number: value}}
            for relation, value in (
                ("Equals", "10"), ("NotEquals", "10"), ("LessThan", "10"), ("LessThanEquals", "10"), ("GreaterThan", "10"),
                ("GreaterThanEquals", 10), ("LessThan", "20"), ("GreaterThanIfExists", "5"), ("NotEquals", ["10", "20"]),
                ("Equals", "10.0"), ("LessThanEqualsIfExists", "20"),
            )
        ],
        {number: [None, "4", "5", "7", "10", "12", "20", "21"]},
    )  # fmt: skip
    date = "aws:CurrentTime"
    yield _condition_world(
        "dates",
        [
            {f"Date{relation}": {date: value}}
            for relation, value in (
                ("Equals", "2026-01-01T00:00:00Z"), ("NotEquals", "2026-01-01"), ("LessThan", "2026-01-01T00:00:00Z"),
                ("LessThanEquals", "1767225600"), ("GreaterThan", "2026-01-01T02:00:00+02:00"),
                ("GreaterThanEquals", "2026-01-01T00:00:00Z"), ("LessThan", "2027-01-01T00:00:00Z"),
                ("GreaterThanIfExists", "2025-06-01"),
            )
        ],
        {date: [None, *(f"{day}T00:00:00Z" for day in ("2025-01-01", "2025-06-01", "2025-08-01", "2026-01-01", "2026-06-01",
                                                     "2027-01-01", "2028-01-01"))]},
    )  # fmt: skip
    address = "aws:SourceIp"
    yield _condition_world(
        "addresses",
        [
            {"IpAddress": {address: "10.0.0.0/8"}}, {"IpAddress": {address: ["10.0.0.0/9", "10.128.0.0/9"]}},
            {"NotIpAddress": {address: "10.0.0.0/8"}}, {"IpAddress": {address: "0.0.0.0/0"}},
            {"IpAddress": {address: "::/0"}}, {"IpAddressIfExists": {address: "10.1.0.0/16"}},
            {"NotIpAddressIfExists": {address: ["10.1.0.0/16", "2001:db8::/32"]}}, {"IpAddress": {address: "10.1.2.3"}},
            {"NotIpAddress": {address: ["0.0.0.0/0", "::/0"]}},
        ],
        {address: [None, "9.255.255.255", "10.0.0.0", "10.1.0.0", "10.1.2.3", "10.127.0.1", "10.128.0.0", "11.0.0.0",
                   "2001:db8::1", "2001:db9::1"]},
    )  # fmt: skip


def _flag_worlds() -> Iterator[World]:
    secure, present = "aws:SecureTransport", "aws:MultiFactorAuthPresent"
    yield _condition_world(
        "booleans",
        [
            {"Bool": {secure: "true"}}, {"Bool": {secure: False}}, {"BoolIfExists": {secure: "true"}},
            {"BoolIfExists": {secure: "FALSE"}}, {"StringEquals": {secure: "true"}}, {"StringNotEquals": {secure: "true"}},
            {"Bool": {secure: ["true", "false"]}}, {"Null": {secure: "false"}}, {"Bool": {secure: "true", present: "true"}},
            {"Bool": {present: "false"}}, {"Null": {present: "true"}},
        ],
        {secure: [None, "true", "false"], present: [None, "true", "false"]},
    )  # fmt: skip
    yield _condition_world(
        "bytes",
        [
            {"BinaryEquals": {_TAG: "QQ=="}}, {"BinaryEqualsIfExists": {_TAG: ["QQ==", "Qg=="]}},
            {"ForAllValues:BinaryEquals": {"aws:TagKeys": "QQ=="}}, {"Null": {_TAG: "true"}},
        ],
        {_TAG: [None, "QQ==", "Qg==", "Qw=="], "aws:TagKeys": [None, ("QQ==",), ("QQ==", "Qg==")]},
    )  # fmt: skip


def _arn_worlds() -> Iterator[World]:
    source = "aws:SourceArn"
    yield _condition_world(
        "arns",
        [
            {"ArnLike": {source: "arn:aws:s3:*:*:a"}}, {"ArnEquals": {source: "arn:aws:s3:::a*"}},
            {"StringLike": {source: "arn:aws:s3:*:a"}}, {"ArnNotLike": {source: "arn:aws:s3:*:*:*"}},
            {"ArnNotEquals": {source: "arn:aws:s3:?::a"}}, {"ArnLikeIfExists": {source: "arn:aws:sns:*:1:*"}},
            {"StringEquals": {source: "arn:aws:s3:::a"}}, {"ArnLike": {source: "*"}}, {"StringNotLike": {source: "arn:*:a"}},
        ],
        {source: [None, "arn:aws:s3:::a", "arn:aws:s3:r:1:a", "arn:aws:s3:r::a", "arn:aws:s3:::ab", "arn:aws:s3:::x:a",
                  "arn:aws:s3:rr:1:b:a", "arn:aws:sns:r:1:a", "arn:aws:sns:r:2:a", "arn:aws:sns:r:2:b", "arn:aws:s3:r:1:x:b",
                  "other", "arn:aws:sns:r:1:b", "arn:aws:s3:r:1:b", "arn:a", "arn:aws:s3::1:a"]},
    )  # fmt: skip
    other = "aws:PrincipalTag/t"
    yield _condition_world(
        "two keys",
        [
            {"StringEquals": {_TAG: "a"}}, {"StringEquals": {other: "a"}}, {"StringEquals": {_TAG: "a", other: "a"}},
            {"StringNotEquals": {_TAG: "a", other: "a"}}, {"StringEquals": {_TAG: "a"}, "Null": {other: "false"}},
            {"StringEqualsIfExists": {_TAG: "b", other: "b"}}, {"StringNotEquals": {other: "a"}},
            {"StringEquals": {_TAG: f"${{{other}}}"}}, {"StringNotEquals": {_TAG: f"${{{other}}}"}},
            {"StringLike": {_TAG: f"${{{other}, 'a'}}"}},
        ],
        {_TAG: [None, "a", "b", "c", ""], other: [None, "a", "b", "c", ""]},
    )  # fmt: skip


def _variable_world() -> World:
    name = "aws:username"
    bucket = "arn:aws:s3:::b/"
    pool = [
        statement(effect, "s3:GetObject", resource, condition)
        for effect in ("Allow", "Deny")
        for resource, condition in (
            (f"{bucket}${{{name}}}/*", None), (f"{bucket}${{{name}}}/a", None), (f"{bucket}bob/*", None), (f"{bucket}*/a", None),
            (f"{bucket}*", {"StringEquals": {name: "bob"}}), (f"{bucket}${{{name}}}*", {"StringNotEquals": {name: "bob"}}),
            (f"{bucket}${{{name}, 'bob'}}/a", None), (f"{bucket}*/${{{name}}}", None), (f"{bucket}bob/a", {"Null": {name: "true"}}),
            (f"{bucket}${{*}}/a", None), (f"{bucket}bo*", None),
        )
    ]  # fmt: skip
    users = ["bob", "bo", "eve", "a", "fresh", "bobby"]
    resources = [f"{bucket}{one}/{two}" for one in [*users, "*", "x"] for two in (*users, "", "zz", "x/a")]
    return World("variables", pool, requests(["s3:GetObject"], resources, {name: [None, *users]}))


def _resource_policy_world() -> World:
    account, other = "111122223333", "444455556666"
    role = f"arn:aws:iam::{account}:role/r"
    principals = [
        Principal("AWS", role), Principal("AWS", f"arn:aws:iam::{account}:user/u"), Principal("AWS", f"arn:aws:iam::{other}:role/r"),
        Principal("AWS", "arn:aws:iam::777788889999:role/dev-r"), Principal("Service", "s3.amazonaws.com"),
        Principal("Service", "sns.amazonaws.com"), Principal("Anonymous"), Principal("Federated", "x.example.com"),
        Principal("AWS", "arn:aws:iam::777788889999:role/r"), Principal("AWS", f"arn:aws:iam::{account}:role/dev-r"),
    ]  # fmt: skip
    named: list[tuple[Any, Any]] = [
        ("*", None), ({"AWS": "*"}, {"StringEquals": {"aws:PrincipalAccount": account}}), ({"AWS": account}, None), ({"AWS": role}, None),
        ({"AWS": [role, other]}, None), ({"Service": "s3.amazonaws.com"}, None),
        ("*", {"ArnLike": {"aws:PrincipalArn": "arn:aws:iam::*:role/dev-*"}}), ("*", {"Bool": {"aws:PrincipalIsAWSService": "false"}}),
        ("*", {"ArnNotEquals": {"aws:PrincipalArn": role}}),
    ]  # fmt: skip
    bucket = "arn:aws:s3:::b/*"
    pool = [
        statement(effect, "s3:GetObject", bucket, condition, Principal=principal)
        for effect in ("Allow", "Deny")
        for principal, condition in named
    ]
    pool += [
        statement("Deny", "s3:GetObject", bucket, NotPrincipal={"AWS": [role]}),
        statement("Deny", "s3:GetObject", bucket, NotPrincipal={"AWS": [account], "Service": ["s3.amazonaws.com"]}),
    ]
    return World("principals", pool, requests(["s3:GetObject"], ["arn:aws:s3:::b/a"], {}, principals), kind="resource")


def _trust_world() -> World:
    role, user = "arn:aws:iam::111122223333:role/r", "arn:aws:iam::111122223333:user/u"
    provider = "arn:aws:iam::111122223333:oidc-provider/example.com"
    principals = [
        Principal("AWS", role), Principal("AWS", user), Principal("AWS", "arn:aws:iam::444455556666:role/r"),
        Principal("Service", "ec2.amazonaws.com"), Principal("Service", "eks.amazonaws.com"), Principal("Federated", provider),
    ]  # fmt: skip
    web, assume = "sts:AssumeRoleWithWebIdentity", "sts:AssumeRole"
    named: list[tuple[str, Any, Any]] = [
        (assume, {"AWS": "111122223333"}, None), (assume, {"AWS": role}, None),
        (assume, {"AWS": role}, {"StringEquals": {"sts:ExternalId": "x"}}), (assume, {"Service": ["ec2.amazonaws.com"]}, None),
        (assume, {"Service": ["ec2.amazonaws.com", "eks.amazonaws.com"]}, None), ([assume, "sts:TagSession"], {"AWS": user}, None),
        (web, {"Federated": provider}, {"StringLike": {"example.com:sub": "repo:a/*"}}),
        (web, {"Federated": provider}, {"StringEquals": {"example.com:sub": "repo:a/b"}}), (assume, {"AWS": "*"}, None),
        ("sts:*", {"AWS": role}, None),
    ]  # fmt: skip
    pool = [
        statement(effect, action, None, condition, Principal=principal)
        for effect in ("Allow", "Deny")
        for action, principal, condition in named
    ]
    contexts = {"sts:ExternalId": [None, "x", "y"], "example.com:sub": [None, "repo:a/b", "repo:a/c", "repo:b/b"]}
    every = requests([assume, web, "sts:TagSession"], ["*"], contexts, principals)
    return World("trust", pool, every, kind="trust")


WORLDS = worlds()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that takes `world` runs once in each."""
    if "world" in metafunc.fixturenames:
        metafunc.parametrize("world", list(WORLDS.values()), ids=[name.replace(" ", "-") for name in WORLDS])


@pytest.fixture(scope="session")
def make() -> Callable[..., Document]:
    """`make(*statements, version=…, kind=…)`: the document of these statements."""
    return document


@pytest.fixture(scope="session")
def says() -> Callable[..., dict[str, Any]]:
    """`says(effect, action, resource, condition=None, **others)`: one statement."""
    return statement


@pytest.fixture(scope="session")
def all_worlds() -> dict[str, World]:
    return WORLDS
