"""Documents as plain data: canonical text, refusals, sizes."""

from __future__ import annotations

import json

import pytest

from ringfence.errors import InputError
from ringfence.iam.document import parse
from ringfence.iam.rendering import MANAGED_POLICY_LIMIT, check_size, document, policy_size, statement


def test_the_order_in_which_lists_are_written_does_not_change_the_text():
    one = statement("Allow", ["s3:PutObject", "s3:GetObject"], ["b", "a", "a"], {"StringLike": {"k": ["y", "x"]}})
    other = statement("Allow", ["s3:GetObject", "s3:PutObject"], ["a", "b"], {"StringLike": {"k": ["x", "y"]}})
    assert document(one) == document(other)


def test_a_rendered_document_is_one_that_iam_accepts():
    text = document(
        statement("Allow", "s3:GetObject", "arn:aws:s3:::b/*", {"Bool": {"aws:SecureTransport": "true"}}, sid="Read"),
        statement("Deny", "iam:*", "*"),
    )
    assert len(parse(text, "identity").statements) == 2


def test_a_trust_policy_has_no_resource():
    text = document(statement("Allow", "sts:AssumeRole", None, principals={"Service": "ec2.amazonaws.com"}))
    assert "Resource" not in json.loads(text)["Statement"][0]
    assert parse(text, "trust").statements


@pytest.mark.parametrize(
    ("effect", "actions", "resources"), [("Permit", "a:b", "*"), ("Allow", [], "*"), ("Allow", "a:b", [])]
)
def test_a_statement_that_iam_would_refuse_is_never_made(effect, actions, resources):
    with pytest.raises(ValueError):
        statement(effect, actions, resources)


def test_size_counts_what_iam_counts():
    assert policy_size('{ "a":\n\t"b c" }') == len('{"a":"bc"}')


def test_a_document_at_the_limit_passes_and_one_character_more_does_not():
    check_size("policy p", "managed policy", ["x" * MANAGED_POLICY_LIMIT], MANAGED_POLICY_LIMIT)
    with pytest.raises(InputError) as caught:
        check_size("policy p", "managed policy", ["x" * MANAGED_POLICY_LIMIT, "x"], MANAGED_POLICY_LIMIT)
    (problem,) = caught.value.problems
    assert problem.where == "policy p" and "6,145" in problem.message and "6,144" in problem.message and problem.remedy
