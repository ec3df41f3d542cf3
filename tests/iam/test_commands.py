"""`ringfence iam`, as people and pipelines call it."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from ringfence.iam.commands import iam

GET = {"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"}}
PUT = {
    "Version": "2012-10-17",
    "Statement": [{"Sid": "Put", "Effect": "Allow", "Action": "s3:PutObject", "Resource": "*"}],
}
TRUST = {
    "Version": "2012-10-17",
    "Statement": {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"Service": "ec2.amazonaws.com"}},
}


def run(*arguments, text=None):
    return CliRunner().invoke(iam, [str(each) for each in arguments], input=text)


def lines(*values):
    return b"".join((value if isinstance(value, bytes) else json.dumps(value).encode()) + b"\n" for value in values)


def batch(*values):
    result = run("compare", "--jsonl", text=lines(*values))
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.fixture
def write(tmp_path):
    def written(name, document):
        path = tmp_path / name
        path.write_text(document if isinstance(document, str) else json.dumps(document))
        return path

    return written


def test_two_files_are_contained_with_exit_code_0(write):
    result = run("compare", write("old.json", GET), write("new.json", GET))
    assert result.exit_code == 0
    assert result.output.startswith("contained")


def test_two_files_are_widened_with_exit_code_2_and_a_witness(write):
    result = run("compare", write("old.json", GET), write("new.json", PUT))
    assert result.exit_code == 2
    for said in ("s3:PutObject", "Put of the candidate", "policy_sentry"):
        assert said in result.output


def test_the_decision_can_be_json(write):
    result = run("compare", "--json", write("old.json", GET), write("new.json", PUT))
    assert json.loads(result.output)["witness"]["action"] == "s3:PutObject"


@pytest.mark.parametrize("bad", ["{}", "", "{", '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow"}]}'])
def test_a_bad_file_is_an_error_with_exit_code_1(write, bad):
    result = run("compare", write("old.json", GET), write("new.json", bad))
    assert result.exit_code == 1
    assert "new.json" in result.stderr
    assert "Traceback" not in result.output


def test_a_missing_file_and_a_bad_file_are_both_named(write, tmp_path):
    result = run("compare", write("old.json", "{"), tmp_path / "missing.json")
    assert result.exit_code == 1
    assert "old.json" in result.stderr and "missing.json" in result.stderr


def test_documents_of_different_kinds_are_not_compared(write):
    assert run("compare", write("old.json", GET), write("new.json", TRUST)).exit_code == 1


def test_lines_are_answered_in_order_and_bad_ones_cost_no_other():
    answers = batch(
        {"id": "same", "baseline": GET, "candidate": [GET]},
        {"id": "wider", "baseline": [GET], "candidate": [GET, PUT]},
        b'{"id": "cut", "baseline": {"Version"',
        {"id": 5, "baseline": {}, "candidate": GET},
        {"id": "no candidate", "baseline": GET},
        b'{"id": "bytes \xff", "baseline": 1}',
        b"[1, 2]",
        {"id": "kinds", "baseline": GET, "candidate": TRUST},
        {"id": "text", "baseline": json.dumps(GET), "candidate": GET},
        {"id": "nothing", "baseline": [], "candidate": []},
        {
            "id": "unknown",
            "baseline": GET,
            "candidate": {**GET, "Statement": {**GET["Statement"], "Action": "s3:GetObjectt"}},
        },
        b"[" * 200_000,
        {"id": None, "baseline": GET, "candidate": GET},
    )
    assert [answer["outcome"] for answer in answers] == [
        "contained", "widened", "undecided", "undecided", "undecided", "undecided", "undecided", "undecided", "contained",
        "contained", "widened_uncatalogued", "undecided", "contained",
    ]  # fmt: skip
    assert [answer["id"] for answer in answers[:5]] == ["same", "wider", "cut", 5, "no candidate"]
    for answer in answers:
        assert set(answer) >= {"id", "outcome", "witness", "reason", "ms"}
        assert bool(answer["reason"]) == (answer["outcome"] != "contained")
        assert answer["ms"] >= 0
    witness = answers[1]["witness"]
    assert witness["action"] == "s3:PutObject"
    assert witness["statement"] == {"layer": "identity", "document": 1, "index": 0, "sid": "Put"}


def test_a_line_may_hold_a_whole_permission_set():
    role = {"identity": [GET, PUT], "boundary": GET}
    (same, unbound, bad) = batch(
        {"id": 1, "baseline": GET, "candidate": role},
        {"id": 2, "baseline": role, "candidate": [GET, PUT]},
        {"id": 3, "baseline": role, "candidate": {"identity": GET, "bounds": GET}},
    )
    assert same["outcome"] == "contained"
    assert unbound["outcome"] == "widened" and unbound["witness"]["action"] == "s3:PutObject"
    assert bad["outcome"] == "undecided" and "bounds" in bad["reason"]


def test_a_line_that_is_too_long_is_answered_and_the_next_one_too():
    long_line = b'{"id": "long", "baseline": "' + b"x" * (9 * 1024 * 1024) + b'"}'
    answers = batch(long_line, {"id": "next", "baseline": GET, "candidate": GET})
    assert [(answer["id"], answer["outcome"]) for answer in answers] == [("long", "undecided"), ("next", "contained")]


def test_an_internal_fault_is_undecided_and_the_stream_goes_on(monkeypatch):
    def fail(*_arguments, **_options):
        raise ZeroDivisionError

    monkeypatch.setattr("ringfence.iam.batch.contains", fail)
    answers = batch({"id": 1, "baseline": GET, "candidate": GET}, {"id": 2, "baseline": GET, "candidate": GET})
    assert [answer["outcome"] for answer in answers] == ["undecided", "undecided"]


def test_principals_are_part_of_a_trust_witness():
    everyone = {**TRUST, "Statement": {**TRUST["Statement"], "Principal": {"AWS": "*"}}}
    (answer,) = batch({"id": 1, "baseline": TRUST, "candidate": everyone})
    assert answer["outcome"] == "widened"
    assert answer["witness"]["principal"]["type"] == "AWS"


def test_escalations_are_found_line_by_line():
    admin = {"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "iam:*", "Resource": "*"}}
    text = lines({"id": "admin", "policies": [admin]}, {"id": "reader", "policies": GET}, b"{", {"id": "empty"})
    result = run("escalations", "--jsonl", text=text)
    assert result.exit_code == 0
    found = [json.loads(line) for line in result.stdout.splitlines()]
    assert any("iam:PutUserPolicy" in each["actions"] for each in found[0]["escalations"])
    assert found[1]["escalations"] == []
    assert found[2]["escalations"] is None and found[2]["reason"]
    assert found[3]["escalations"] is None and found[3]["id"] == "empty"


def test_a_path_that_reaches_named_resources_only_is_given_with_that_scope():
    role = "arn:aws:iam::123456789012:role/admin"
    use = {"Effect": "Allow", "Action": ["lambda:CreateFunction", "lambda:InvokeFunction"], "Resource": "*"}
    passing = {"Effect": "Allow", "Action": "iam:PassRole", "Resource": role}
    document = {"Version": "2012-10-17", "Statement": [passing, use]}
    result = run("escalations", "--jsonl", text=lines({"id": 1, "policies": document}))
    (found,) = json.loads(result.stdout)["escalations"]
    assert (found["actions"][0], found["scope"]) == ("iam:PassRole", "named")


def test_a_trust_policy_completes_no_path():
    result = run("escalations", "--jsonl", text=lines({"id": 1, "policies": TRUST}))
    answer = json.loads(result.stdout)
    assert answer["escalations"] is None
    assert "principals" in answer["reason"]


def test_the_reason_of_a_bad_line_is_one_line():
    (answer,) = batch({"id": 1, "baseline": {"Statement": [{"Effect": "Maybe"}]}, "candidate": GET})
    assert "Statement[0].Effect" in answer["reason"] and "remedy" in answer["reason"]
    assert "\n" not in answer["reason"]


def test_a_byte_order_mark_is_no_part_of_the_first_line(write, tmp_path):
    (answer,) = batch(b"\xef\xbb\xbf" + json.dumps({"id": "first", "baseline": GET, "candidate": GET}).encode())
    assert (answer["id"], answer["outcome"]) == ("first", "contained")
    marked = tmp_path / "marked.json"
    marked.write_bytes(b"\xef\xbb\xbf" + json.dumps(GET).encode())
    assert run("compare", marked, write("new.json", GET)).exit_code == 0


def test_a_document_without_statements_grants_nothing():
    nothing = {"Version": "2012-10-17", "Statement": []}
    answers = batch(
        {"id": 1, "baseline": GET, "candidate": nothing},
        {"id": 2, "baseline": nothing, "candidate": GET},
        {"id": 3, "baseline": nothing, "candidate": [nothing]},
        {"id": 4, "baseline": TRUST, "candidate": nothing},
    )
    assert [answer["outcome"] for answer in answers] == ["contained", "widened", "contained", "contained"]
