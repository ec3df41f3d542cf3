"""JSON Schemas of the catalog files, for editors and for people without Ringfence at hand."""

from __future__ import annotations

import json
from typing import Any

from ringfence.catalog.model import Roles, Tool, Users

# File name under catalog/schema/ → the model that it describes.
SCHEMAS = {"tool.schema.json": Tool, "roles.schema.json": Roles, "users.schema.json": Users}


def rendered(file_name: str) -> str:
    """The schema file's full text. Raises KeyError for a name not in SCHEMAS."""
    schema: dict[str, Any] = SCHEMAS[file_name].model_json_schema(by_alias=True)
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    return json.dumps(schema, indent=2, sort_keys=True) + "\n"
