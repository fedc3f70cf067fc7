"""The catalogue of motion presets: forgiving about spelling, never guessing."""

from __future__ import annotations

import pytest

from pipeline.errors import FatalError
from pipeline.gateway import motions
from tests.support.manifests import CATALOGUE

HEAD = "name,id,start_end_frame\n"
UUID = "ea035f68-b350-40f1-b7f4-7dff999fdd67"


def test_the_shipped_catalogue_has_120_presets_of_which_14_take_no_end_frame() -> None:
    assert len(CATALOGUE.presets) == 120
    assert len({preset.motions_id for preset in CATALOGUE.presets}) == 120
    assert sum(preset.start_end_frame is False for preset in CATALOGUE.presets) == 14


@pytest.mark.parametrize("name", ["360 Orbit", "360 orbit", "360_ORBIT", "360-orbit", "360orbit", UUID, UUID.upper()])
def test_a_preset_is_found_by_any_spelling_of_its_name_and_by_its_id(name: str) -> None:
    found = CATALOGUE.find(name)
    assert found
    assert (found.name, found.motions_id, found.start_end_frame) == ("360 Orbit", UUID, True)


def test_every_preset_is_found_by_its_own_name() -> None:
    assert [CATALOGUE.find(preset.name) for preset in CATALOGUE.presets] == list(CATALOGUE.presets)


@pytest.mark.parametrize(("name", "near"), [("Doly In", "Dolly In"), ("crane upp", "Crane Up"), ("qqqq", None)])
def test_an_unknown_name_is_nobodys_and_its_neighbour_is_named(name: str, near: str | None) -> None:
    assert CATALOGUE.find(name) is None
    assert CATALOGUE.suggest(name) == near


def test_an_unknown_id_is_nobodys() -> None:
    assert CATALOGUE.find("3c90c3cc-0d44-4b50-8888-8dd25736052a") is None


def test_what_is_not_known_about_end_frames_stays_unknown() -> None:
    assert motions.parse(f"{HEAD}New,{UUID},\n").presets[0].start_end_frame is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "name,id\nA,b\n",
        f"{HEAD}A\n",
        f"{HEAD}A,not-a-uuid,true\n",
        f"{HEAD}A b,{UUID},true\na_B,{UUID},true\n",
    ],
)
def test_a_broken_catalogue_is_refused(text: str) -> None:
    with pytest.raises(FatalError, match="motion catalogue"):
        motions.parse(text)
