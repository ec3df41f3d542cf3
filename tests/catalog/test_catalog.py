"""The catalog: every problem of every file at once, nothing ambiguous, nothing too wide."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import jsonschema
import pytest
import yaml

from ringfence.catalog import load
from ringfence.catalog.runtime import runtime_tools
from ringfence.catalog.schema import SCHEMAS, rendered
from ringfence.errors import InputError
from ringfence.names import Names

CATALOG = Path(__file__).parents[2] / "catalog"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(CATALOG, tmp_path / "catalog"))


def edit(folder: Path, tool: str, change) -> None:
    path = folder / "tools" / f"{tool}.yaml"
    data = yaml.safe_load(path.read_text())
    change(data)
    path.write_text(yaml.safe_dump(data))


def test_the_shipped_catalog_has_five_tools_and_three_roles():
    catalog = load(CATALOG)
    assert len(catalog.tools) >= 5
    assert len(catalog.roles) == 3
    assert catalog.tools_of("auditor") == {"s3-report-reader"}
    assert catalog.tools_of("nobody") == frozenset()


def test_every_tool_knows_its_file_and_line():
    for tool in load(CATALOG).tools:
        text = (CATALOG.parent / tool.source.file).read_text().splitlines()
        assert text[tool.source.line - 1] == f"name: {tool.name}"


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_json_schemas_are_those_of_the_models(name: str):
    assert (CATALOG / "schema" / name).read_text() == rendered(name)


def test_the_shipped_files_fit_their_json_schema():
    schema = yaml.safe_load(rendered("tool.schema.json"))
    for path in (CATALOG / "tools").glob("*.yaml"):
        data = yaml.safe_load(path.read_text())
        data["reviewDate"] = data["reviewDate"].isoformat()
        jsonschema.validate(data, schema)


BAD = {
    "a whole service": lambda d: d["grants"][0].update(actions=["s3:*"]),
    "everything": lambda d: d["grants"][0].update(actions=["*"]),
    "a star resource without condition": lambda d: d["grants"][0].update(resources=["*"]),
    "a resource that is no ARN": lambda d: d["grants"][0].update(resources=["my-bucket"]),
    "a grant without reason": lambda d: d["grants"][0].pop("reason"),
    "no owner": lambda d: d.pop("owner"),
    "no review date": lambda d: d.pop("reviewDate"),
    "a thin justification": lambda d: d.update(justification="needed"),
    "an unknown key": lambda d: d.update(grant=[]),
    "an address as domain": lambda d: d.update(egress={"domains": ["169.254.169.254"]}),
    "an IPv6 address as domain": lambda d: d.update(egress={"domains": ["fd00:ec2::254"]}),
    "a top-level wildcard": lambda d: d.update(egress={"domains": ["*.com"]}),
    "a star domain": lambda d: d.update(egress={"domains": ["*"]}),
    "an upper-case domain": lambda d: d.update(egress={"domains": ["API.example.com"]}),
    "a domain with a port": lambda d: d.update(egress={"domains": ["api.example.com:8443"]}),
    "AWS through the proxy": lambda d: d.update(egress={"domains": ["*.amazonaws.com"]}),
    "a bucket host through the proxy": lambda d: d.update(egress={"domains": ["b.s3.us-east-1.amazonaws.com"]}),
    "a timeout over five minutes": lambda d: d.update(limits={"timeoutSeconds": 301}),
    "a long-lived credential": lambda d: d.update(credentialTtlSeconds=3600),
    "a name that differs from the file": lambda d: d.update(name="other"),
}


@pytest.mark.parametrize("mistake", BAD)
def test_a_mistake_is_refused_with_file_and_remedy(folder: Path, mistake: str):
    edit(folder, "s3-report-reader", BAD[mistake])
    with pytest.raises(InputError) as caught:
        load(folder)
    assert any("s3-report-reader" in problem.where or problem.key for problem in caught.value.problems)
    assert all(problem.remedy for problem in caught.value.problems)


def test_problems_of_several_files_come_at_once(folder: Path):
    edit(folder, "s3-report-reader", BAD["no owner"])
    edit(folder, "web-fetch", BAD["a top-level wildcard"])
    (folder / "tools" / "broken.yaml").write_text("name: [\n")
    with pytest.raises(InputError) as caught:
        load(folder)
    assert len({problem.where for problem in caught.value.problems}) == 3


def test_a_role_with_an_unknown_capability_and_a_capability_with_an_unknown_tool_are_refused(folder: Path):
    text = (folder / "roles.yaml").read_text()
    text = text.replace("[web-fetch]", "[web-fetsh]").replace("[reporting]", "[reportin]")
    (folder / "roles.yaml").write_text(text)
    with pytest.raises(InputError) as caught:
        load(folder)
    assert {problem.key for problem in caught.value.problems} == {"capabilities.research", "roles.auditor"}


def test_a_stray_file_is_refused_since_it_would_be_ignored(folder: Path):
    (folder / "tools" / "new-tool.yml").write_text("name: new-tool\n")
    with pytest.raises(InputError, match="would be ignored"):
        load(folder)


@pytest.mark.parametrize(
    "raw",
    [
        b"a: &x [*x, *x]\n",
        b"name: a\nname: b\n",
        b"\xff\xfe",
        b"- just\n- a\n- list\n",
        b"",
        b"[" * 10_000,
        b"a: " + b"x" * 2_000_000,
        b"a: !!python/object/apply:os.system [id]\n",
        b"a: 1\n---\nb: 2\n",
        b"? [a, b]\n: c\n",
        b"<<: {a: 1}\n",
        b"reviewDate: 2027-13-45\n",
    ],
    ids=["recursive", "duplicate", "utf8", "list", "empty", "deep", "large", "tag", "two", "complex", "merge", "date"],
)
def test_hostile_yaml_is_an_input_error(folder: Path, raw: bytes):
    (folder / "tools" / "web-fetch.yaml").write_bytes(raw)
    with pytest.raises(InputError):
        load(folder)


BAD_ARGUMENTS = {
    "a broken expression": ({"key": {"pattern": "["}}, "is not a regular expression"),
    "free text that selects": ({"key": {"content": True, "enum": ["a"]}}, "leave content out"),
    "a name that no argument has": ({"a b": {"maxLength": 5}}, "a b"),
    "an unknown rule": ({"key": {"minLength": 5}}, "minLength"),
    "names out of a list that the tool has not": ({"key": {"listedBy": "list"}}, "arguments.action.enum"),
    "free text out of a list": ({"key": {"listedBy": "list", "content": True}}, "leave one of them out"),
    "no characters at all": ({"key": {"maxLength": 0}}, "maxLength"),
}


@pytest.mark.parametrize("case", BAD_ARGUMENTS)
def test_a_bad_rule_of_an_argument_is_refused_with_its_key(folder: Path, case: str):
    rules, said = BAD_ARGUMENTS[case]
    edit(folder, "web-fetch", lambda data: data.update(arguments=rules))
    with pytest.raises(InputError) as caught:
        load(folder)
    assert "arguments" in str(caught.value)
    assert said in str(caught.value)


def test_a_sandbox_is_told_what_it_decides_by_and_no_more():
    names = Names(prefix="acme", environment="dev", account_id="123456789012", region="eu-west-1")
    reader, fetch = (load(CATALOG).tool(name) for name in ("s3-report-reader", "web-fetch"))
    told = runtime_tools([reader, fetch], names, {"web-fetch": 15100})
    assert json.loads(json.dumps(told)) == told
    assert told[0]["grants"][0]["resources"] == ["arn:aws:s3:::example-reports-123456789012/published/*"]
    assert told[0]["grants"][1]["conditions"] == {"StringLike": {"s3:prefix": ["published/*"]}}
    assert told[0]["arguments"]["action"] == {"enum": ["list", "read"], "maxLength": 10000, "content": False}
    assert (told[0]["port"], told[1]["port"]) == (None, 15100)
    assert told[1]["egress"]["domains"] == ["en.wikipedia.org", "docs.python.org", "kubernetes.io"]
    assert not {"owner", "justification", "reviewDate", "review_date"} & set(told[0])
