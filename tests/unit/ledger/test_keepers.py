"""Which candidates are needed now: a pure function of states, grades and verdicts."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.ledger.keepers import Candidate, CandidateStatus, ShotStatus, status_of, summary
from pipeline.records import FAILED_FOR_GOOD, Candidacy, KeepIf, State

PICK = KeepIf.PICK


def rule(keep: int = 1, *, keep_if: KeepIf = KeepIf.CHECK, ahead: int = 0) -> Candidacy:
    return Candidacy(shot="lamp", keep=keep, keep_if=keep_if, ahead=ahead)


def shot(spelled: str, keep: int = 1, *, keep_if: KeepIf = KeepIf.CHECK, ahead: int = 0) -> ShotStatus:
    """Candidates c0, c1, ... as words: new, way, unknown, failed, done (unchecked), ok, bad, keep, reject."""
    return status_of(rule(keep, keep_if=keep_if, ahead=ahead), [candidate(n, w) for n, w in enumerate(spelled.split())])


def candidate(number: int, word: str) -> Candidate:
    states = {"new": State.PLANNED, "way": State.ACCEPTED, "unknown": State.UNKNOWN, "failed": State.FAILED}
    grade = {"ok": "ok", "warn": "warn", "bad": "bad", "keep": "bad", "reject": "ok"}.get(word)
    verdict = word if word in ("keep", "reject") else None
    return Candidate(request_id=f"c{number}", state=states.get(word, State.DONE), grade=grade, verdict=verdict)


@pytest.mark.parametrize(
    ("spelled", "keep", "needed"),
    [
        ("new new new", 1, "c0"),
        ("new new new", 2, "c0 c1"),
        ("way new new", 1, ""),
        ("done new new", 1, ""),
        ("ok new new", 1, ""),
        ("warn new new", 1, ""),
        ("bad new new", 1, "c1"),
        ("failed new new", 1, "c1"),
        ("reject new new", 1, "c1"),
        ("keep new new", 1, ""),
        ("unknown new new", 1, ""),
        ("unknown unknown new", 2, ""),
        ("bad way new", 1, ""),
        ("bad bad bad", 1, ""),
        ("ok new new", 2, "c1"),
        ("ok bad new", 2, "c2"),
        ("new bad ok", 1, ""),
        ("new ok bad", 2, "c0"),
    ],
)
def test_the_next_candidate_is_bought_for_each_that_is_lost_and_for_no_other(
    spelled: str, keep: int, needed: str
) -> None:
    assert " ".join(shot(spelled, keep).needed) == needed


def test_a_candidate_of_unknown_outcome_may_be_good_and_buys_no_other() -> None:
    one = shot("bad unknown new")
    assert (one.needed, one.open, one.is_used_up) == ((), ("c1",), False)


def test_a_verdict_beats_the_checks() -> None:
    assert shot("keep").kept == ("c0",)
    assert shot("reject new").lost == ("c0",)


def test_with_pick_a_good_clip_waits_for_the_user() -> None:
    one = shot("ok new", keep_if=PICK)
    assert (one.waiting, one.needed, one.waits_for_user) == (("c0",), (), True)
    assert shot("keep new", keep_if=PICK).missing == 0
    assert shot("reject new", keep_if=PICK).needed == ("c1",)
    assert shot("bad new", keep_if=PICK).needed == ("c1",)
    assert not shot("ok way", 2, keep_if=PICK).waits_for_user


def test_keep_ahead_buys_more_than_is_needed_until_the_shot_has_its_keepers() -> None:
    assert shot("new new new new", ahead=2).needed == ("c0", "c1", "c2")
    assert shot("bad way way new", ahead=2).needed == ("c3",)
    assert shot("ok way new new", ahead=2).needed == ()


def test_a_shot_without_candidates_left_is_used_up() -> None:
    assert shot("bad failed reject").is_used_up
    assert not shot("bad failed way").is_used_up
    assert not shot("bad ok").is_used_up
    assert shot("ok", 2).is_used_up


def test_what_is_not_needed_is_spare() -> None:
    assert shot("ok new new").spare == ("c1", "c2")
    assert shot("new new new").spare == ("c1", "c2")


def test_the_summary_names_shots_that_lack_keepers_and_counts_what_was_replaced() -> None:
    spelled = [shot("failed ok"), shot("failed bad"), shot("ok", keep_if=PICK)]
    states = {"c0": State.FAILED, "c1": State.DONE}
    found = summary(spelled, states)
    assert (found.shots, found.satisfied, found.replaced) == (3, 1, frozenset({"c0"}))
    assert found.used_up == ("lamp (0 of 1 kept)",)
    assert found.waiting == ("lamp (0 of 1 kept)",)


words = st.sampled_from(["new", "way", "unknown", "failed", "done", "ok", "warn", "bad", "keep", "reject"])


@given(st.lists(words, max_size=14), st.integers(1, 4), st.sampled_from(list(KeepIf)), st.integers(0, 3))
def test_no_shot_ever_holds_more_hopes_than_it_may(spelled: list[str], keep: int, keep_if: KeepIf, ahead: int) -> None:
    one = shot(" ".join(spelled), keep, keep_if=keep_if, ahead=ahead)
    parts = [*one.kept, *one.lost, *one.open, *one.waiting, *one.needed, *one.spare]
    assert sorted(parts) == sorted(f"c{n}" for n in range(len(spelled)))
    hopes = len(one.kept) + len(one.open) + len(one.waiting) + len(one.needed)
    assert not one.needed or hopes <= keep + ahead
    assert not (one.needed and not one.missing)
    unsent = [n for n, word in enumerate(spelled) if word == "new"]
    assert [f"c{n}" for n in unsent[: len(one.needed)]] == list(one.needed), "in their order"


@given(st.integers(0, 2**32), st.integers(1, 3), st.floats(0.0, 0.9))
def test_bought_one_after_the_other_it_buys_exactly_the_sequential_minimum(seed: int, keep: int, odds: float) -> None:
    """Any order of arrival: what is bought ends with the candidate that makes the K-th keeper."""
    chance = random.Random(seed)
    good = [chance.random() >= odds for _ in range(12)]
    known = ["new"] * 12
    while True:
        one = shot(" ".join(known), keep)
        for request_id in one.needed:
            known[int(request_id[1:])] = "way"
        in_flight = [n for n, word in enumerate(known) if word == "way"]
        if not in_flight:
            break
        arrived = chance.choice(in_flight)
        known[arrived] = "ok" if good[arrived] else "bad"
    hits = [n for n, is_good in enumerate(good) if is_good]
    minimum = hits[keep - 1] + 1 if len(hits) >= keep else 12
    assert 12 - known.count("new") == minimum


def test_every_state_has_a_status() -> None:
    lost = {
        state for state in State if Candidate(request_id="c", state=state).status(KeepIf.CHECK) is CandidateStatus.LOST
    }
    assert lost == FAILED_FOR_GOOD
