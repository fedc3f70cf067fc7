"""One finished cell from the merged fields of a row: its prompt filled, its parameters, tags and shot."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pipeline.gateway.motions import MotionPreset
from pipeline.manifest import template
from pipeline.manifest.diagnostics import Diagnostics
from pipeline.manifest.field_compiler import EXTRA_TAGS, ROW_ID
from pipeline.manifest.labels import did_you_mean, short_hash, slug
from pipeline.manifest.resolution import REQUIRED
from pipeline.manifest.row_merging import TAKE, MergedRow
from pipeline.manifest.spec import INVALID, VAR, SharedCells, SpecRow
from pipeline.records import LOOP, Candidacy, Cell, KeepIf, Params

NEEDED = frozenset(REQUIRED)
_BRACKETS = re.compile(r"[{\[<%]")
"""What a variable in a prompt begins with, or what was meant as one."""
AxisLabels = tuple[tuple[str, str], ...]


class CellBuilder:
    """Builds the cells of one pass, reports what is wrong with them, and counts which variables the prompts use.

    Args:
        is_swept: whether overrides may add tags to any cell.
    """

    def __init__(self, mistakes: Diagnostics, *, is_swept: bool) -> None:
        self._mistakes = mistakes
        self._is_swept = is_swept
        self._used: set[str] = set()
        self._examples: dict[SharedCells, Cell] = {}

    def cell(self, block: MergedRow, fields: Mapping[str, Any], cell_id: str, placed: AxisLabels = ()) -> Cell | None:
        """The finished cell; None if something is wrong with it, which is then reported."""
        row = block.row
        skip = fields.get("skip") is True
        # A variable that only skipped rows use is used: no warning of a spelling mistake.
        if skip and isinstance(prompt := fields.get("prompt"), str):
            self._used.update(template.names(prompt))
        params = None if skip else self._params(row, fields, cell_id)
        if params is None and not skip:
            return None
        motion = fields.get("motion")
        return Cell(
            row_id=cell_id,
            params=params,
            motion=motion.name if isinstance(motion, MotionPreset) else "",
            take=fields.get(TAKE, 1) if not skip else 1,
            tags=_tags(fields, swept=bool(placed) or self._is_swept),
            axes=placed,
            line=row.location.line,
            file=row.location.file,
            row=block.row_id,
            candidacy=_candidacy(block.row_id, fields, placed) if params is not None and "keep" in fields else None,
        )

    def remember(self, row: SpecRow, cell: Cell) -> None:
        """Keep the cell of a row without axes as the example for rows with the same other cells."""
        if row.common is not None and cell.params is not None and cell.candidacy is None and not self._is_swept:
            self._examples[row.common] = cell

    def like_an_earlier(self, row: SpecRow, row_id: str) -> Cell | None:
        """The cell of a row that differs in id, prompt and seed alone from one whose cell was finished.

        None where that is not all of it: then the row is worked out from its fields.
        """
        example = self._examples.get(row.common) if row.common is not None else None
        if example is None or example.params is None:
            return None
        prompt, seed = row.own.get("prompt"), row.own.get("seed")
        # A prompt with a bracket may hold a variable, whose value another row does not share.
        if not isinstance(prompt, str) or not isinstance(seed, int) or _BRACKETS.search(prompt):
            return None
        return Cell(
            row_id=row_id,
            params=example.params.varied(prompt=prompt, seed=seed),
            motion=example.motion,
            take=example.take,
            tags=example.tags,
            line=row.location.line,
            file=row.location.file,
            row=row_id,
        )

    def _params(self, row: SpecRow, fields: Mapping[str, Any], cell_id: str) -> Params | None:
        if not fields.keys() >= NEEDED:
            self._report_missing(row, fields)
            return None
        prompt, motion, end_image = fields["prompt"], fields["motion"], fields.get("end_image", ())
        if prompt is not INVALID:
            self._refuse_other_brackets(row, prompt, fields)
        if prompt is not INVALID and template.has_placeholders(prompt):
            prompt = self._filled(row, prompt, fields, row.row_id or cell_id.split("@", maxsplit=1)[0])
        if end_image and isinstance(motion, MotionPreset) and motion.start_end_frame is False:
            name = "end_image" if "end_image" in row.own else None
            self._mistakes.add(row.location.diagnostic(f"the motion {motion.name!r} takes no end frame", name))
        if self._mistakes.found:
            return None
        return Params(
            model=fields["model"],
            prompt=prompt,
            seed=fields["seed"],
            motions_id=motion.motions_id,
            strength_hundredths=fields["strength"],
            input_images=fields["image"],
            input_images_end=end_image,
            enhance_prompt=fields["enhance_prompt"],
            check_nsfw=fields.get("check_nsfw"),
        )

    def _refuse_other_brackets(self, row: SpecRow, prompt: str, fields: Mapping[str, object]) -> None:
        """A variable's name in other brackets was meant as the variable: as text it would be paid for."""
        if not _BRACKETS.search(prompt):
            return
        meant = template.other_brackets(prompt, [name[len(VAR) :] for name in fields if name.startswith(VAR)])
        if meant is not None:
            message = f"{meant[0]} is text, and there is a variable {meant[1]!r}: write {{{{ {meant[1]} }}}}"
            self._mistakes.add(row.location.diagnostic(message, "prompt"))

    def unused_variables(self, defined: Iterable[str]) -> list[str]:
        """Those of the variables that no prompt of this pass asked for."""
        return sorted({name[len(VAR) :] for name in defined if name.startswith(VAR)} - self._used)

    def _filled(self, row: SpecRow, prompt: str, fields: Mapping[str, object], row_id: str) -> object:
        values = {name[len(VAR) :]: str(value) for name, value in fields.items() if name.startswith(VAR)}
        values[ROW_ID] = row_id
        self._used.update(template.names(prompt))
        try:
            text = template.filled(prompt, values)
        except template.UnknownNamesError as error:
            hint = did_you_mean(error.names[0], values) or f" Known: {', '.join(sorted(values))}."
            named = ", ".join(f"{{{{ {name} }}}}" for name in error.names)
            self._mistakes.add(row.location.diagnostic(f"{named} is not in vars.{hint}", "prompt"))
            return INVALID
        if not text.strip():
            self._mistakes.add(row.location.diagnostic("the prompt is empty when its variables are put in", "prompt"))
        return text

    def _report_missing(self, row: SpecRow, fields: Mapping[str, object]) -> None:
        if row.has_errors:
            return
        missing = [name for name in REQUIRED if name not in fields]
        hint = " (seed, seeds, or an axis seed)" if "seed" in missing else ""
        message = f"needs {_listed(missing)}{hint}: neither the row, nor an axis, nor the defaults give it"
        self._mistakes.add(row.location.diagnostic(message))


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _candidacy(row_id: str, fields: Mapping[str, Any], placed: AxisLabels) -> Candidacy | None:
    """Which shot the cell is a candidate of: its row at the same place of all axes but seeds and takes."""
    if fields["keep"] is INVALID:
        return None
    place = "-".join(slug(label) or short_hash(label, 6) for name, label in placed if name not in ("seed", TAKE))
    return Candidacy(
        shot=f"{row_id}@{place}" if place else row_id,
        keep=fields["keep"],
        keep_if=fields.get("keep_if", KeepIf.CHECK),
        ahead=fields.get("keep_ahead", 0),
    )


def _tags(fields: Mapping[str, Any], *, swept: bool) -> tuple[str, ...]:
    """The row's tags, then LOOP for `loop: true`, then those that axes and overrides add."""
    own = fields.get("tags", ())
    if not isinstance(own, tuple):
        return ()
    if fields.get("loop") is True:
        own = tuple(dict.fromkeys((*own, LOOP)))
    if not swept:
        return own
    more = [tag for name, tags in fields.items() if name.startswith(EXTRA_TAGS) for tag in tags]
    return tuple(dict.fromkeys((*own, *more))) if more else own
