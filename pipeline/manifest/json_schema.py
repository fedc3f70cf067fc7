"""The JSON Schema of a YAML manifest, for editors.

`python -m pipeline.manifest.json_schema > configs/manifest.schema.json` writes it.

The schema knows shapes, types and bounds. It does not know models, motions, pictures or sums: `dop validate` does.
"""

from __future__ import annotations

import json
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from pipeline.manifest.yaml_model import DocumentModel

TITLE = "dop-batch manifest"


class _SchemaGenerator(GenerateJsonSchema):
    """A field may be left out, but never be null; and nothing has a default in the schema."""

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])


def generated() -> dict[str, Any]:
    """The schema as plain values."""
    schema = DocumentModel.model_json_schema(by_alias=True, schema_generator=_SchemaGenerator)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **_tidied(schema), "title": TITLE}


def _tidied(part: Any) -> Any:
    """Without the titles that are made of the field's names."""
    if isinstance(part, list):
        return [_tidied(item) for item in part]
    if not isinstance(part, dict):
        return part
    return {key: _tidied(value) for key, value in part.items() if key != "title" or not isinstance(value, str)}


def text() -> str:
    """The schema as the file has it."""
    return json.dumps(generated(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    print(text(), end="")  # noqa: T201 - data goes to stdout
