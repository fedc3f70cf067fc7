"""`dop view` over real HTTP: what it shows, what it refuses to others, and what it sends during a run."""

from __future__ import annotations

import io
import json
import re
import socket
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.conftest import Opened
from tests.support.cli_driver import KEY, Dop, ended, shots
from tests.support.fake_gateway import GatewayDouble, Script
from tests.support.viewer_process import View, start_view

pytestmark = pytest.mark.long  # whole runs over HTTP; the money's own tests stay in the fast set


@pytest.fixture(scope="module")
def viewed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Dop, View]]:
    """A finished run of three videos, and the server."""
    with GatewayDouble(Script(key=KEY)) as gateway:
        dop = Dop(folder=tmp_path_factory.mktemp("viewed"), base_url=gateway.base_url)
        assert dop.buy(dop.csv(shots(3))).code == 0
        view = start_view(dop, "--as", "director")
        yield dop, view
        assert view.interrupt() == 0
        dop.end_all()


def test_runs_money_and_the_sheet_are_shown(viewed: tuple[Dop, View]) -> None:
    dop, view = viewed
    runs = view.ask(view.root).text
    assert f'href="runs/{dop.latest.name}/"' in runs
    assert "$0.405" in runs
    assert "$0.405" in view.ask(f"{view.root}spend").text
    page = view.ask(view.page)
    assert page.status == 200
    assert page.text.count('<article class="cell done"') == 3
    assert "connect-src 'self'" in page.text
    assert view.ask(f"{view.page}report.csv").body == (dop.latest / "report.csv").read_bytes()


def test_clips_come_whole_or_in_ranges(viewed: tuple[Dop, View]) -> None:
    dop, view = viewed
    clip = dop.videos()[0]
    path = f"{view.page}videos/{clip.name}"
    whole = view.ask(path)
    assert (whole.status, whole.body) == (200, clip.read_bytes())
    assert whole.headers["Content-Type"] == "video/mp4"
    part = view.ask(path, Range="bytes=4-11")
    assert (part.status, part.body) == (206, clip.read_bytes()[4:12])
    assert part.headers["Content-Range"] == f"bytes 4-11/{clip.stat().st_size}"


def test_a_poster_that_is_not_there_is_made_for_the_page_and_not_for_the_disk(viewed: tuple[Dop, View]) -> None:
    dop, view = viewed
    for picture in dop.latest.glob("videos/*.jpg"):
        picture.unlink()
    page = view.ask(view.page).text
    posters = re.findall(r'<img src="([^"]+\.jpg)"', page)
    assert len(posters) == 3
    for ending in (posters[0], posters[0].removesuffix(".jpg") + ".start.jpg"):
        made = view.ask(f"{view.page}{ending}")
        assert made.headers["Content-Type"] == "image/jpeg"
        assert made.body.startswith(b"\xff\xd8\xff")
    assert view.ask(f"{view.page}videos/absent.jpg").status == 404
    assert list(dop.latest.glob("videos/*.jpg")) == []


def hostile(view: View) -> dict[str, int]:
    """What each strange request is answered with."""
    page, evil = view.page, "https://evil.example"
    changes = b'{"changes": []}'
    other_port = f"http://127.0.0.1:{view.port + 1}"
    return {
        "another host": view.ask(page, Host="evil.example").status,
        "a rebound name": view.ask(page, Host=f"evil.example:{view.port}").status,
        "another site's script": view.ask(page, Origin=evil, Sec_Fetch_Site="cross-site").status,
        "another site's picture": view.ask(page, Sec_Fetch_Site="cross-site", Sec_Fetch_Dest="image").status,
        "another site's frame": view.ask(
            page, Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate", Sec_Fetch_Dest="iframe"
        ).status,
        "another site's form": view.ask(
            f"{page}reviews", method="POST", body=changes, Origin=evil, Content_Type="text/plain"
        ).status,
        "another port's page": view.ask(f"{page}reviews", method="POST", body=changes, Origin=other_port).status,
        "no page at all": view.ask(f"{page}reviews", method="POST", body=changes).status,
        "a file's page": view.ask(f"{page}reviews", method="POST", body=changes, Origin="null").status,
        "a preflight": view.ask(f"{page}reviews", method="OPTIONS", Origin=evil).status,
        "removal": view.ask(f"{page}reviews", method="DELETE", Origin=view.origin).status,
    }


def test_other_sites_are_refused_and_change_nothing(viewed: tuple[Dop, View]) -> None:
    dop, view = viewed
    before = sorted(dop.latest.rglob("*"))
    assert set(hostile(view).values()) == {403}
    assert sorted(dop.latest.rglob("*")) == before


def test_without_the_secret_of_the_address_there_is_nothing(viewed: tuple[Dop, View]) -> None:
    _, view = viewed
    rest = view.page.removeprefix(view.root)
    for path in ("/", f"/{rest}", f"/wrong/{rest}", f"{view.root[:-2]}/{rest}", "//", "/favicon.ico"):
        found = view.ask(path)
        assert (found.status, found.text) == (404, "not found\n"), path


def test_no_path_leads_out_of_the_runs(viewed: tuple[Dop, View]) -> None:
    dop, view = viewed
    secret = "a secret of the same disk"
    for place in (dop.folder / "secret.mp4", dop.outputs / "secret.mp4", dop.latest / "secret.txt"):
        place.write_text(secret)
    (dop.latest / "videos" / "link.mp4").symlink_to(dop.folder / "secret.mp4")
    (dop.latest / "videos" / ".hidden.mp4").write_text(secret)
    tried = [
        "videos/link.mp4",
        "videos/.hidden.mp4",
        "secret.txt",
        "run.log",
        "manifest.csv",
        "../../ledger.db",
        "../ledger.db",
        "../secret.mp4",
        *(f"videos/{up * 3}secret.mp4" for up in ("../", "..%2f", "%2e%2e/", "..%5c", "..%252f", "....//")),
        *(f"videos/{up}secret.mp4" for up in ("../../", "..%2f..%2f", "%2e%2e%2f%2e%2e%2f", "%00", "/")),
        f"videos/{dop.folder}/secret.mp4",
        f"videos/%2f{str(dop.folder)[1:].replace('/', '%2f')}%2fsecret.mp4",
    ]
    for path in tried:
        found = view.ask(f"{view.page}{path}")
        assert found.status in (400, 404), path
        assert secret.encode() not in found.body
        assert b"SQLite" not in found.body
    for run in ("..", "%2e%2e", ".", "latest", "absent"):
        assert view.ask(f"{view.root}runs/{run}/videos/secret.mp4").status == 404
        assert view.ask(f"{view.root}runs/{run}/").status in (200, 404)


def test_every_answer_forbids_frames_guesses_of_types_and_other_sites(viewed: tuple[Dop, View]) -> None:
    dop, view = viewed
    answers = [
        view.ask(path)
        for path in (
            view.root,
            view.page,
            f"{view.root}spend",
            f"{view.root}view.css",
            f"{view.page}reviews",
            f"{view.page}report.csv",
            f"{view.page}videos/{dop.videos()[0].name}",
            f"{view.page}nothing",
            "/",
        )
    ]
    answers.append(view.ask(view.page, Host="evil.example"))
    for answer in answers:
        assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert not [name for name in answer.headers if name.lower().startswith("access-control")]


def test_reviews_are_in_the_ledger_and_derive_takes_what_is_kept(viewed: tuple[Dop, View]) -> None:
    dop, view = viewed
    first, second, *_ = (row["request_id"] for row in dop.rows())
    changes = [{"request_id": first, "verdict": "reject"}, {"request_id": second, "verdict": "keep", "stars": 4}]
    answer = view.save(*changes)
    assert (answer.status, json.loads(answer.body)) == (200, {"saved": 2})
    lines = dop.ledger("select request_id, verdict, stars, who from reviews order by number")
    assert [line[:3] for line in lines] == [(first, "reject", None), (second, "keep", 4)]
    assert {line[3] for line in lines} == {"director"}
    assert '"verdict":"keep","stars":4' in view.ask(view.page).text
    made = dop.call("derive", "--set", "model=dop-preview")
    assert made.code == 0, made.err
    assert "to buy now: 1 for $0.573" in made.out


def test_picks_of_an_earlier_version_are_taken_over_once(viewed: tuple[Dop, View]) -> None:
    dop, view = viewed
    third = dop.rows()[2]["request_id"]
    (dop.latest / "picks.json").write_text(json.dumps({"run": dop.latest.name, "picks": [third]}))
    for _ in range(2):
        view.ask(view.page)
    assert dop.ledger("select request_id, verdict, who from reviews where who = 'picks.json'") == [
        (third, "keep", "picks.json")
    ]
    (dop.latest / "picks.json").write_text("no picks")
    assert view.ask(view.page).status == 200
    (dop.latest / "picks.json").unlink()


def test_what_are_no_reviews_of_this_run_is_not_kept(viewed: tuple[Dop, View]) -> None:
    dop, view = viewed
    first = dop.rows()[0]["request_id"]
    before = dop.ledger("select * from reviews")
    answers = {
        "strangers": view.save({"request_id": "../../etc/passwd", "stars": 1}).status,
        "one stranger": view.save({"request_id": first, "stars": 1}, {"request_id": "x" * 32, "stars": 1}).status,
        "a strange rival": view.save({"request_id": first, "rival": "x" * 32, "duel": 1}).status,
        "six stars": view.save({"request_id": first, "stars": 6}).status,
        "no list": view.send({"changes": "all"}).status,
        "no object": view.send([]).status,
        "no JSON": view.ask(
            f"{view.page}reviews", method="POST", body=b"\xff", Origin=view.origin, Content_Type="application/json"
        ).status,
    }
    assert set(answers.values()) == {400}, answers
    assert view.save(Content_Type="text/plain").status == 415
    assert view.save("x" * 9_000_000).status == 413
    assert dop.ledger("select * from reviews") == before


def test_a_page_hears_what_another_one_said(viewed: tuple[Dop, View]) -> None:
    dop, view = viewed
    second = dop.rows()[1]["request_id"]
    known = dop.ledger("select coalesce(max(number), 0) from reviews")[0][0]
    with view.news(after=0, requests=3) as news:
        assert view.save({"request_id": second, "note": "=1+1 <b>", "who": "an impostor"}).status == 200
        heard = until(news, "reviews", lambda data: data["number"] > known)
    assert {(one["request_id"], one.get("note")) for one in heard["changes"]} >= {(second, "=1+1 <b>")}
    assert {one["who"] for one in heard["changes"]} <= {"director", "picks.json"}


def until(news: Iterator[tuple[str, Any]], name: str, is_so: Callable[[Any], bool]) -> Any:
    """The first event of that name that is so; what comes before is passed over."""
    return next(data for found, data in news if found == name and is_so(data))


def test_a_page_follows_a_running_run_and_does_not_disturb_it(against: Callable[..., Opened]) -> None:
    dop, gateway = against(generation_s=0.3)
    manifest = dop.csv(shots(4))
    assert dop.buy(manifest, "--max-new", "1").code == 5
    view = start_view(dop)
    known = json.loads(re.findall(r"const served = (\{.*?\});", view.ask(view.page).text)[0])
    assert known["requests"] == 4
    with view.news(**{"after": known["event"], "requests": known["requests"]}) as news:
        name, status = next(news)
        assert name == "status"
        assert (status["new"], status["done"], status["ended"]) == (3, 1, False)  # type: ignore[index]
        going_on = dop.start("run", manifest, "--yes")
        changed = until(news, "cells", lambda cells: any(cell["clip"] for cell in cells))
        status = until(news, "status", lambda status: status["ended"])
        assert (status["done"], status["shown"]["confirmed"]) == (4, "$0.540")
        ending = ended(going_on)
        assert ending.code == 0, ending.err
    cell = next(cell for cell in changed if cell["clip"])
    assert (cell["state"], cell["price"]) == ("done", "$0.135")
    assert view.ask(f"{view.page}{cell['clip']}").body[4:8] == b"ftyp"
    assert view.ask(f"{view.page}{cell['poster']}").body.startswith(b"\xff\xd8\xff")
    assert gateway.charged == 4
    with view.news(after=0, requests=4) as news:
        name, cells = next(news)
        assert name == "cells"
        assert len(cells) == 4  # type: ignore[arg-type]
        assert view.interrupt() == 0, "also while a page listens"


def test_a_page_whose_rows_are_old_must_reload(against: Callable[..., Opened]) -> None:
    dop, _ = against()
    assert dop.buy(dop.csv(shots(2)), "--max-new", "1").code == 5
    view = start_view(dop)
    with view.news(after=0, requests=2) as news:
        assert next(news)[0] == "cells"
        assert dop.buy(dop.csv(shots(3))).code == 0
        assert until(news, "stale", lambda _: True) is None
    with view.news(after=10**9, requests=3) as news:
        assert next(news)[0] == "stale"
    assert view.ask(f"{view.page}events").status == 400
    assert view.interrupt() == 0


def test_a_page_with_candidates_that_are_not_needed_is_not_old(against: Callable[..., Opened]) -> None:
    dop, _ = against()
    assert dop.buy(dop.csv("image,prompt,seeds,keep\nhttps://cdn.example.com/1.jpg,scene 1,1-3,1\n")).code == 0
    view = start_view(dop)
    known = json.loads(re.findall(r"const served = (\{.*?\});", view.ask(view.page).text)[0])
    with view.news(**{"after": known["event"], "requests": known["requests"]}) as news:
        assert next(news)[0] == "status", "the first update; what makes it old comes with it"
        assert view.save({"request_id": dop.rows()[0]["request_id"], "verdict": "keep"}).status == 200
        heard = names_until(news, "reviews")
    assert "stale" not in heard
    assert view.interrupt() == 0


def names_until(news: Iterator[tuple[str, Any]], last: str) -> list[str]:
    """The names of the events up to the first of the name `last`."""
    names = []
    for name, _ in news:
        names.append(name)
        if name == last:
            break
    return names


def test_an_obstacle_is_reported(against: Callable[..., Opened]) -> None:
    dop, _ = against()
    nothing = dop.call("view", "--no-open")
    assert (nothing.code, nothing.out) == (2, "")
    assert "no run yet" in nothing.err
    assert not dop.outputs.exists()
    assert dop.buy(dop.csv(shots(1))).code == 0
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        refused = dop.call("view", "--no-open", "--port", taken.getsockname()[1])
    assert refused.code == 2
    assert "is in use; leave --port out" in refused.err
    assert dop.call("view", "absent", "--no-open").code == 2
    assert dop.call("view", "--no-open", "--port", "70000").code == 2


def test_a_page_that_cannot_be_made_costs_neither_the_tables_nor_the_exit_code(against: Callable[..., Opened]) -> None:
    dop, _ = against()
    manifest = dop.csv(shots(2))
    first = dop.buy(manifest, "--max-new", "1")
    assert (dop.latest / "report.html").is_file()
    (dop.latest / "report.html").unlink()
    (dop.latest / "report.html" / "in-the-way").mkdir(parents=True)
    second = dop.buy(manifest, "-q")
    assert second.code == 0
    assert re.fullmatch(r"warning: \S+/report\.html could not be made \(.+\); the tables are there\n", second.err)
    assert [row["status"] for row in dop.rows(first.run)] == ["done", "done"]


def test_the_clips_of_two_runs_lie_side_by_side_and_the_kept_ones_come_as_one_zip(tmp_path: Path) -> None:
    with GatewayDouble(Script(key=KEY)) as gateway:
        dop = Dop(folder=tmp_path, base_url=gateway.base_url)
        assert dop.buy(dop.csv(shots(2))).code == 0
        first, theirs = dop.latest, dop.rows()
        assert dop.buy(dop.csv(shots(2, model="dop-turbo"))).code == 0
        ours, clips = dop.rows(), dop.videos()
        view = start_view(dop, "--as", "director")
    page = view.ask(f"{view.page}?with={first.name}").text
    assert page.count('<article class="cell done"') == 4
    assert all(f'scope="col"><small>run</small>{run.name}<' in page for run in (first, dop.latest)), "equal names"
    foreign = {"request_id": theirs[0]["request_id"], "verdict": "keep"}
    own = {"request_id": ours[1]["request_id"], "verdict": "keep"}
    assert view.save(foreign).status == 400, "a clip that the page does not show"
    changes = json.dumps({"changes": [foreign, own]}).encode()
    address = f"{view.page}reviews?with={first.name}"
    own_page = {"Origin": view.origin, "Content_Type": "application/json"}
    assert view.ask(address, method="POST", body=changes, **own_page).status == 200
    assert view.ask(f"{view.page}?with=absent").status == 404

    alone = zipfile.ZipFile(io.BytesIO(view.ask(f"{view.page}kept.zip").body))
    assert alone.namelist() == [clips[1].name]
    assert alone.read(clips[1].name) == clips[1].read_bytes()
    both = zipfile.ZipFile(io.BytesIO(view.ask(f"{view.page}kept.zip?with={first.name}").body))
    assert len(both.namelist()) == 2
    assert both.testzip() is None
    assert view.interrupt() == 0
    dop.end_all()
