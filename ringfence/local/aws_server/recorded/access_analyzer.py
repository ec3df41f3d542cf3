"""IAM Access Analyzer's analyzers. Findings aren't made: nothing is analysed."""

from __future__ import annotations

from typing import Any

from ringfence.local.aws_server.recorded.kinds import Kind, Table, operations, tagging
from ringfence.local.aws_server.recorded.store import Context


def _build(context: Context, given: dict[str, Any]) -> dict[str, Any]:
    name = given.pop("analyzerName")
    arn = context.arn("access-analyzer", f"analyzer/{name}")
    return {**given, "name": name, "arn": arn, "status": "ACTIVE"}


ANALYZER = Kind(
    service="accessanalyzer",
    name="analyzer",
    identity={"analyzerName": "name"},
    arn="arn",
    create="CreateAnalyzer",
    describe="GetAnalyzer",
    list="ListAnalyzers",
    update="UpdateAnalyzer",
    delete="DeleteAnalyzer",
    answer="analyzer",
    listing="analyzers",
    filters={"type": "type"},
    omit=frozenset({"clientToken", "archiveRules"}),
    build=_build,
    stamps=("createdAt", ""),
    exists="ConflictException",
)
TABLE: Table = {**operations(ANALYZER), **tagging((ANALYZER,), "resourceArn", "tags", "tagKeys")}
