"""The shape of a YAML manifest: which keys stand where. configs/manifest.schema.json is generated from these classes.

Values are judged by `settle.JUDGES` while the shape is read, so that one pass finds all mistakes. What fields exclude
each other and what is missing is the compiler's business, not the shape's.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Annotated, Any, TypeAlias

from pydantic import BaseModel, ConfigDict, Discriminator, Field, GetCoreSchemaHandler, GetJsonSchemaHandler, Tag
from pydantic.config import JsonDict
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from pipeline.gateway.motions import MotionPreset
from pipeline.manifest import field_types, resolution
from pipeline.manifest.seeds import SEEDS
from pipeline.records import SEED_MAX, SEED_MIN, KeepIf

TAG = "\N{BLACK DIAMOND}"
"""First character of the union tags that pydantic puts into the places of its errors; no key begins so."""

_UUID = "^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"
_WORD: JsonSchemaValue = {"type": "string", "minLength": 1, "maxLength": 200, "pattern": "^\\S(.*\\S)?$"}
_TEXT: JsonSchemaValue = {"type": "string", "pattern": "\\S"}
_FRAME: JsonSchemaValue = {"type": "string", "pattern": "^\\S(.*\\S)?$"}
_FRAMES: JsonSchemaValue = {"anyOf": [_FRAME, {"type": "array", "items": _FRAME, "minItems": 1}]}
_TAG: JsonSchemaValue = {**_WORD, "pattern": "^[^,;\\s]([^,;]*[^,;\\s])?$"}
_SCALAR: JsonSchemaValue = {"type": ["string", "number", "boolean"]}


class ValidatedBy:
    """Marks a field whose value a function of ours judges, with the piece of JSON Schema that says the same."""

    def __init__(self, judge: str | Callable[[object], Any], schema: JsonSchemaValue) -> None:
        self._judge = judge
        self._schema = schema

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        judge = self._judge

        # A plain validator: our function alone judges the value and words the mistake. What pydantic says of its own
        # types is for programmers.
        def judged(value: object, info: core_schema.ValidationInfo[Any]) -> object:
            return resolution.VALIDATORS[judge](info.context, value) if isinstance(judge, str) else judge(value)

        return core_schema.with_info_plain_validator_function(judged)

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return dict(self._schema)


Word: TypeAlias = Annotated[str, ValidatedBy(field_types.word, _WORD)]
Model: TypeAlias = Annotated[str, ValidatedBy("model", {**_WORD, "examples": ["dop-lite", "dop-turbo", "dop-preview"]})]
Prompt: TypeAlias = Annotated[str, ValidatedBy("prompt", _TEXT)]
Seed: TypeAlias = Annotated[int, ValidatedBy("seed", {"type": "integer", "minimum": SEED_MIN, "maximum": SEED_MAX})]
Motion: TypeAlias = Annotated[
    MotionPreset, ValidatedBy("motion", {**_WORD, "examples": ["General", "Dolly In", "360 Orbit"]})
]
Strength: TypeAlias = Annotated[int, ValidatedBy("strength", {"type": "number", "minimum": 0, "maximum": 1})]
Image: TypeAlias = Annotated[
    tuple[str, ...],
    ValidatedBy("image", {"anyOf": [_FRAME, {"type": "array", "items": _FRAME, "minItems": 1, "maxItems": 1}]}),
]
EndImage: TypeAlias = Annotated[tuple[str, ...], ValidatedBy("end_image", _FRAMES)]
Flag: TypeAlias = Annotated[bool, ValidatedBy(field_types.boolean, {"type": "boolean"})]
Take: TypeAlias = Annotated[
    int, ValidatedBy("take", {"type": "integer", "minimum": 1, "maximum": field_types.MAX_TAKES})
]
Kept: TypeAlias = Annotated[
    int, ValidatedBy("keep", {"type": "integer", "minimum": 1, "maximum": field_types.MAX_KEPT})
]
Ahead: TypeAlias = Annotated[
    int, ValidatedBy("keep_ahead", {"type": "integer", "minimum": 0, "maximum": field_types.MAX_KEPT})
]
KeepRule: TypeAlias = Annotated[KeepIf, ValidatedBy("keep_if", {"enum": [rule.value for rule in KeepIf]})]
Tags: TypeAlias = Annotated[
    tuple[str, ...],
    ValidatedBy(
        "tags", {"anyOf": [_WORD, {"type": "array", "items": {**_WORD, "pattern": "^[^,;\\s]([^,;]*[^,;\\s])?$"}}]}
    ),
]
Text: TypeAlias = Annotated[str, ValidatedBy(field_types.scalar_text, _SCALAR)]
Scalar: TypeAlias = Annotated[object, ValidatedBy(field_types.scalar, _SCALAR)]
Money: TypeAlias = Annotated[int, ValidatedBy(field_types.money, {"type": "number", "minimum": 0})]
Version: TypeAlias = Annotated[int, ValidatedBy(field_types.version, {"const": 1})]
Count: TypeAlias = Annotated[
    int, ValidatedBy(field_types.seed_count, {"type": "integer", "minimum": 1, "maximum": SEEDS})
]
Number: TypeAlias = Annotated[Decimal, ValidatedBy(field_types.number, {"type": "number"})]
Expression: TypeAlias = Annotated[
    str, ValidatedBy(field_types.expression, {"anyOf": [{"type": "string", "pattern": "\\S"}, {"type": "number"}]})
]
SeedsExpression: TypeAlias = Annotated[
    str, ValidatedBy(field_types.seeds_expression, {"type": "string", "pattern": "\\S"})
]
Uuid: TypeAlias = Annotated[str, ValidatedBy(field_types.word, {"type": "string", "pattern": _UUID})]


class StrictModel(BaseModel):
    """A mapping with a closed set of keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, protected_namespaces=())


class RequestFields(StrictModel):
    """The fields that are sent, under the manifest's names and the API's."""

    model: Model | None = Field(None, description="Which model renders the video; it decides the price.")
    prompt: Prompt | None = Field(None, description="What the video shows. {{ name }} is replaced from vars.")
    seed: Seed | None = Field(None, description="One seed, 1..1,000,000. Several: `seeds`, or an axis in matrix.")
    motion: Motion | None = Field(None, description="A preset's name, an own name of `motions`, or a UUID.")
    strength: Strength | None = Field(None, description="Strength of the motion, 0..1 with at most two decimals.")
    image: Image | None = Field(
        None, description="Start frame: URL, s3://bucket/key, sandbox:NAME, or the path of a JPEG, PNG or WebP."
    )
    end_image: EndImage | None = Field(None, description="End frame, one or a list, for motions that take one.")
    enhance_prompt: Flag | None = Field(None, description="Whether the service may re-word the prompt.")
    check_nsfw: Flag | None = Field(None, description="Whether the service checks for adult content.")
    take: Take | None = Field(None, description="Which take of an equal request this is; take 2 buys it again.")
    motions_id: Motion | None = Field(None, description="The API's spelling of `motion`.")
    motions_strength: Strength | None = Field(None, description="The API's spelling of `strength`.")
    input_images: Image | None = Field(None, description="The API's spelling of `image`.")
    input_images_end: EndImage | None = Field(None, description="The API's spelling of `end_image`.")


class LabeledValues(RequestFields):
    """One value of an axis that sets several fields together; `label` names it."""

    label: Word | None = Field(None, description="Names the value in cell ids and on the sheet.")
    tags: Tags | None = None
    vars: dict[str, Text] | None = None
    skip: Flag | None = Field(None, description="Leaves the cells of this value empty: nothing is bought.")


class OverrideFields(RequestFields):
    """What an override sets."""

    tags: Tags | None = None
    vars: dict[str, Text] | None = None
    skip: Flag | None = None


class RangeModel(StrictModel):
    """Numbers from one to another, both included."""

    first: Number = Field(alias="from")
    last: Number = Field(alias="to")
    step: Number | None = None
    count: Count | None = Field(None, description="How many, evenly spread.")


class DerivedSeedsModel(StrictModel):
    """Seeds made of a key: always the same, asking for more keeps the first ones."""

    count: Count
    key: Word | None = Field(None, description="Rows with one key share their seeds. Default: the row's id.")


class RandomSeedsModel(StrictModel):
    """Seeds that `dop plan --out` draws and freezes."""

    random: Count


def _value_or_linked(value: object) -> str:
    return f"{TAG}linked" if isinstance(value, dict) else f"{TAG}value"


def _kind_of_axis(value: object) -> str:
    if isinstance(value, list):
        return f"{TAG}list"
    if not isinstance(value, dict):
        return f"{TAG}expression"
    return f"{TAG}range" if "from" in value or "to" in value else f"{TAG}derived"


def _kind_of_seed_axis(value: object) -> str:
    return f"{TAG}random" if isinstance(value, dict) and "random" in value else _kind_of_axis(value)


def _kind_of_number_axis(value: object) -> str:
    return f"{TAG}range" if isinstance(value, dict) else _kind_of_axis(value)


def _items_or_lists(value: object) -> str:
    return f"{TAG}lists" if isinstance(value, dict) else f"{TAG}items"


def _kind_of_rows(value: object) -> str:
    if not isinstance(value, dict):
        return f"{TAG}list"
    return f"{TAG}images" if "images" in value else f"{TAG}file"


_Or = Discriminator(_value_or_linked)
_LinkedItem: TypeAlias = Annotated[LabeledValues, Tag(f"{TAG}linked")]
_VALUE = Tag(f"{TAG}value")
_RangeAxis: TypeAlias = Annotated[RangeModel, Tag(f"{TAG}range")]
_ExpressionAxis: TypeAlias = Annotated[Expression, Tag(f"{TAG}expression")]
_Some = Field(min_length=1)

Models: TypeAlias = Annotated[list[Annotated[Annotated[Model, _VALUE] | _LinkedItem, _Or]], _Some]
Prompts: TypeAlias = Annotated[list[Annotated[Annotated[Prompt, _VALUE] | _LinkedItem, _Or]], _Some]
Motions: TypeAlias = Annotated[list[Annotated[Annotated[Motion, _VALUE] | _LinkedItem, _Or]], _Some]
Images: TypeAlias = Annotated[list[Annotated[Annotated[Image, _VALUE] | _LinkedItem, _Or]], _Some]
EndImages: TypeAlias = Annotated[list[Annotated[Annotated[EndImage, _VALUE] | _LinkedItem, _Or]], _Some]
Flags: TypeAlias = Annotated[list[Annotated[Annotated[Flag, _VALUE] | _LinkedItem, _Or]], _Some]
_Seeds: TypeAlias = Annotated[list[Annotated[Annotated[Seed, _VALUE] | _LinkedItem, _Or]], _Some, Tag(f"{TAG}list")]
_Strengths: TypeAlias = Annotated[
    list[Annotated[Annotated[Strength, _VALUE] | _LinkedItem, _Or]], _Some, Tag(f"{TAG}list")
]
_Takes: TypeAlias = Annotated[list[Annotated[Annotated[Take, _VALUE] | _LinkedItem, _Or]], _Some, Tag(f"{TAG}list")]
SeedAxis: TypeAlias = Annotated[
    _Seeds
    | _RangeAxis
    | Annotated[DerivedSeedsModel, Tag(f"{TAG}derived")]
    | Annotated[RandomSeedsModel, Tag(f"{TAG}random")]
    | _ExpressionAxis,
    Discriminator(_kind_of_seed_axis),
]
SeedsOfRow: TypeAlias = Annotated[
    _Seeds
    | _RangeAxis
    | Annotated[DerivedSeedsModel, Tag(f"{TAG}derived")]
    | Annotated[RandomSeedsModel, Tag(f"{TAG}random")]
    | Annotated[SeedsExpression, Tag(f"{TAG}expression")],
    Discriminator(_kind_of_seed_axis),
]
StrengthAxis: TypeAlias = Annotated[_Strengths | _RangeAxis | _ExpressionAxis, Discriminator(_kind_of_number_axis)]
TakeAxis: TypeAlias = Annotated[_Takes | _RangeAxis | _ExpressionAxis, Discriminator(_kind_of_number_axis)]
LinkedAxis: TypeAlias = Annotated[list[LabeledValues], _Some]


class DefaultsModel(RequestFields):
    """Fields that every row has unless it says otherwise."""

    repeat: Take | None = None
    seeds: SeedsOfRow | None = None
    tags: Tags | None = None
    loop: Flag | None = Field(None, description="Checks that the last frame leads on to the first; the tag loop.")
    keep: Kept | None = Field(None, description="How many good clips are wanted: seeds are bought until so many are.")
    keep_if: KeepRule | None = Field(None, description="check: a clip that passes the checks; pick: one that you keep.")
    keep_ahead: Ahead | None = Field(None, description="Candidates to buy beyond what is needed, to save time.")


NO_AXES = (
    *(
        "id",
        "seeds",
        "repeat",
        "tags",
        "vars",
        "skip",
        "loop",
        *resolution.KEEP_FIELDS,
        "matrix",
        "zip",
        "label",
        "row",
    ),
    *resolution.ALIASES,
    *resolution.FORBIDDEN_FIELDS,
)
"""Names that an axis must not have: they mean something else."""
PATTERNS = ("exclude", "override", "include")
"""Keys of the shared matrix beside its axes."""


def _refusing(*names: str) -> Callable[[JsonDict], None]:
    def add(schema: JsonDict) -> None:
        properties = schema.setdefault("properties", {})
        assert isinstance(properties, dict)
        properties.update(dict.fromkeys(names, False))

    return add


class AxesModel(StrictModel):
    """Axes by name. The first varies slowest. An axis of an own name has items that are mappings."""

    model_config = ConfigDict(extra="allow", json_schema_extra=_refusing(*NO_AXES, *PATTERNS))
    __pydantic_extra__: dict[str, LinkedAxis] = Field(init=False)

    model: Models | None = None
    prompt: Prompts | None = None
    seed: SeedAxis | None = None
    motion: Motions | None = None
    strength: StrengthAxis | None = None
    image: Images | None = None
    end_image: EndImages | None = None
    enhance_prompt: Flags | None = None
    check_nsfw: Flags | None = None
    take: TakeAxis | None = None


class ZipModel(StrictModel):
    """Lists of equal length, walked together."""

    label: Annotated[list[Word], _Some] | None = None
    model: Annotated[list[Model], _Some] | None = None
    prompt: Annotated[list[Prompt], _Some] | None = None
    seed: Annotated[list[Seed], _Some] | None = None
    motion: Annotated[list[Motion], _Some] | None = None
    strength: Annotated[list[Strength], _Some] | None = None
    image: Annotated[list[Image], _Some] | None = None
    end_image: Annotated[list[EndImage], _Some] | None = None
    enhance_prompt: Annotated[list[Flag], _Some] | None = None
    check_nsfw: Annotated[list[Flag], _Some] | None = None
    take: Annotated[list[Take], _Some] | None = None
    vars: (
        Annotated[
            Annotated[list[dict[str, Text]], _Some, Tag(f"{TAG}items")]
            | Annotated[dict[str, Annotated[list[Text], _Some]], Tag(f"{TAG}lists")],
            Discriminator(_items_or_lists),
        ]
        | None
    ) = Field(None, description="Template variables: a mapping for each item, or a list for each name.")


class RowModel(DefaultsModel):
    """One row: a video, or as many as its axes make of it."""

    id: Word | None = Field(None, description="Unique. Default: made of the prompt and a hash of the row.")
    skip: Flag | None = Field(None, description="Keeps an empty cell on the sheet: nothing is bought.")
    vars: dict[str, Text] | None = Field(None, description="Template variables of this row; they beat the file's.")
    matrix: AxesModel | None = Field(None, description="Axes of this row: each replaces the shared axis of its name.")
    zip: ZipModel | None = None


class OverrideModel(StrictModel):
    """Changes the cells that match."""

    where: Annotated[dict[str, Scalar], Field(min_length=1)]
    set: OverrideFields


class MatrixModel(AxesModel):
    """The shared axes, then what is taken out, changed and added, in that order."""

    model_config = ConfigDict(json_schema_extra=_refusing(*NO_AXES))

    exclude: Annotated[list[Annotated[dict[str, Scalar], Field(min_length=1)]], _Some] | None = Field(
        None, description="Partial matches of cells that are not bought. One that matches nothing is an error."
    )
    override: Annotated[list[OverrideModel], _Some] | None = None
    include: Annotated[list[RowModel], _Some] | None = Field(
        None, description="Whole extra rows; they take the defaults."
    )


class RowsFileModel(StrictModel):
    """Rows that stand in a sheet beside the manifest."""

    file: Word = Field(description="Path of a sheet (.csv, .tsv, .csv.gz or .xlsx), relative to the manifest.")
    fill_down: Annotated[list[Word], _Some] | None = Field(
        None, description="Columns whose empty cells take the cell above, as merged cells mean it."
    )


class RowsImages(StrictModel):
    """A row for each picture; `photo.txt` beside `photo.jpg` is its prompt."""

    images: Annotated[
        tuple[str, ...], ValidatedBy(field_types.words, {"anyOf": [_WORD, {"type": "array", "items": _WORD}]})
    ]


class BudgetModel(StrictModel):
    """The most this manifest may cost, in USD. The lowest of manifest, configuration and flag holds."""

    max_cost: Money | None = Field(None, description="Per run.")
    per_day: Money | None = Field(None, description="Per UTC day and gateway.")
    per_month: Money | None = Field(None, description="Per UTC month and gateway.")


class SheetAxesModel(StrictModel):
    """Which axes the contact sheet shows as columns, rows and tabs."""

    x: Word | None = None
    y: Word | None = None
    tabs: Word | None = None


class DocumentModel(StrictModel):
    """What to buy. See docs/reference/manifest.md."""

    version: Version | None = None
    name: Word | None = Field(None, description="Names the run's folder. Default: the file's name.")
    budget: BudgetModel | None = None
    max_rows: Annotated[int, ValidatedBy(field_types.row_cap, {"type": "integer", "minimum": 1})] | None = Field(
        None, description="The most videos that axes may multiply to (default 256)."
    )
    defaults: DefaultsModel | None = None
    vars: dict[str, Text] | None = Field(None, description="Template variables for {{ name }} in prompts.")
    motions: dict[str, Uuid] | None = Field(None, description="Own names of motion presets.")
    rows: (
        Annotated[
            Annotated[list[RowModel], _Some, Tag(f"{TAG}list")]
            | Annotated[RowsFileModel, Tag(f"{TAG}file")]
            | Annotated[RowsImages, Tag(f"{TAG}images")],
            Discriminator(_kind_of_rows),
        ]
        | None
    ) = None
    zip: ZipModel | None = None
    matrix: MatrixModel | None = None
    sheet: SheetAxesModel | None = None
