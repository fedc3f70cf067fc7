"""What the operator decides: plans that are kept, chosen rows, unknown outcomes settled, failures bought again."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from tests.acceptance.conftest import Opened
from tests.support.cli_driver import Dop, shots, table

Against = Callable[..., Opened]


def one_row(name: str = "lake") -> str:
    """A manifest of one row whose prompt names it."""
    return table([{"id": name, "image": "https://cdn.example.com/a.jpg", "prompt": f"({name}) a lake", "seed": 7}])


def unknown(against: Against, *, book: bool) -> tuple[Opened, Path]:
    """A run whose only row ended with an unknown outcome, perhaps recorded by the gateway."""
    fault = {"status": 502, "body": "<html>Bad Gateway</html>", "book": book}
    dop, double = against(submits={"1": fault})
    manifest = dop.csv(one_row())
    ended = dop.buy(manifest)
    assert (ended.code, ended.counts) == (3, {"unknown": 1})
    return (dop, double), manifest


def test_an_unknown_that_was_not_charged_is_bought_once_more_after_resend(against: Against) -> None:
    (dop, double), manifest = unknown(against, book=False)
    again = dop.buy(manifest)
    assert (again.code, len(double.submits)) == (3, 1), "an unknown outcome was sent again automatically"

    settled = dop.call("resolve", "lake", "--resend")
    assert settled.code == 0, settled.err
    ended = dop.buy(manifest)

    assert (ended.code, ended.counts, len(double.submits)) == (0, {"done": 1}, 2)
    keys = {submit["headers"]["idempotency-key"] for submit in double.submits}
    assert len(keys) == 1, "a resend is the same purchase and carries the same key"


def test_an_unknown_that_was_charged_is_adopted_with_its_job_and_fetched_for_nothing(against: Against) -> None:
    (dop, double), _ = unknown(against, book=True)
    (job,) = double.jobs

    settled = dop.call("resolve", "lake", "--adopt", job)
    assert settled.code == 0, settled.err
    ended = dop.call("collect")

    assert (ended.code, ended.counts, len(double.submits)) == (0, {"done": 1}, 1)
    assert dop.ledger_mills() == double.charged_mills


def test_a_mistyped_job_is_not_adopted(against: Against) -> None:
    (dop, double), manifest = unknown(against, book=True)
    (job,) = double.jobs
    other = dop.csv(one_row("mill"), "other.csv")
    assert dop.buy(other).code == 0
    wrong = [job.replace(job[-2:], "zz"), "", " ", "../x", "a b"]
    for typed in wrong:
        refused = dop.call("resolve", "lake", "--adopt", typed)
        assert refused.code == 2, refused.err
        assert "nothing was changed" in refused.err
    assert dop.call("resolve", "lake", "--adopt", job).code == 0
    assert (dop.buy(manifest).code, double.charged) == (0, 2)


def test_a_job_that_repeats_another_request_is_not_adopted(against: Against) -> None:
    (dop, double), _ = unknown(against, book=True)
    (job,) = double.jobs.values()
    repeated = {"seed": job.body["seed"] + 1, "prompt": job.body["prompt"]}
    usual = job.shape.poll
    job.shape = replace(job.shape, poll=lambda *asked: {**usual(*asked), "input_params": repeated})
    refused = dop.call("resolve", "lake", "--adopt", job.job)
    assert refused.code == 2, refused.err
    assert "is not lake's: " in refused.err


def test_without_an_answer_of_the_gateway_the_operators_word_counts(against: Against) -> None:
    (dop, double), _ = unknown(against, book=True)
    (job,) = double.jobs.values()
    job.script.polls_in_trouble = 99
    settled = dop.call("resolve", "lake", "--adopt", job.job)
    assert settled.code == 0, settled.err
    assert "could not be checked: 502" in settled.err


def test_an_unknown_that_is_written_off_stays_in_the_books_as_disputed(against: Against) -> None:
    (dop, double), manifest = unknown(against, book=True)
    assert dop.call("resolve", "lake", "--charged").code == 0
    ended = dop.buy(manifest)
    assert (ended.code, ended.counts, len(double.submits)) == (0, {"failed": 1}, 1)
    assert dop.rows()[0]["cost_state"] == "disputed"
    assert dop.ledger("select confirmed, disputed, reserved from spend") == [(0, 135_000, 0)]


def test_only_an_unknown_can_be_resolved_and_no_job_can_be_adopted_twice(against: Against) -> None:
    (dop, double), manifest = unknown(against, book=True)
    (job,) = double.jobs
    other = dop.csv(one_row("mill"), "other.csv")
    assert dop.buy(other).code == 0
    bought = json.loads(dop.call("show", "mill", "--json").out)["job_set_id"]

    taken = dop.call("resolve", "lake", "--adopt", bought)
    done = dop.call("resolve", "mill", "--charged")

    assert (taken.code, done.code) == (2, 2)
    assert "belongs to request" in taken.err
    assert "not unknown" in done.err
    assert dop.call("resolve", "lake", "--adopt", job).code == 0
    assert dop.buy(manifest).code == 0


def test_retry_buys_the_failed_again_as_a_new_attempt_under_a_new_key(against: Against) -> None:
    dop, double = against(jobs={"1": {"end": "failed", "reason": "no frames"}})
    manifest = dop.csv(shots(2))
    first = dop.buy(manifest, "--set", "pace.submit_concurrency=1")
    assert (first.code, first.counts) == (1, {"done": 1, "failed": 1})

    priced = dop.call("retry", first.run, "--failed")
    assert priced.code == 2, "a live gateway charged without --yes, a budget or a yes of the user"
    assert len(double.submits) == 2
    ended = dop.call("retry", first.run, "--failed", "--yes")

    assert (ended.code, ended.counts) == (0, {"done": 2})
    assert "Buying 1 video again for $0.135" in ended.err
    assert [(row["status"], row["attempt"], row["cost_state"]) for row in dop.rows(first.run)] == [
        ("failed", "1", "disputed"),
        ("done", "2", "confirmed"),
        ("done", "1", "confirmed"),
    ]
    keys = [submit["headers"]["idempotency-key"] for submit in double.submits]
    assert len(set(keys)) == 3
    assert dop.ledger_mills() == double.charged_mills == 3 * 135
    assert dop.call("retry", first.run, "--failed", "--yes").code == 0
    assert len(double.submits) == 3


def test_retry_stays_below_the_budget_that_the_manifest_gave_its_run(against: Against) -> None:
    dop, double = against(jobs={"1": {"end": "failed"}})
    shot = "{id: a, image: 'https://cdn.example.com/a.jpg', prompt: a lake, seed: 7}"
    manifest = dop.folder / "m.yaml"
    manifest.write_text(f"version: 1\nname: m\nbudget: {{max_cost: 0.20}}\nrows: [{shot}]\n")
    first = dop.buy(manifest)
    assert first.code == 1

    ended = dop.call("retry", first.run, "--failed", "--yes")

    assert (ended.code, len(double.submits)) == (8, 1)
    assert "budget" in ended.err


def test_a_retry_that_its_budget_cut_short_is_continued_by_the_same_command(against: Against) -> None:
    dop, double = against(jobs={"1": {"end": "failed"}, "2": {"end": "failed"}})
    first = dop.buy(dop.csv(shots(2)))
    cut = dop.call("retry", first.run, "--failed", "--max-cost", "0.405")
    assert (cut.code, len(double.submits)) == (8, 3), cut.err

    shown = dop.call("retry", first.run, "--failed", "--dry-run")
    ended = dop.call("retry", first.run, "--failed", "--max-cost", "0.54")

    assert "1 video would be bought again for $0.135" in shown.out
    assert (ended.code, ended.counts, len(double.submits)) == (0, {"done": 2}, 4), ended.err
    assert dop.call("retry", first.run, "--failed", "--yes").code == 0
    assert dop.ledger_mills() == double.charged_mills == 4 * 135


def test_a_saved_plan_buys_what_it_showed_with_its_random_seeds_and_only_once(against: Against) -> None:
    dop, double = against()
    manifest = dop.folder / "m.yaml"
    manifest.write_text(
        "version: 1\nname: m\ndefaults: {image: 'https://cdn.example.com/a.jpg', prompt: a lake}\n"
        "matrix: {seed: {random: 4}}\n"
    )
    plan = dop.folder / "plan.json"
    without = dop.buy(manifest)
    made = dop.call("plan", manifest, "--out", plan, "--json")
    assert (without.code, made.code, double.charged) == (2, 0, 0)
    assert json.loads(made.out)["new_price_usd"] == "0.540"

    # No third POST may be in flight at the kill: its outcome would be unknown.
    killed = dop.call("run", "--plan", plan, "--yes", "--max-new", 2, fail_point="after-accept:2")
    ended = dop.call("run", "--plan", plan, "--yes")
    # The intent of the third row may share the commit of the second acceptance; its POST never left.
    if ended.code == 3:
        assert len(double.submits) == 3
        assert dop.call("resolve", "--all", "--resend", "--yes").code == 0
        ended = dop.call("run", "--plan", plan, "--yes")
    again = dop.call("run", "--plan", plan, "--yes")

    assert (killed.code, ended.code) == (-9, 0), ended.err
    (seeds,) = json.loads(plan.read_text())["seeds"].values()
    assert {job.body["seed"] for job in double.jobs.values()} == set(seeds)
    assert (again.code, len(double.submits)) == (2, 4), "a plan that was carried out can't be carried out again"
    assert "make a new plan" in again.err


def test_a_plan_of_nothing_new_makes_no_run(against: Against) -> None:
    dop, double = against()
    manifest = dop.csv(shots(2))
    plan = dop.folder / "plan.json"
    assert dop.buy(manifest).code == 0
    assert dop.call("plan", manifest, "--out", plan).code == 0
    folders = {path.name for path in dop.outputs.iterdir()}

    again = dop.call("run", "--plan", plan, "--yes")

    assert (again.code, double.charged) == (0, 2), again.err
    assert "Nothing to buy" in again.err + again.out
    assert {path.name for path in dop.outputs.iterdir()} == folders


def test_a_plan_is_refused_when_manifest_prices_or_ledger_changed(against: Against) -> None:
    dop, double = against()
    manifest = dop.csv(shots(3))
    plan = dop.folder / "plan.json"
    assert dop.call("plan", manifest, "--out", plan).code == 0

    dearer = dop.call("run", "--plan", plan, "--yes", "--set", "prices.dop-lite=0.2")
    dop.csv(shots(4))
    edited = dop.call("run", "--plan", plan, "--yes")
    dop.csv(shots(3))
    assert dop.buy(manifest, "--first", 1).code == 0
    bought = dop.call("run", "--plan", plan, "--yes")

    assert [dearer.code, edited.code, bought.code] == [2, 2, 2]
    assert double.charged == 1


def test_chosen_rows_are_bought_and_all_shards_together_are_the_whole(against: Against) -> None:
    dop, double = against()
    rows = [
        {"id": f"r{n}", "image": "https://cdn.example.com/a.jpg", "prompt": f"scene {n}", "seed": n, "tags": tags}
        for n, tags in enumerate(["hero", '"hero,v2"', "", "v2", "", ""], start=1)
    ]
    manifest = dop.csv(table(rows))
    assert dop.buy(manifest, "--filter-tag", "hero").counts == {"done": 2}
    assert dop.buy(manifest, "--filter-tag", "v2", "--first", 1).err.startswith("Nothing to buy: ")
    assert double.charged == 2
    for part in (1, 2, 3):
        assert dop.buy(manifest, "--shard", f"{part}/3").code == 0
    assert (double.charged, len(set(double.bodies()))) == (6, 6)
    assert dop.buy(manifest, "--sample", 2).err.startswith("Nothing to buy: all 2 videos already exist (")
    assert dop.buy(manifest, "--shard", "4/3").code == 2
    assert double.charged == 6


def test_max_new_buys_so_many_and_leaves_the_rest_planned(against: Against) -> None:
    dop, double = against()
    manifest = dop.csv(shots(5))
    first = dop.buy(manifest, "--max-new", 2)
    assert (first.code, first.counts, double.charged) == (5, {"done": 2, "planned": 3}, 2)
    second = dop.buy(manifest)
    assert (second.code, second.run, double.charged) == (0, first.run, 5)


def test_a_pilot_that_fails_stops_the_purchase(against: Against) -> None:
    dop, double = against(jobs={"2": {"end": "failed"}})
    manifest = dop.csv(shots(6))
    ended = dop.buy(manifest, "--pilot", 2)
    assert (ended.code, ended.counts, double.charged) == (5, {"done": 1, "failed": 1, "planned": 4}, 2)
    assert "pilot: not all of 2 rendered (1 done, 1 failed); nothing more is bought" in ended.err


def test_a_pilot_buys_the_cheapest_first_and_continues_when_they_came_out_well(against: Against) -> None:
    dop, double = against()
    rows = [
        {"id": f"r{n}", "image": "https://cdn.example.com/a.jpg", "prompt": f"scene {n}", "seed": n, "model": model}
        for n, model in enumerate(["dop-preview", "dop-turbo", "dop-lite", "dop-lite"], start=1)
    ]
    ended = dop.buy(dop.csv(table(rows)), "--pilot", 2)
    models = [job.body["model"] for job in double.jobs.values()]
    assert (ended.code, double.charged, set(models[:2])) == (0, 4, {"dop-lite"})


def test_halt_stops_the_buying_when_too_many_fail(against: Against) -> None:
    dop, double = against(jobs={"*": {"end": "failed"}})
    manifest = dop.csv(shots(40))
    ended = dop.buy(manifest, "--halt", "fail=3", "--set", "pace.submit_concurrency=1", "-j", 2)
    assert ended.code == 5
    assert "--halt" in ended.err
    assert 3 <= double.charged < 40
    assert ended.counts["failed"] == double.charged
    assert dop.buy(manifest, "--halt", "fail=many").code == 2


def test_spend_tells_every_span_and_finds_what_the_vendor_lists_otherwise(against: Against) -> None:
    dop, double = against(jobs={"2": {"end": "failed"}})
    assert dop.buy(dop.csv(shots(3)), "--set", "pace.submit_concurrency=1").code == 1
    jobs = list(double.jobs)
    usage = dop.folder / "usage.csv"
    usage.write_text(f"job_set_id,amount\n{jobs[0]},0.135\n{jobs[1]},0\nstranger,0.135\n")

    spend = json.loads(dop.call("spend", "--usage", usage, "--json").out)

    (gateway,) = spend["gateways"].values()
    assert (gateway["confirmed_usd"], gateway["disputed_usd"], gateway["worst_usd"]) == ("0.270", "0.135", "0.405")
    assert gateway["by_model"]["dop-lite"]["confirmed_usd"] == "0.270"
    assert spend["usage"]["not_charged"] == [jobs[1]]
    assert spend["usage"]["not_in_ledger"] == ["stranger"]
    assert spend["usage"]["not_in_usage"] == [jobs[2]]
    assert dop.call("spend", "--day", "2001-01-01").out.strip() == "nothing was spent yet"


def test_a_sweep_that_explodes_is_refused_with_the_size_of_each_axis_and_its_price(rehearsal: Dop) -> None:
    manifest = rehearsal.folder / "m.yaml"
    manifest.write_text(
        "version: 1\nname: m\ndefaults: {image: 'https://cdn.example.com/a.jpg', prompt: a lake}\n"
        "matrix: {seed: {from: 1, to: 1000000}, strength: {from: 0.01, to: 1, count: 100}, "
        "model: [dop-lite, dop-turbo]}\n"
    )
    ended = rehearsal.call("plan", manifest)
    assert ended.code == 2
    for words in ("seed 1,000,000", "strength 100", "200,000,000", "$55100000.000"):
        assert words in ended.err


def test_a_run_whose_rows_are_refused_never_was(against: Against) -> None:
    dop, double = against()
    manifest = dop.csv(shots(2))
    assert dop.buy(manifest, "--set", "prices.dop-lite=0").code == 7
    assert json.loads(dop.call("list", "--json").out) == {"runs": []}
    assert dop.buy(manifest).code == 0
    assert len(json.loads(dop.call("list", "--json").out)["runs"]) == 1
    assert double.charged == 2
