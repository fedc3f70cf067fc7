"""What the shots of a manifest may still cost: the least, the expected and the most.

The most is what is agreed to: every candidate of every shot that lacks keepers. The expectation rests on the share of
clips of the same model that were kept before; without any it is unknown, and said so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import comb

from pipeline.ledger.keepers import Candidate, CandidateStatus, ShotStatus, status_of
from pipeline.ledger.purchase_outcomes import PurchaseOutcome
from pipeline.records import Candidacy, Cell, FoldedRow, Request, State, counted, usd


@dataclass(slots=True)
class PassRate:
    """How many purchases of a model came out, and how many of them were kept."""

    decided: int = 0
    kept: int = 0


def pass_rates(outcomes: Iterable[PurchaseOutcome]) -> dict[str, PassRate]:
    """Model -> its history."""
    rates: dict[str, PassRate] = {}
    for one in outcomes:
        if one.status is not CandidateStatus.OPEN:
            rate = rates.setdefault(one.model, PassRate())
            rate.decided += 1
            rate.kept += one.status is CandidateStatus.KEPT
    return rates


@dataclass(slots=True, kw_only=True)
class KeeperPlan:
    """What the shots of a plan come to. Money in micro-dollars.

    Attributes:
        shots, wanted, kept: how many shots, how many clips they want, how many are kept.
        least, most: candidates to buy at least and at most; with their prices.
        expected: None where a model has no history.
        history: model -> the clips that the expectation rests on.
    """

    shots: int = 0
    wanted: int = 0
    kept: int = 0
    spare: int = 0
    least: int = 0
    least_microusd: int = 0
    most: int = 0
    most_microusd: int = 0
    expected: float | None = 0.0
    expected_microusd: int | None = 0
    history: dict[str, PassRate] = field(default_factory=dict)
    unknown_models: tuple[str, ...] = ()

    def as_json(self) -> dict[str, object]:
        """Counts, and money as strings with three decimals; null for an expectation that is unknown."""
        return {
            "shots": self.shots,
            "wanted": self.wanted,
            "kept": self.kept,
            "not_needed": self.spare,
            "least": self.least,
            "least_usd": usd(self.least_microusd),
            "expected": None if self.expected is None else round(self.expected, 1),
            "expected_usd": None if self.expected_microusd is None else usd(self.expected_microusd),
            "most": self.most,
            "most_usd": usd(self.most_microusd),
            "history": {
                model: {"clips": rate.decided, "kept": rate.kept} for model, rate in sorted(self.history.items())
            },
        }

    def lines(self) -> list[str]:
        """The plan for display."""
        expected = "unknown"
        if self.expected is not None and self.expected_microusd is not None:
            expected = f"{self.expected:.1f} for ${usd(self.expected_microusd)}"
        found = [
            f"keepers: {counted(self.shots, 'shot')} {'wants' if self.shots == 1 else 'want'} "
            f"{counted(self.wanted, 'clip')}, {self.kept} {'is' if self.kept == 1 else 'are'} kept; to buy: "
            f"least {self.least} for ${usd(self.least_microusd)}, expected {expected}, "
            f"most {self.most} for ${usd(self.most_microusd)}"
        ]
        for model, rate in sorted(self.history.items()):
            kept = f"{rate.kept} {'was' if rate.kept == 1 else 'were'} kept"
            found.append(f"  expected from {counted(rate.decided, 'clip')} of {model}, of which {kept}")
        found += [f"  no clip of {model} has come out yet: what to expect is unknown" for model in self.unknown_models]
        return [*found, f"not needed: {self.spare}"] if self.spare else found


class ShotCollector:
    """Collects the candidates of a manifest while its rows pass by."""

    def __init__(self) -> None:
        self._rules: dict[str, Candidacy] = {}
        self._members: dict[str, list[str]] = {}
        self._requests: dict[str, Request] = {}

    def collect(self, rows: Iterable[Request | Cell | FoldedRow]) -> Iterator[Request | Cell | FoldedRow]:
        """The rows as they are; candidates among them are noted."""
        for row in rows:
            if not isinstance(row, Cell) and row.candidacy is not None:
                rule = self._rules.setdefault(row.candidacy.shot, row.candidacy)
                members = self._members.setdefault(rule.shot, [])
                if row.request_id not in members:
                    members.append(row.request_id)
                if isinstance(row, Request):
                    self._requests[row.request_id] = row
            yield row

    @property
    def request_ids(self) -> list[str]:
        """Every candidate."""
        return list(dict.fromkeys(one for members in self._members.values() for one in members))

    def too_few(self) -> list[str]:
        """Warnings of shots that want more clips than they have candidates."""
        return [
            f"{shot}: keep {rule.keep}, and it has only {counted(len(self._members[shot]), 'candidate')}: "
            "give it more seeds"
            for shot, rule in self._rules.items()
            if rule.keep > len(self._members[shot])
        ]

    def offer(self, known: Mapping[str, Candidate]) -> ShotOffer:
        """Where the shots stand; `known` are the candidates that the ledger knows."""
        statuses = []
        for shot, rule in self._rules.items():
            candidates = [
                known.get(one) or Candidate(request_id=one, state=State.PLANNED) for one in self._members[shot]
            ]
            statuses.append(status_of(rule, candidates))
        return ShotOffer(statuses=statuses, requests=self._requests)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShotOffer:
    """The shots of a manifest against the ledger.

    Attributes:
        requests: the candidates by id; one that another row asks for too is that row's.
    """

    statuses: Sequence[ShotStatus]
    requests: Mapping[str, Request]

    @property
    def needed(self) -> set[str]:
        """Candidates to be bought now."""
        return {one for shot in self.statuses for one in shot.needed}

    @property
    def open(self) -> set[str]:
        """Candidates that may be bought: those of shots that lack keepers."""
        return {one for shot in self.statuses if shot.missing for one in (*shot.needed, *shot.spare)}

    @property
    def spare(self) -> set[str]:
        """Unsent candidates that no shot may ask for, as it has its keepers."""
        return {one for shot in self.statuses for one in shot.spare} - self.open

    def plan(self, rates: Mapping[str, PassRate]) -> KeeperPlan:
        """What they may cost."""
        found = KeeperPlan(spare=len(self.spare & self.requests.keys()))
        found.shots = len(self.statuses)
        found.wanted = sum(shot.rule.keep for shot in self.statuses)
        found.kept = sum(min(len(shot.kept), shot.rule.keep) for shot in self.statuses)
        least = self.needed & self.requests.keys()  # bought even if everything in flight and all of them come out well
        most = self.open & self.requests.keys()
        found.least, found.least_microusd = len(least), self._price(least)
        found.most, found.most_microusd = len(most), self._price(most)
        models = {self.requests[one].params.model for one in most}
        found.unknown_models = tuple(sorted(model for model in models if not rates.get(model, PassRate()).decided))
        found.history = {model: rates[model] for model in sorted(models) if model not in found.unknown_models}
        if found.unknown_models:
            found.expected = found.expected_microusd = None
            return found
        odds = [pair for shot in self.statuses if shot.missing for pair in self._odds(shot, rates)]
        found.expected = sum(chance for chance, _ in odds)
        found.expected_microusd = round(sum(chance * price for chance, price in odds))
        return found

    def _price(self, request_ids: Iterable[str]) -> int:
        return sum(self.requests[one].price_microusd for one in request_ids)

    def _odds(self, shot: ShotStatus, rates: Mapping[str, PassRate]) -> list[tuple[float, int]]:
        """For each unsent candidate: the chance that it is bought, and its price.

        A candidate is bought when those before it, `ahead` of them left out, do not hold enough keepers.
        """
        found: list[tuple[float, int]] = []
        hopes = len(shot.open) + len(shot.waiting)
        for number, one in enumerate((*shot.needed, *shot.spare)):
            request = self.requests.get(one)
            if request is None:
                continue
            rate = rates[request.params.model]
            before = max(0, hopes + number - shot.rule.ahead)
            found.append((at_most(shot.missing - 1, before, rate.kept / rate.decided), request.price_microusd))
        return found


def at_most(hits: int, trials: int, share: float) -> float:
    """The chance of at most `hits` successes in `trials`."""
    # The binomial distribution: each clip is taken to be kept with the same chance, independent of the others.
    return sum(comb(trials, n) * share**n * (1 - share) ** (trials - n) for n in range(min(hits, trials) + 1))
