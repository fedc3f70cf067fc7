"""Sheets as users have them: each kind of trouble in its own folder of tests/fixtures/field, and siblings of it.

A kind is right when nothing that was not meant is bought: the sheet is refused with the place and the remedy, or read
as it was meant, or the user is warned by the rows' names before anything is paid for.
"""

from __future__ import annotations

import io
import json
import re
import time
import unicodedata
from collections.abc import Callable

import pytest
from PIL import Image

from tests.acceptance.conftest import Opened
from tests.support.cli_driver import Dop
from tests.support.user_sheets import (
    HEAD,
    case,
    lines_refused,
    mistake_of,
    mistakes_of,
    names,
    planned,
    refused,
    sheet,
    warned,
    written,
)

Against = Callable[..., Opened]


# 01: thousands separators in seeds ---------------------------------------------------------------------------------


def test_a_thousands_separator_in_seeds_is_not_read_as_a_list(rehearsal: Dop) -> None:
    said = refused(rehearsal, case(rehearsal, "01-thousands-in-seeds/s.csv"))
    for line, (one, two) in {2: ("1200", "1, 200"), 3: ("884211", "884, 211"), 4: ("12345", "12, 345")}.items():
        mistake = mistake_of(said, "s.csv", line)
        assert mistake.startswith("column 'seeds': ")
        assert f"'{one}'" in mistake
        assert f"'{two}'" in mistake


def test_a_thousands_separator_in_seeds_of_a_yaml_file(rehearsal: Dop) -> None:
    assert "'1200'" in mistake_of(refused(rehearsal, case(rehearsal, "01-thousands-in-seeds/m.yaml")), "m.yaml", 2)


@pytest.mark.parametrize(
    "text",
    [
        'rows: [{id: a, image: sandbox:cat, prompt: x}]\nmatrix:\n  seed: "1,200"\n',
        "rows:\n  - {id: a, image: sandbox:cat, prompt: x}\ndefaults:\n  seeds: 7,100\n",
        'rows: [{id: a, image: sandbox:cat, prompt: x, seed: 1, matrix: {take: "1,000"}}]\n',
        'rows: [{id: a, image: sandbox:cat, prompt: x, seed: 1}]\nmatrix: {strength: "0,1"}\n',
    ],
)
def test_a_separator_in_any_number_axis_is_refused(rehearsal: Dop, text: str) -> None:
    assert "could be" in refused(rehearsal, written(rehearsal, "m.yaml", text))


@pytest.mark.parametrize("cell", ["1,200, 7", "7, 1,200", "1,100-200,300", "1,200-5000", "100,200,300"])
def test_a_separator_within_a_longer_expression_is_refused(rehearsal: Dop, cell: str) -> None:
    said = refused(rehearsal, sheet(rehearsal, f'a,sandbox:cat,A cat,"{cell}"', head="id,image,prompt,seeds\n"))
    assert "could be" in mistake_of(said, "shots.csv", 2)


@pytest.mark.parametrize(
    ("cell", "count"), [("1, 200", 2), ("7,77", 2), ("1000,1001", 2), ("1, 200, 300", 3), ("1200", 1), ("7, 8-10", 4)]
)
def test_lists_that_mean_one_thing_only_are_read(rehearsal: Dop, cell: str, count: int) -> None:
    manifest = sheet(rehearsal, f'a,sandbox:cat,A cat,"{cell}"', head="id,image,prompt,seeds\n")
    assert planned(rehearsal, manifest)["requests"] == count


# 02: addresses that are signed again each night ----------------------------------------------------------------------


def _amz(at: float, signature: str, expires_s: int = 3600) -> str:
    day, moment = time.strftime("%Y%m%d", time.gmtime(at)), time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(at))
    return (
        f"X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=EXAMPLE%2F{day}%2Fus-east-1%2Fs3%2Faws4_request"
        f"&X-Amz-Date={moment}&X-Amz-Expires={expires_s}&X-Amz-SignedHeaders=host&X-Amz-Signature={signature}"
    )


def _goog(at: float, signature: str) -> str:
    return _amz(at, signature).replace("X-Amz", "X-Goog").replace("AWS4-HMAC-SHA256", "GOOG4-RSA-SHA256")


def _azure(at: float, signature: str) -> str:
    until = time.strftime("%Y-%m-%dT%H%%3A%M%%3A%SZ", time.gmtime(at + 3600))
    return f"sv=2024-11-04&se={until}&sr=b&sp=r&sig={signature}%3D"


def _cloudfront(at: float, signature: str) -> str:
    return f"Expires={int(at) + 3600}&Signature={signature}~&Key-Pair-Id=K2EXAMPLE"


def _ticket(at: float, signature: str) -> str:
    return f"ts={int(at)}&userId=usrEXAMPLE&cs={signature}"


def _s3v2(at: float, signature: str) -> str:
    return f"AWSAccessKeyId=EXAMPLE&Expires={int(at) + 3600}&Signature={signature}%3D"


SIGNERS = {"amz": _amz, "goog": _goog, "azure": _azure, "cloudfront": _cloudfront, "ticket": _ticket, "s3v2": _s3v2}
EXPIRING = [name for name in SIGNERS if name != "ticket"]


def _signed(name: str, at: float, signature: str, *, count: int = 3) -> list[str]:
    query = SIGNERS[name](at, signature)
    return [
        f"p{n},https://bkt.example.com/in/p{n}.jpg?{query},Product {n} turns slowly,{n}" for n in range(1, count + 1)
    ]


@pytest.mark.parametrize("signer", SIGNERS)
def test_a_fresh_signature_is_the_same_picture(against: Against, signer: str) -> None:
    dop, double = against()
    now = time.time()
    assert dop.buy(sheet(dop, *_signed(signer, now - 60, "aaaa1111")), "--no-download").code in {0, 5}
    assert double.charged == 3
    tomorrow = planned(dop, sheet(dop, *_signed(signer, now, "bbbb2222")))
    assert (tomorrow["requests"], tomorrow["new"]) == (3, 0)


def test_what_was_planned_yesterday_is_sent_with_todays_signature(against: Against) -> None:
    dop, double = against()
    now = time.time()
    dop.buy(sheet(dop, *_signed("amz", now - 60, "aaaa1111", count=2)), "--max-new", "1")
    dop.buy(sheet(dop, *_signed("amz", now, "bbbb2222", count=2)))
    assert double.charged == 2
    assert "bbbb2222" in double.submits[1]["body"]["input_images"][0]


def test_other_parameters_still_tell_pictures_apart(rehearsal: Dop) -> None:
    lines = [f"a{n},https://bkt.example.com/in.jpg?page={n}&{_amz(time.time(), 'ab12')},One,1" for n in (1, 2)]
    assert planned(rehearsal, sheet(rehearsal, *lines))["requests"] == 2


@pytest.mark.parametrize("signer", EXPIRING)
def test_a_signature_past_its_own_expiry_is_a_mistake(rehearsal: Dop, signer: str) -> None:
    said = refused(rehearsal, sheet(rehearsal, *_signed(signer, time.time() - 86_400, "aaaa1111")))
    for line in (2, 3, 4):
        assert "expired" in mistake_of(said, "shots.csv", line)
    assert "aaaa1111" not in said


def test_reports_mask_signatures(against: Against) -> None:
    dop, _ = against()
    manifest = sheet(dop, *_signed("amz", time.time(), "aaaa1111"), *_signed("azure", time.time(), "cccc3333")[:0])
    assert dop.buy(manifest).code == 0
    assert dop.call("report", "latest", "-o", str(dop.folder / "all.jsonl"), str(dop.folder / "all.html")).code == 0
    for made in (dop.latest / "report.csv", dop.folder / "all.jsonl", dop.folder / "all.html"):
        assert "aaaa1111" not in made.read_text(encoding="utf-8-sig"), made
    assert all(row["image"].startswith("https://bkt.example.com/in/p") for row in dop.rows())


# 03: a hash in plain YAML text ---------------------------------------------------------------------------------------


def test_a_prompt_that_a_hash_cuts_is_refused(rehearsal: Dop) -> None:
    said = refused(rehearsal, case(rehearsal, "03-yaml-hash/m.yaml"))
    for line in (5, 9):
        mistake = mistake_of(said, "m.yaml", line)
        assert "comment" in mistake
        assert "quotes" in mistake
    assert lines_refused(said, "m.yaml") == {5, 9}


@pytest.mark.parametrize(
    "text",
    [
        "rows:\n  - id: a\n    image: sandbox:cat\n    seed: 1\n    prompt: x\n    tags: [one, two] # fine\n    vars:\n"
        "      sku: Model #7\n    skip: false\n",
        "defaults:\n  prompt: A cat\n    walks #slowly\n  seed: 1\nrows: [{id: a, image: sandbox:cat}]\n",
        "matrix:\n  prompt:\n    - A cat, take #2\n    - A dog\ndefaults: {image: sandbox:cat, seed: 1}\n",
        "rows:\n  - id: shot #3\n    image: sandbox:cat\n    prompt: x\n    seed: 1\n",
    ],
    ids=["vars", "two lines", "axis", "id"],
)
def test_any_plain_text_that_a_hash_cuts_is_refused(rehearsal: Dop, text: str) -> None:
    said = refused(rehearsal, written(rehearsal, "m.yaml", text))
    assert "comment" in said
    assert "quotes" in said


def test_comments_that_cut_nothing_stay_comments(rehearsal: Dop) -> None:
    manifest = written(
        rehearsal,
        "m.yaml",
        "# of the shop\nversion: 1 # the first\nrows: # three\n"
        "  - id: 'a' # one\n    image: \"sandbox:cat\" # the cat\n"
        '    prompt: "Summer sale, 20% off #summer" # quoted\n    seed: 1 # a number\n    enhance_prompt: false # no\n'
        "    model: dop-lite # cheap\n    motion: General # calm\n"
        "  # - id: left out\n  - id: b\n    image: sandbox:cat\n    seed: 2\n    prompt: >- # folded\n"
        "      Shot #3 of the lake\n  - {id: c#1, image: sandbox:cat, prompt: A#B and it's C#, seed: 3}\n",
    )
    assert planned(rehearsal, manifest)["requests"] == 3


# 04: line ends and blanks at the end ---------------------------------------------------------------------------------


def test_line_ends_inside_a_cell_do_not_make_another_video(against: Against) -> None:
    dop, double = against()
    assert dop.buy(case(dop, "04-line-ends/lf.csv")).code == 0
    for other in (
        case(dop, "04-line-ends/crlf.csv"),
        written(dop, "cr.csv", HEAD + 'one,sandbox:cat,"A cat\rlooks up",1\n'),
    ):
        again = planned(dop, other)
        assert (again["requests"], again["new"]) == (1, 0), other
    assert double.submits[0]["body"]["prompt"] == "A cat\nlooks up"


def test_line_ends_of_a_yaml_file_do_not_make_another_video(against: Against) -> None:
    dop, _ = against()
    text = 'rows:\n  - id: a\n    image: sandbox:cat\n    seed: 1\n    prompt: "A cat\\r\\nlooks up"\n'
    assert dop.buy(written(dop, "m.yaml", text)).code == 0
    assert planned(dop, written(dop, "m.yaml", text.replace("\\r\\n", "\\n")))["new"] == 0


@pytest.mark.parametrize("prompt", ["A cat ", '"A cat\n"', "A  cat", "A\u00a0cat", "A cat\u200b"])
def test_a_row_that_differs_from_a_bought_one_by_white_space_only_is_named(against: Against, prompt: str) -> None:
    dop, _ = against()
    assert dop.buy(sheet(dop, "first,sandbox:cat,A cat,1", "other,sandbox:cat,A dog,1")).code == 0
    changed = sheet(dop, f"newer,sandbox:cat,{prompt},1", "other,sandbox:cat,A dog,1")
    warnings = [line for line in warned(dop, changed) if names(line, "newer")]
    assert len(warnings) == 1, warnings
    assert names(warnings[0], "first")
    assert "white space" in warnings[0]
    assert not any(names(line, "other") for line in warned(dop, changed))


# 05: equal rows, and a choice of rows --------------------------------------------------------------------------------


def test_equal_rows_are_chosen_before_they_are_folded(rehearsal: Dop) -> None:
    manifest = case(rehearsal, "05-equal-rows-and-filters/s.csv")
    for tag in ("de", "fr", "it"):
        assert planned(rehearsal, manifest, "--filter-tag", tag)["requests"] == 1, tag
    assert planned(rehearsal, manifest)["requests"] == 1


def test_every_folded_row_is_in_the_report_with_the_shared_file(against: Against) -> None:
    dop, double = against()
    assert dop.buy(case(dop, "05-equal-rows-and-filters/s.csv")).code == 0
    rows = dop.rows()
    assert [row["row_id"] for row in rows] == ["shop-de", "shop-fr", "shop-it"]
    assert [row["tags"] for row in rows] == ["de", "fr", "it"]
    assert len({row["local_path"] for row in rows}) == 1
    assert (dop.latest / rows[0]["local_path"]).exists()
    assert double.charged == 1


def test_a_folded_row_that_is_bought_alone_is_the_same_purchase(against: Against) -> None:
    dop, double = against()
    manifest = case(dop, "05-equal-rows-and-filters/s.csv")
    assert dop.buy(manifest, "--filter-tag", "fr").code == 0
    assert [row["row_id"] for row in dop.rows()] == ["shop-fr"]
    assert dop.buy(manifest).code == 0
    assert double.charged == 1


def test_shards_and_first_rows_lose_no_equal_row(rehearsal: Dop) -> None:
    manifest = sheet(
        rehearsal,
        *(f"r{n},sandbox:cat,scene {n // 2},1,{'even' if n % 2 == 0 else 'odd'}" for n in range(12)),
        head="id,image,prompt,seed,tags\n",
    )
    parts = [planned(rehearsal, manifest, "--shard", f"{n}/3", "--filter-tag", "odd")["requests"] for n in (1, 2, 3)]
    assert sum(parts) == 6


# 06: one row's 403 ---------------------------------------------------------------------------------------------------

POLICY = {"status": 403, "body": {"error": "Access denied: content policy"}}


def test_one_refused_row_does_not_stop_the_others(against: Against) -> None:
    dop, double = against(prompts={"union select": POLICY})
    end = dop.buy(case(dop, "06-one-row-refused/ten.csv"))
    assert end.code == 1, end.err
    assert end.counts == {"done": 9, "failed": 1}
    assert double.charged == 9
    by_name = {row["row_id"]: row for row in dop.rows()}
    assert by_name["r0"]["status"] == "rejected"
    assert "403" in by_name["r0"]["reason"]


def test_the_second_refused_row_without_an_accepted_one_means_the_key(against: Against) -> None:
    dop, double = against(submits={"*": POLICY})
    end = dop.buy(case(dop, "06-one-row-refused/ten.csv"), "-j", "1")
    assert end.code == 7, end.err
    assert double.charged == 0
    assert 2 <= len(double.submits) <= 3


@pytest.mark.long
def test_a_refused_row_goes_last_the_next_time(against: Against) -> None:
    dop, double = against(submits={"*": POLICY})
    manifest = case(dop, "06-one-row-refused/ten.csv")
    assert dop.buy(manifest, "-j", "1").code == 7
    first = double.submits[0]["body"]["prompt"]
    double.submits.clear()
    double.script.submits = {}
    assert dop.buy(manifest, "-j", "1").code == 0
    assert [line["body"]["prompt"] for line in double.submits].index(first) >= 7


# 07: a spreadsheet's debris ------------------------------------------------------------------------------------------


def test_debris_is_refused_with_the_cells_place(rehearsal: Dop) -> None:
    said = refused(rehearsal, case(rehearsal, "07-sheet-debris/accepted.csv"))
    assert lines_refused(said, "accepted.csv") == set(range(2, 17))
    for line in range(2, 17):
        assert mistake_of(said, "accepted.csv", line).startswith("column 'prompt': ")


@pytest.mark.parametrize(
    "prompts",
    [
        ["#VALEUR!", "#¡REF!", "#NAME?", "#N/D", "#DIV/0!", "#WERT!", "#NV", "#VALOR!", "#ИМЯ?", "#GETTING_DATA"],
        ["=SUM(A1)", "=A1", '="x"&B2'],
        ["\u200b\u200b", "\u2060", "\ufeff \u200e"],
        ["Loading\u2026", "#############", "A cat\ufffd", "A caf\u00c3\u00a9 at dawn", "It\u00e2\u20ac\u2122s raining"],
        ["A cat #VALUE! at noon", "A cat #BEZUG! at noon"],
    ],
    ids=["error words", "formulas", "nothing visible", "broken text", "inside"],
)
def test_other_debris_is_refused_too(rehearsal: Dop, prompts: list[str]) -> None:
    cells = ['"' + prompt.replace('"', '""') + '"' for prompt in prompts]
    said = refused(rehearsal, sheet(rehearsal, *(f"r{n},sandbox:cat,{cell},1" for n, cell in enumerate(cells))))
    assert lines_refused(said, "shots.csv") == set(range(2, 2 + len(prompts)))
    assert said.count("column 'prompt': ") == len(prompts)


def test_debris_in_a_variable_and_in_yaml_is_refused_too(rehearsal: Dop) -> None:
    said = refused(
        rehearsal,
        sheet(rehearsal, "a,sandbox:cat,A {{ sku }},1,#N/A", head="id,image,prompt,seed,var:sku\n"),
    )
    assert mistake_of(said, "shots.csv", 2).startswith("column 'var:sku': ")
    text = (
        'defaults: {image: sandbox:cat, seed: 1}\nrows:\n  - {id: a, prompt: "#REF!"}\n'
        '  - {id: b, prompt: "Caf\u00c3\u00a9"}\n'
    )
    assert lines_refused(refused(rehearsal, written(rehearsal, "m.yaml", text)), "m.yaml") == {3, 4}


def test_ordinary_text_that_resembles_debris_is_read(rehearsal: Dop) -> None:
    prompts = [
        "Café déjà vu, naïve, Ångström, São Paulo",
        "#1 fan cheers in the rain",
        "Score 3 = 3 on a board",
        "Loading docks at dawn",
        "Tom & Jerry run",
        "Null Island from above",
        "None",
        "Â tall letter and a £5 note",
        "猫が歩く 🐈\u200d⬛",
        "a hashtag #sale on a wall",
        "C:\\new folder on a screen",
    ]
    lines = [f'r{n},sandbox:cat,"{prompt}",1' for n, prompt in enumerate(prompts)]
    assert planned(rehearsal, sheet(rehearsal, *lines))["requests"] == len(prompts)


# 08: single braces ---------------------------------------------------------------------------------------------------


def test_other_brackets_round_a_variables_name_are_a_mistake(rehearsal: Dop) -> None:
    said = refused(rehearsal, case(rehearsal, "08-single-braces/s.csv"))
    assert lines_refused(said, "s.csv") == {2, 3, 5, 6}
    for line in (2, 3, 5, 6):
        assert "{{ style }}" in mistake_of(said, "s.csv", line)


def test_other_brackets_in_yaml_prompts_and_defaults(rehearsal: Dop) -> None:
    text = (
        "vars: {light: dawn}\ndefaults: {image: sandbox:cat, seed: 1}\nrows:\n"
        '  - {id: a, prompt: "A cat at { light }"}\n  - {id: b, prompt: "A cat at %light%"}\n'
        '  - {id: c, prompt: "A cat at {Light}"}\n  - {id: d, prompt: "{{ light }} and [light]"}\n'
    )
    said = refused(rehearsal, written(rehearsal, "m.yaml", text))
    for line in (4, 6, 7):
        assert "{{ light }}" in mistake_of(said, "m.yaml", line)


def test_brackets_round_other_words_are_text(rehearsal: Dop) -> None:
    manifest = sheet(
        rehearsal,
        "a,sandbox:cat,A {calm} [wide] <b>cat</b> ${x} {{ style }},1,noir",
        head="id,image,prompt,seed,var:style\n",
    )
    assert warned(rehearsal, manifest) == []


def test_a_variable_that_no_prompt_uses_is_warned_about(rehearsal: Dop) -> None:
    manifest = sheet(
        rehearsal,
        "a,sandbox:cat,A {{ style }} cat,1,noir,Tom",
        "b,sandbox:cat,A {{ style }} dog,1,noir,",
        head="id,image,prompt,seed,var:style,var:name\n",
    )
    warnings = [line for line in warned(rehearsal, manifest) if "name" in line]
    assert len(warnings) == 1
    assert "'name'" in warnings[0]
    assert "style" not in warnings[0]


def test_a_variable_of_a_yaml_file_that_no_prompt_uses_is_warned_about(rehearsal: Dop) -> None:
    text = (
        "vars: {light: dawn, mood: calm}\nrows:\n"
        "  - {id: a, image: sandbox:cat, seed: 1, prompt: 'A {{ light }} cat'}\n"
    )
    warnings = warned(rehearsal, written(rehearsal, "m.yaml", text))
    assert len(warnings) == 1
    assert "'mood'" in warnings[0]


# 09: YAML's own idea of values ---------------------------------------------------------------------------------------

AS_WRITTEN = "12e5|10E2|True|1.50|+7|.5|1.|007|0x1F|2024-01-05|12:30|NO|1e-7|FALSE|5E10|-0"


def test_variables_are_the_text_as_written(against: Against) -> None:
    dop, double = against()
    assert dop.buy(case(dop, "09-yaml-vars/m.yaml")).code == 0
    by_seed = {line["body"]["seed"]: line["body"]["prompt"] for line in double.submits}
    assert [by_seed[seed] for seed in range(1, 17)] == [f"Model {text} on a table" for text in AS_WRITTEN.split("|")]


def test_variables_of_the_file_of_axes_and_of_overrides_are_the_text_as_written(against: Against) -> None:
    dop, double = against()
    text = (
        'vars: {size: 1.0}\ndefaults: {image: "sandbox:cat", prompt: "{{ size }} {{ sku }}"}\nmatrix:\n'
        "  look: [{label: a, vars: {sku: 2.50}}, {label: b, vars: {sku: TRUE}}]\n  seed: [1, 2]\n"
        "  override: [{where: {look: b, seed: 2}, set: {vars: {sku: +1e3}}}]\n"
    )
    assert dop.buy(written(dop, "m.yaml", text)).code == 0
    assert sorted(line["body"]["prompt"] for line in double.submits) == ["1.0 +1e3", "1.0 2.50", "1.0 2.50", "1.0 TRUE"]


@pytest.mark.parametrize("field", ["image", "id", "motion", "tags", "model"])
def test_a_template_in_a_field_that_takes_none_is_a_mistake(rehearsal: Dop, field: str) -> None:
    row = {"id": "a", "image": "sandbox:cat", "prompt": "A {{ sku }}", "seed": 1, "vars": {"sku": "cat"}}
    row[field] = ["{{ sku }}"] if field == "tags" else "{{ sku }}"
    said = refused(rehearsal, written(rehearsal, "m.yaml", "rows:\n  - " + json.dumps(row) + "\n"))
    assert "only in `prompt`" in mistake_of(said, "m.yaml", 2)


def test_a_template_in_another_column_of_a_sheet_is_a_mistake(rehearsal: Dop) -> None:
    manifest = sheet(rehearsal, "a,photos/{{ sku }}.jpg,A {{ sku }},1,cat", head="id,image,prompt,seed,var:sku\n")
    mistake = mistake_of(refused(rehearsal, manifest), "shots.csv", 2)
    assert mistake.startswith("column 'image': ")
    assert "only in `prompt`" in mistake


# 10: merged cells ----------------------------------------------------------------------------------------------------


def test_a_plan_says_which_columns_are_partly_filled(rehearsal: Dop) -> None:
    end = rehearsal.call("plan", case(rehearsal, "10-merged-cells/s.csv"))
    assert end.code == 0
    for column, default in {"motion": "General", "strength": "0.7", "model": "dop-lite"}.items():
        warnings = [
            line for line in (end.out + end.err).splitlines() if re.search(rf"\b{column}\b", line) and "3 of 5" in line
        ]
        assert len(warnings) == 1, (column, end.out, end.err)
        assert default in warnings[0]


def test_full_and_empty_columns_are_not_mentioned(rehearsal: Dop) -> None:
    manifest = sheet(
        rehearsal,
        "a,sandbox:cat,A,1,dop-lite,",
        "b,sandbox:cat,B,2,dop-turbo,",
        head="id,image,prompt,seed,model,motion\n",
    )
    end = rehearsal.call("plan", manifest)
    assert "default" not in end.out + end.err


def test_fill_down_takes_what_is_above(rehearsal: Dop) -> None:
    case(rehearsal, "10-merged-cells/s.csv")
    manifest = written(rehearsal, "m.yaml", "rows: {file: s.csv, fill_down: [motion, model, strength]}\n")
    found = planned(rehearsal, manifest)
    assert {model: share["requests"] for model, share in found["by_model"].items()} == {
        "dop-preview": 3,
        "dop-turbo": 2,
    }
    assert "3 of 5" not in rehearsal.call("plan", manifest).out


def test_fill_down_is_bought_as_it_says(against: Against) -> None:
    dop, double = against()
    sheet(
        dop,
        "a,sandbox:cat,A {{ mood }} cat,1,0.2,calm",
        "b,sandbox:cat,A {{ mood }} dog,2,,",
        ",,,,,",
        "c,sandbox:cat,A {{ mood }} hen,3,0.9,",
        "d,sandbox:cat,A {{ mood }} cow,4,,wild",
        head="id,image,prompt,seed,strength,var:mood\n",
    )
    manifest = written(dop, "m.yaml", "rows:\n  file: shots.csv\n  fill_down: [strength, 'var:mood']\n")
    assert dop.buy(manifest).code == 0
    sent = {line["body"]["seed"]: (line["body"]["prompt"], line["body"]["motions_strength"]) for line in double.submits}
    assert [sent[seed] for seed in (1, 2, 3, 4)] == [
        ("A calm cat", 0.2),
        ("A calm dog", 0.2),
        ("A calm hen", 0.9),
        ("A wild cow", 0.9),
    ]


@pytest.mark.parametrize("column", ["motoin", "id", "skip", "end_image"])
def test_fill_down_of_what_cannot_be_filled_is_refused(rehearsal: Dop, column: str) -> None:
    case(rehearsal, "10-merged-cells/s.csv")
    manifest = written(rehearsal, "m.yaml", f"rows:\n  file: s.csv\n  fill_down: [{column}]\n")
    assert "fill_down" in refused(rehearsal, manifest)


# 11: rows that are commented out -------------------------------------------------------------------------------------


def test_a_row_commented_out_is_refused(rehearsal: Dop) -> None:
    said = refused(rehearsal, case(rehearsal, "11-comment-row/commented-row.csv"))
    assert "'skip'" in mistake_of(said, "commented-row.csv", 2)
    assert lines_refused(said, "commented-row.csv") == {2}


@pytest.mark.parametrize(
    "line", ["# a,sandbox:cat,A cat,1", "#,,,", '"#a, and b",sandbox:cat,A cat,1', "# the second day"]
)
def test_other_comment_lines_are_refused_once(rehearsal: Dop, line: str) -> None:
    said = refused(rehearsal, sheet(rehearsal, "a,sandbox:cat,A cat,1", line))
    assert "'skip'" in mistake_of(said, "shots.csv", 3)


@pytest.mark.parametrize("lead", ["\n\n", ",,,\n", "  \n\r\n", "\ufeff\n"])
def test_leading_blank_lines_are_passed_over(rehearsal: Dop, lead: str) -> None:
    assert planned(rehearsal, written(rehearsal, "s.csv", lead + HEAD + "a,sandbox:cat,A cat,1\n"))["requests"] == 1


def test_the_cases_leading_blank_lines_are_passed_over_and_lines_keep_their_numbers(rehearsal: Dop) -> None:
    assert planned(rehearsal, case(rehearsal, "11-comment-row/blankfirst.csv"))["requests"] == 1
    wrong = written(rehearsal, "s.csv", "\n\n" + HEAD + "a,sandbox:cat,A cat,0\n")
    assert mistakes_of(refused(rehearsal, wrong), "s.csv", 4)


# 12: half pictures ---------------------------------------------------------------------------------------------------


def test_half_pictures_are_found_before_they_are_paid_for(rehearsal: Dop) -> None:
    said = refused(rehearsal, case(rehearsal, "12-half-pictures/s.csv"))
    for line, name in {2: "half.jpg", 3: "half.png", 4: "half.webp"}.items():
        mistake = mistake_of(said, "s.csv", line)
        assert mistake.startswith("column 'image': ")
        assert name in mistake
        assert "cut off" in mistake


def _picture(kind: str, size: tuple[int, int] = (64, 48)) -> bytes:
    file = io.BytesIO()
    noise = Image.effect_noise(size, 80).convert("RGB")
    noise.save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("kept", [0.3, 0.9, -1])
def test_a_picture_cut_anywhere_is_refused(rehearsal: Dop, kind: str, kept: float) -> None:
    whole = _picture(kind)
    written(rehearsal, "p.img", whole[: int(len(whole) * kept)] if kept > 0 else whole[: int(kept)])
    assert "cut off" in mistake_of(refused(rehearsal, sheet(rehearsal, "a,p.img,A cat,1")), "shots.csv", 2)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_whole_picture_with_bytes_behind_its_end_is_read(rehearsal: Dop, kind: str) -> None:
    """Telephones append a film or a depth map; cameras pad with zeros."""
    written(rehearsal, "p.img", _picture(kind))
    written(rehearsal, "q.img", _picture(kind) + bytes(2000) + b"trailer")
    assert planned(rehearsal, sheet(rehearsal, "a,p.img,A,1", "b,q.img,B,1"))["requests"] == 2


# 13: faults of the network -------------------------------------------------------------------------------------------


def test_doctor_fails_when_the_gateway_is_not_there(rehearsal: Dop) -> None:
    rehearsal.base_url = "https://127.0.0.1:9"
    end = rehearsal.call("doctor")
    assert end.code not in {0, 2}, end.out
    assert "refused" in end.out + end.err


@pytest.mark.long
def test_an_unknown_host_ends_the_run_at_once(rehearsal: Dop) -> None:
    rehearsal.base_url = "https://gateway.invalid"
    began = time.monotonic()
    end = rehearsal.buy(
        sheet(rehearsal, "a,https://cdn.example.com/a.jpg,A cat,1"), "--no-preflight", "--max-duration", "4s"
    )
    assert end.code == 7, end.err
    assert "gateway.invalid" in end.err
    assert time.monotonic() - began < 4


@pytest.mark.long
def test_a_closed_port_is_reported_with_its_cause_within_seconds(rehearsal: Dop) -> None:
    rehearsal.base_url = "http://127.0.0.1:9"
    manifest = sheet(rehearsal, "a,https://cdn.example.com/a.jpg,A cat,1")
    end = rehearsal.buy(manifest, "--no-preflight", "--max-duration", "4s")
    assert end.code == 5, end.err
    cause = "the gateway http://127.0.0.1:9 can't be reached: no connection to 127.0.0.1:9: Connection refused"
    assert end.err.count(cause) == 1


# 14: invisible characters in addresses -------------------------------------------------------------------------------


def test_invisible_characters_behind_an_address_are_refused(rehearsal: Dop) -> None:
    said = refused(rehearsal, case(rehearsal, "14-invisible-in-urls/zwurl.csv"))
    for line, character in {2: "U+200B", 3: "U+200E"}.items():
        mistake = mistake_of(said, "zwurl.csv", line)
        assert mistake.startswith("column 'image': ")
        assert character in mistake


def test_two_addresses_in_one_cell_are_refused(rehearsal: Dop) -> None:
    said = refused(rehearsal, case(rehearsal, "14-invisible-in-urls/two.csv"))
    for line in (2, 3):
        assert "one address" in mistake_of(said, "two.csv", line)


@pytest.mark.parametrize("character", ["\u00ad", "\ufeff", "\u2060", "\u200d", "\u202c", "\u00a0", "\u3000", "\u2028"])
def test_any_invisible_character_in_an_address_is_refused(rehearsal: Dop, character: str) -> None:
    manifest = sheet(rehearsal, f"a,https://cdn.example.com/a{character}b.jpg,A,1", "b,sandbox:cat,B,1")
    said = refused(rehearsal, manifest)
    assert f"U+{ord(character):04X}" in mistake_of(said, "shots.csv", 2)


def test_addresses_with_a_second_address_in_their_query_are_one_address(rehearsal: Dop) -> None:
    manifest = sheet(
        rehearsal,
        'a,"https://img.example.com/fit?url=https://cdn.example.com/a.jpg",A,1',
        'b,"https://img.example.com/w_200,h_100/a.jpg",B,1',
        "c,https://web.archive.example.org/20200101/https://cdn.example.com/a.jpg,C,1",
    )
    assert planned(rehearsal, manifest)["requests"] == 3


# 15: a choice that matches nothing -----------------------------------------------------------------------------------


def test_a_tag_that_no_row_has_is_an_error_that_lists_the_tags(rehearsal: Dop) -> None:
    manifest = case(rehearsal, "15-filter-typo/s.csv")
    for verb in ("plan", "validate", "run"):
        end = rehearsal.call(verb, manifest, "--filter-tag", "heros", *(["--yes"] if verb == "run" else []))
        assert end.code == 2, (verb, end.err)
        for tag in ("Hero", "v2", "hero", "heros"):
            assert names(end.err, tag)
    assert not (rehearsal.outputs / "latest").exists()


@pytest.mark.parametrize("words", [["--filter-tag", "v3"], ["--filter-tag", "v2", "--filter-tag", "v3"]])
def test_one_unknown_tag_of_several_is_an_error_too(rehearsal: Dop, words: list[str]) -> None:
    assert "'v3'" in refused(rehearsal, case(rehearsal, "15-filter-typo/s.csv"), *words)


def test_a_tag_of_a_sheet_without_tags(rehearsal: Dop) -> None:
    said = refused(rehearsal, sheet(rehearsal, "a,sandbox:cat,A cat,1"), "--filter-tag", "hero")
    assert "no row has a tag" in said


# 16: noise -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "requests", "count"),
    [("trailing-columns-s.csv", 2, "3"), ("empty-comma-rows-s.csv", 2, "30"), ("checkbox-false-s.csv", 1, "30")],
)
def test_noise_is_passed_over_with_one_notice(rehearsal: Dop, name: str, requests: int, count: str) -> None:
    manifest = case(rehearsal, f"16-noise-in-sheets/{name}")
    assert planned(rehearsal, manifest)["requests"] == requests
    warnings = warned(rehearsal, manifest)
    assert len(warnings) == 1, warnings
    assert names(warnings[0], count)


def test_a_column_without_a_name_that_is_not_empty_is_refused(rehearsal: Dop) -> None:
    said = refused(
        rehearsal, sheet(rehearsal, "a,sandbox:cat,A,1,", "b,sandbox:cat,B,1,x", head="id,image,prompt,seed,\n")
    )
    assert "no name" in mistake_of(said, "shots.csv", 3)


def test_lines_with_more_empty_cells_than_the_header_are_read(rehearsal: Dop) -> None:
    assert planned(rehearsal, sheet(rehearsal, "a,sandbox:cat,A,1,,,", "b,sandbox:cat,B,1"))["requests"] == 2


@pytest.mark.parametrize("noise", ["   ", "  , ,\t,", " ,,,false", ",,,FALSE", ",,,TRUE"])
def test_lines_with_blanks_or_a_lone_checkbox_are_passed_over(rehearsal: Dop, noise: str) -> None:
    head = "image,prompt,seed,check_nsfw\n"
    manifest = sheet(rehearsal, "sandbox:cat,A,1,FALSE", noise, "sandbox:cat,B,1,TRUE", head=head)
    assert planned(rehearsal, manifest)["requests"] == 2


# 17: YAML's own traps ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "line", "words"),
    [
        ("m2.yaml", 2, "quotes"),
        ("m3.yaml", 4, "quotes"),
        ("m4.yaml", 3, "spaces"),
        ("m5.yaml", 3, "quotes"),
    ],
)
def test_yamls_traps_say_what_to_write(rehearsal: Dop, name: str, line: int, words: str) -> None:
    mistake = mistake_of(refused(rehearsal, case(rehearsal, f"17-yaml-words/{name}")), name, line)
    assert words in mistake


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('rows:\n  - id: a\n    prompt: A sign: "SALE": now\n', "quotes"),
        ('rows:\n  - id: a\n    prompt: "A sign reading "SALE" in it"\n', "quotes"),
        ("rows:\n  - id: a\n    prompt: {style} cat\n", "quotes"),
        ("rows:\n  - id: a\n    prompt: [wide] a cat\n", "quotes"),
        ("rows:\n  - id: a\n    prompt: @home with a cat\n", "quotes"),
        ("rows:\n  - id: a\n    prompt: %50 off\n", "quotes"),
        ("rows:\n  - id: a\n    prompt: 'It's a cat'\n", "quotes"),
        ("rows:\n  - id: a\n    prompt: *bold* cat\n", "quotes"),
        ('rows:\n  - id: a\n    prompt: "C:\\shoot\\a.png"\n', "single quotes"),
        ("rows:\n\t- id: a\n", "spaces"),
    ],
)
def test_other_traps_say_what_to_write(rehearsal: Dop, text: str, words: str) -> None:
    said = refused(rehearsal, written(rehearsal, "m.yaml", text))
    line = 2 if "\t" in text else 3
    assert words in mistake_of(said, "m.yaml", line)


@pytest.mark.parametrize("prompt", ["cinematic, slow", "A cup, [steam] rising"])
def test_commas_in_flow_rows_say_what_to_write(rehearsal: Dop, prompt: str) -> None:
    text = f"rows:\n  - {{id: a, image: sandbox:cat, prompt: {prompt}, seed: 3}}\n"
    assert "quotes" in refused(rehearsal, written(rehearsal, "m.yaml", text))


# 18: text round addresses --------------------------------------------------------------------------------------------

WRITE_INSTEAD = {
    "v1": "'https://cdn.example.com/a.jpg'",
    "v2": "'https://www.example.com/a.jpg'",
    "v3": "'https://cdn.example.com/a.jpg'",
    "v4": "'https://cdn.example.com/a.jpg'",
    "v5": "'https://cdn.example.com/a.jpg'",
    "v6": "'https://cdn.example.com/a.jpg'",
    "v7": "one address",
    "v8": "one address",
    "v9": "one address",
    "v10": "one address",
    "v11": "'https://cdn.example.com/v3/a.jpg'",
    "v12": "No such file",
    "v13": "Windows",
    "v14": "home folder",
    "v15": "'https://cdn.example.com/a.jpg'",
    "v16": "'/srv/shoot/a.jpg'",
    "v17": "Google Drive",
    "v18": "raw=1",
    "v19": "Google Photos",
    "v20": "https://raw.githubusercontent.com/o/r/main/a.png",
    "v21": "no picture",
    "v22": "HEIC",
    "v23": "MP4",
    "v24": "data:",
}


def test_text_round_addresses_says_what_it_is_and_what_to_write(rehearsal: Dop) -> None:
    manifest = case(rehearsal, "18-text-round-urls/bad.csv")
    said = refused(rehearsal, manifest)
    line = 2
    for name, words in WRITE_INSTEAD.items():
        mistake = mistake_of(said, "bad.csv", line)
        assert mistake.startswith("column 'image': "), name
        assert words in mistake, (name, mistake)
        line += 2 if name == "v9" else 1


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ('"=IMAGE(""https://cdn.example.com/b.png"")"', "'https://cdn.example.com/b.png'"),
        ('"=HYPERLINK(""https://cdn.example.com/b.png"";""Bild"")"', "'https://cdn.example.com/b.png'"),
        ('"![a cat](https://cdn.example.com/b.png)"', "'https://cdn.example.com/b.png'"),
        ("(https://cdn.example.com/b.png)", "'https://cdn.example.com/b.png'"),
        ("\u201chttps://cdn.example.com/b.png\u201d", "'https://cdn.example.com/b.png'"),
        ("htp://cdn.example.com/b.png", "https://"),
        ("https:/cdn.example.com/b.png", "'https://cdn.example.com/b.png'"),
        ("https://cdn.example.com/b.pdf", "PDF"),
        ("https://cdn.example.com/b.GIF", "GIF"),
        ("https://1drv.ms/i/s!Abc", "OneDrive"),
        ("https://www.icloud.com/photos/#0abc", "iCloud"),
        ("https://docs.google.com/document/d/1A/edit", "Google"),
    ],
)
def test_other_text_round_addresses(rehearsal: Dop, cell: str, words: str) -> None:
    assert words in mistake_of(refused(rehearsal, sheet(rehearsal, f"a,{cell},A,1")), "shots.csv", 2)


def test_addresses_that_only_resemble_those_are_read(rehearsal: Dop) -> None:
    manifest = sheet(
        rehearsal,
        "a,https://www.dropbox.com/s/x/a.jpg?raw=1,A,1",
        "b,https://dl.dropboxusercontent.com/s/x/a.jpg,A,2",
        "c,https://raw.githubusercontent.com/o/r/main/a.png,A,3",
        "d,https://cdn.example.com/render?id=7,A,4",
        "e,https://cdn.example.com/a.heic?format=jpg,A,5",
        "f,https://cdn.example.com/photo,A,6",
        "g,https://drive.google.com/uc?export=download&id=1AbC,A,7",
        "h,https://cdn.example.com/a_(1).jpg,A,8",
    )
    assert planned(rehearsal, manifest)["requests"] == 8


# 19: rows that are nearly equal --------------------------------------------------------------------------------------


def test_rows_that_differ_invisibly_are_named(rehearsal: Dop) -> None:
    warnings = warned(rehearsal, case(rehearsal, "19-near-equal-rows/neardup.csv"))
    assert any(names(line, "a", "b", "c", "d", "g") for line in warnings), warnings
    assert any(names(line, "e", "f") for line in warnings), warnings
    assert len(warnings) <= 2


def test_siblings_of_nearly_equal_rows(rehearsal: Dop) -> None:
    manifest = sheet(
        rehearsal,
        "one,sandbox:cat,  A dog runs,1",
        "two,sandbox:cat,A dog\truns,1",
        "six,sandbox:cat,A dog runs,2",
        'ten,sandbox:cat,"A dog\r\nruns",1',
        "low,sandbox:cat,a dog runs,1",
        "aa,sandbox:cat," + unicodedata.normalize("NFD", "Über Äpfel") + ",1",
        "bb,sandbox:cat," + unicodedata.normalize("NFC", "Über Äpfel") + ",1",
    )
    warnings = warned(rehearsal, manifest)
    assert len(warnings) == 2, warnings
    assert names(warnings[0] + warnings[1], "one", "two", "ten", "aa", "bb")
    assert not names(warnings[0] + warnings[1], "six")
    assert not names(warnings[0] + warnings[1], "low")


def test_rows_that_differ_visibly_are_not_warned_about(rehearsal: Dop) -> None:
    manifest = sheet(rehearsal, *(f"r{n},sandbox:cat,A cat {n},1" for n in range(50)), "x,sandbox:cat,A cat 1,2")
    assert warned(rehearsal, manifest) == []


# 20: quotes round whole prompts --------------------------------------------------------------------------------------


def test_prompts_inside_quotes_are_named(rehearsal: Dop) -> None:
    warnings = warned(rehearsal, case(rehearsal, "20-quotes-in-cells/s.csv"))
    assert len(warnings) == 1, warnings
    assert names(warnings[0], "a", "b", "c")
    assert "quotes" in warnings[0]


def test_other_quotes_round_whole_prompts(rehearsal: Dop) -> None:
    manifest = sheet(
        rehearsal,
        "q1,sandbox:cat,\u00abUn chat\u00bb,1",
        "q2,sandbox:cat,\u201eEine Katze\u201c,1",
        "q3,sandbox:cat,\u2018A cat\u2019,1",
        'q4,sandbox:cat,"""""A cat""""",1',
        "ok1,sandbox:cat,'Stop' and 'Go' on two signs,1",
        "ok2,sandbox:cat,It's the boys',1",
        'ok3,sandbox:cat,"""Stop"" says the sign",1',
    )
    warnings = warned(rehearsal, manifest)
    assert len(warnings) == 1, warnings
    assert names(warnings[0], "q1", "q2", "q3", "q4")
    assert "ok" not in warnings[0]
