"""Error reports: every mistake at once, with its place and what to write instead; and no cell comes out."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import ManifestError
from tests.support.manifests import ONE, cells, message_of, opened, problems, written

HEAD = "id,image,prompt,motion,strength,seed\n"


def test_a_key_that_is_misspelt_is_reported_with_line_column_place_and_suggestion(tmp_path: Path) -> None:
    text = f"version: 1\nrows:\n  - {{{ONE}, seed: 1}}\n  - id: two\n    strenght: 0.5\n"
    found = problems(tmp_path, text)
    assert str(found[0]) == (
        f"{tmp_path}/batch.yaml:4:5: rows[1]: needs image, prompt and seed (seed, seeds, or an axis seed): "
        "neither the row, nor an axis, nor the defaults give it"
    )
    assert str(found[1]) == f"{tmp_path}/batch.yaml:5:5: rows[1].strenght: unknown key. Did you mean 'strength'?"


def test_a_character_that_is_not_seen_is_shown_in_the_name_of_a_key(tmp_path: Path) -> None:
    found = problems(tmp_path, f"version: 1\nrows:\n  - {{{ONE}, seed: 1, stren\u200bgth: 0.5}}\n")
    assert "rows[0].'stren\\u200bgth': unknown key. Did you mean 'strength'?" in str(found[0])


def test_mistakes_of_shape_of_value_and_between_rows_are_reported_together(tmp_path: Path) -> None:
    text = f"""\
version: 2
nam: x
budget: {{max_cost: 7.0000001}}
defaults: {{motion: 361 Orbit}}
rows:
  - {{id: a, {ONE}, seed: 0, strength: 0.755, webhook_url: x}}
  - {{id: a, {ONE}, seed: 2, prompt: "{{{{ brnd }}}}", model: dop-light}}
  - nothing
vars: {{brand: Aster}}
sheet: {{x: sed}}
"""
    lines = message_of(tmp_path, text).splitlines()
    assert [line.split(": ", 1)[1] for line in lines] == [
        "version: 2 is not a version of the manifest language that is read here: write 1",
        "nam: unknown key. Did you mean 'name'?",
        "budget.max_cost: 7.0000001 is not an amount in USD such as 7.00",
        "defaults.motion: '361 Orbit' is not a motion of the catalogue, of `motions`, or a UUID. "
        "Did you mean '360 Orbit'?",
        "rows[0].seed: 0 is outside 1..1,000,000",
        "rows[0].strength: 0.755 has more than two decimals: the nearest is 0.76",
        "rows[0].webhook_url: callbacks are the run's business: see `webhook` in the configuration",
        "rows[1].id: the id 'a' is taken, see line 6",
        "rows[1].prompt: this key is given twice",
        "rows[1].model: 'dop-light' is not a model. Did you mean 'dop-lite'?",
        "rows[2]: 'nothing' is not a mapping of keys and values",
        "sheet.x: 'sed' is not an axis or a field. Did you mean 'seed'?",
    ]


def test_no_cell_comes_out_after_the_first_mistake(tmp_path: Path) -> None:
    lines = "".join(f"{name},https://x.test/a.jpg,p,,,{seed}\n" for name, seed in (("a", 1), ("b", 0), ("c", 3)))
    path = written(tmp_path, HEAD + lines, "a.csv")
    stream = opened(path).cells()
    assert next(stream).row_id == "a"
    with pytest.raises(ManifestError) as caught:
        next(stream)
    assert [(problem.line, problem.where) for problem in caught.value.problems] == [(3, "column 'seed'")]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ("seed: 1000001", "1000001 is outside 1..1,000,000"),
        ("seed: 1.0", "1.0 is not a whole number: write 1"),
        ("seed: 1e5", "1E+5 is not a whole number: write 100000"),
        ("seed: true", "true is not a whole number"),
        ('seed: "7"', "'7' is not a whole number: write it without quotes"),
        ("seed: 007", "'007' is not a whole number"),
        ("seed: [1, 2]", "a list is an axis, and axes stand only in matrix"),
        ("seed: {count: 3}", "axes stand only in matrix (or, for seeds, in `seeds`)"),
        ("seed: 1-10", "'1-10' is not a whole number: ranges and lists stand in `seeds` or in matrix"),
        ("seed: 1, strength: 1.01", "1.01 is outside 0..1"),
        ("seed: 1, strength: -0.1", "-0.1 is outside 0..1"),
        ("seed: 1, strength: 0.333", "more than two decimals: the nearest is 0.33"),
        ("seed: 1, strength: .nan", "'.nan' is not a number in 0..1"),
        ("seed: 1, strength: true", "true is not a number in 0..1"),
        ('seed: 1, strength: "0.5"', "write it without quotes"),
        ("seed: 1, enhance_prompt: yes", "'yes' is not true or false"),
        ("seed: 1, check_nsfw: 1", "1 is not true or false"),
        ("seed: 1, model: [dop-lite, dop-turbo]", "a list is an axis"),
        ("seed: 1, model: sora", "'sora' is not a model. Known: dop-lite, dop-preview, dop-turbo."),
        ("seed: 1, motion: Doly In", "Did you mean 'Dolly In'?"),
        ("seed: 1, motions_id: 1234", "1234 is not a text: put it in quotes"),
        ("seed: 1, take: 0", "0 is outside 1..1,000"),
        ("seed: 1, repeat: 1001", "1001 is outside 1..1,000"),
        ("seed: 1, take: 2, repeat: 3", "take buys exactly one: give one of them"),
        ("seed: 1, seeds: 1-3", "seed is one value, seeds an axis"),
        ("seed: 1, motion: General, motions_id: General", "is the same field as 'motion'"),
        ("seed: 1, input_images: [https://x.test/a.jpg, https://x.test/b.jpg]", "exactly 1 image is needed, not 2"),
        ("seed: 1, end_image: []", "at least 1 end image is needed"),
        ("seed: 1, webhook_secret: s3cret", "a secret has no place in a manifest"),
        ("seed: 1, budget: {}", "unknown key here: it belongs in the top of the manifest"),
        ("seed: 1, tags: [5]", "5 is not a text"),
        ("seed: 1, tags: ['a;b']", "must not have a comma or a semicolon"),
        ("seed: 1, id: ' a'", "has spaces around it"),
        ("seed: 1, strength: ~", "has no value: give one or take the key out"),
        ("seeds: x3", "derived seeds need a key or the row's id"),
        ("seeds: {count: 3}", "derived seeds need a key or the row's id"),
        ("seeds: {random: 3}", "through a saved plan"),
        ("seeds: 'range(1,5)'", "range() leaves out its end"),
    ],
)
def test_a_field_that_breaks_the_documents_table_is_reported(tmp_path: Path, fields: str, message: str) -> None:
    image = "" if "input_images" in fields else "image: https://cdn.example.com/mill.jpg, "
    found = problems(tmp_path, f"rows:\n  - {{{image}prompt: Old mill, {fields}}}\n")
    assert len(found) == 1, found
    assert message in found[0].message
    assert found[0].line == 2


@pytest.mark.parametrize("prompt", ['""', '"   "', '"\\n"', '"a\\0b"', '"a\\x1bb"', "5", "'#REF!'"])
def test_a_prompt_with_nothing_or_something_odd_in_it_is_reported(tmp_path: Path, prompt: str) -> None:
    found = problems(tmp_path, f"rows: [{{image: 'https://x.test/a.jpg', seed: 1, prompt: {prompt}}}]\n")
    assert [problem.where for problem in found] == ["rows[0].prompt"]


@pytest.mark.parametrize("prompt", ["None", "NaN", "null-ish", "true story", "水と油", "a\u2028b"])
def test_a_prompt_that_only_looks_odd_is_text(tmp_path: Path, prompt: str) -> None:
    found = cells(tmp_path, f"rows: [{{image: 'https://x.test/a.jpg', seed: 1, prompt: \"{prompt}\"}}]\n")
    assert found[0].params
    assert found[0].params.prompt == prompt


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("ftp://x.test/a.jpg", "addresses are not http or https"),
        ("s3://bucket", "is not an object's address: write s3://bucket/key"),
        ("s3://bucket/a//b.jpg", "is not an object's address: write s3://bucket/key"),
        ("az://container/../b.jpg", "is not an object's address: write az://container/key"),
        ("S3://bucket/a.jpg", "addresses are not http or https"),
        ("file:///tmp/a.jpg", "write the path alone"),
        ("data:image/png;base64,AAAA", "save it as a file, and write its path"),
        ("http:///a.jpg", "is not a URL with a host"),
        ("https:a.jpg", "is not a URL with a host"),
        ("https://x.test:99999/a.jpg", "is not a URL with a host"),
        ("https://x.test/a b.jpg", "percent-encode it"),
        ("sandbox:", "is not sandbox:NAME"),
        ("sandbox:../etc", "is not sandbox:NAME"),
        ("no-such.jpg", "cannot be read: No such file or directory"),
        (".", "is not a file"),
        ("page.jpg", "is not a JPEG, PNG or WebP by its content"),
        ("pipe.jpg", "is not a file"),
    ],
)
def test_a_frame_that_cannot_be_one_is_reported(tmp_path: Path, image: str, message: str) -> None:
    import os

    (tmp_path / "page.jpg").write_text("<html>not found</html>")
    os.mkfifo(tmp_path / "pipe.jpg")
    found = problems(tmp_path, f"rows: [{{prompt: p, seed: 1, image: '{image}'}}]\n")
    assert [message in problem.message for problem in found] == [True], found


def test_pictures_are_known_by_their_content_and_become_absolute_paths(tmp_path: Path) -> None:
    (tmp_path / "a.dat").write_bytes(b"\xff\xd8\xff\xe0\0\2\xff\xd9 and so on")
    (tmp_path / "b.dat").write_bytes(b"RIFF\0\0\0\0WEBPVP8 ")
    text = "rows: [{prompt: p, seed: 1, image: a.dat, motion: Dolly In, end_image: [./b.dat, sandbox:cat]}]\n"
    found = cells(tmp_path, text)
    assert found[0].params
    assert found[0].params.input_images == (str(tmp_path / "a.dat"),)
    assert found[0].params.input_images_end == (str(tmp_path / "b.dat"), "sandbox:cat")


def test_an_address_is_kept_to_the_letter_and_a_password_in_it_is_warned_of(tmp_path: Path) -> None:
    url = "HTTPS://user:pa55@X.test:443/a%2fb.jpg?x=1&y=%20#z"
    manifest = opened(written(tmp_path, f"rows: [{{prompt: p, seed: 1, image: '{url}'}}]\n"))
    found = list(manifest.cells())
    assert found[0].params
    assert found[0].params.input_images == (url,)
    assert len(manifest.warnings) == 1
    assert "X.test" in manifest.warnings[0]
    assert "pa55" not in manifest.warnings[0]


def test_an_end_frame_with_a_motion_that_takes_none_is_a_mistake_and_an_unknown_motion_a_warning(
    tmp_path: Path,
) -> None:
    row = "prompt: p, seed: 1, image: sandbox:cat, end_image: sandbox:cat"
    assert "the motion 'Agent Reveal' takes no end frame" not in message_of(
        tmp_path, f"rows: [{{{row}, motion: Agent Reveal}}]"
    )
    assert "the motion 'Flood' takes no end frame" in message_of(tmp_path, f"rows: [{{{row}, motion: flood}}]")
    motion = "3C90C3CC-0d44-4b50-8888-8dd25736052a"
    manifest = opened(written(tmp_path, f"rows: [{{{row}, motion: {motion}}}]"))
    found = list(manifest.cells())
    assert found[0].params
    assert found[0].params.motions_id == motion.lower()
    assert manifest.warnings == [f"motion {motion} is the API document's placeholder: sent as it is"]


def test_the_configurations_defaults_are_judged_too(tmp_path: Path) -> None:
    text = f"rows: [{{{ONE}, seed: 1}}]"
    found = message_of(tmp_path, text, defaults={"model": "dop-lite", "strength": 0.755, "motion": "General"})
    assert found.splitlines() == [
        "configuration.defaults.strength: 0.755 has more than two decimals: the nearest is 0.76",
        "batch.yaml:1:8: rows[0]: needs enhance_prompt: neither the row, nor an axis, nor the defaults give it",
    ]


def test_more_mistakes_than_the_report_lists_are_counted(tmp_path: Path) -> None:
    lines = "".join(f"r{number},https://x.test/a.jpg,p,,,0\n" for number in range(10_050))
    found = problems(tmp_path, HEAD + lines, "many.csv")
    assert len(found) == 10_001
    assert found[-1].message == "50 more mistakes of these kinds"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("# nothing\n", "is empty"),
        ("- a\n", "must be a mapping of keys"),
        ("version: 1\n", "has nothing to buy"),
        (f"defaults: {{{ONE}, seed: 1}}\n", "has nothing to buy"),
        ("matrix: {exclude: [{seed: 1}]}\n", "has nothing to buy"),
        ("rows: []\n", "rows: is empty"),
        ("rows: {file: none.csv}\n", "'none.csv' cannot be read: No such file or directory"),
        ("rows: {file: batch.yaml}\n", "is not a sheet"),
        ("rows: {fiel: a.csv}\n", "unknown key. Did you mean 'file'?"),
        ("matrix:\n", "matrix: has no value"),
    ],
)
def test_a_manifest_that_asks_for_nothing_is_reported(tmp_path: Path, text: str, message: str) -> None:
    assert message in message_of(tmp_path, text)


@pytest.mark.parametrize("name", ["batch.txt", "batch", "batch.xls"])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, name: str) -> None:
    assert message_of(tmp_path, "rows: []", name).startswith(f"{name}: is not a manifest")


def test_a_folder_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="is not a file"):
        opened(tmp_path)
    with pytest.raises(ManifestError, match="No such file"):
        opened(tmp_path / "none.yaml")
