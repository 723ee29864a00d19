"""Readers' decisions: kept and never changed, travelling as CSV, served to our own pages alone, and compared."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import http.client
import io
import json
import random
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import urllib.parse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score
from typer.testing import CliRunner

from detector.batch.manifest import write_manifest
from detector.cli import app
from detector.errors import DetectorError
from detector.export.phantoms import write_dicom
from detector.review import STORE, Decision, Review, ReviewServer, Store, read_decisions, write_decisions
from detector.review.agreement import agreements, cohens_kappa, tallies
from detector.review.decisions import COLUMNS, WORDS
from detector.review.server import check_access, is_loopback
from detector.settings import Settings
from tests.review_cases import four_views, make_results, make_view

TOKEN = "a-token-of-more-than-16"
ROOT = Path(__file__).parents[1]


def decision(number: int = 1, reader: str = "Ann", word: str = "accept", **changes: str) -> Decision:
    values = dict.fromkeys(COLUMNS, "") | {
        "decision_id": f"{number:08x}",
        "time": "2026-01-02T03:04:05.678Z",
        "reviewer": reader,
        "version": "1.0",
        "case_id": "case 1",
        "image_id": "1.2.3",
        "target": "cluster",
        "cluster_id": "1",
        "row_px": "10.5",
        "col_px": "20.25",
        "decision": word,
        "blind": "false",
    }
    return Decision.of(values | changes)


def opinion(number: int, reader: str, word: str, case: str = "case 1", blind: str = "false") -> Decision:
    about = {"target": "case", "image_id": "", "cluster_id": "", "row_px": "", "col_px": ""}
    return decision(number, reader, word, case_id=case, blind=blind, **about)


# --------------------------------------------------------------------------------------------------------- decisions


@pytest.mark.parametrize(
    "changes",
    [
        {"decision_id": "../x"},
        {"time": "yesterday"},
        {"time": "2026-01-02"},
        {"reviewer": ""},
        {"reviewer": " Ann"},
        {"reviewer": "Ann\u202eneB"},
        {"reviewer": "A" * 61},
        {"comment": "c" * 2001},
        {"target": "patient"},
        {"decision": "yes"},
        {"image_id": ""},
        {"cluster_id": "one"},
        {"row_px": "nan"},
        {"row_px": "=1+1"},
        {"blind": "perhaps"},
        {"case_id": ""},
    ],
)
def test_what_is_no_decision_is_refused_by_name(changes: Mapping[str, str]) -> None:
    with pytest.raises(DetectorError, match=next(iter(changes))):
        decision(**changes)  # type: ignore[arg-type]
    with pytest.raises(DetectorError, match="needs the text comment"):
        Decision.of({name: value for name, value in decision().to_mapping().items() if name != "comment"})


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="'\r\x00"), max_size=50)


@given(
    st.lists(TEXT | st.sampled_from(["=1+1", "a;=b", "-x", " @y", '"', ",", "a\nb", "a\n=b", "\n\n =b"]), max_size=5)
)
@example(["\n=", ",="])
def test_decisions_travel_as_csv_without_change_and_no_cell_is_a_formula(comments: list[str]) -> None:
    with contextlib.ExitStack() as stack:
        import tempfile

        file = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "decisions.csv"
        sent = [decision(i, comment=comment, case_id=f"={i}") for i, comment in enumerate(comments)]
        write_decisions(file, sent)
        assert read_decisions(file) == sent
        text = file.read_text("utf-8")
        assert text.splitlines()[0] == ",".join(COLUMNS)
        # some spreadsheets split at semicolons, and take a line for a row
        cells = [cell for row in csv.reader(io.StringIO(text, newline="")) for cell in row]
        parts = [part.lstrip() for cell in cells for part in re.split(r"[;\r\n]", cell)]
        assert not any(part.startswith(tuple("=+-@＝＋－＠")) for part in parts)


def test_a_file_that_holds_no_decisions_is_named_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "decisions.csv"
    write_decisions(file, [decision(1), decision(2)])
    file.write_text(file.read_text("utf-8").replace("accept", "perhaps", 1), "utf-8")
    with pytest.raises(DetectorError, match=r"decisions\.csv, line 2: decision of a decision is 'perhaps'"):
        read_decisions(file)
    with pytest.raises(DetectorError, match="cannot be read"):
        read_decisions(tmp_path / "none.csv")


# ------------------------------------------------------------------------------------------------------------- store


def test_decisions_are_appended_and_never_changed(tmp_path: Path) -> None:
    store = Store(tmp_path / STORE)
    first, second = decision(1), decision(2, word="reject")
    assert store.add([first]) == [first.decision_id]
    assert store.add([first, second]) == [first.decision_id, second.decision_id]  # sent again
    with pytest.raises(DetectorError, match="another decision with the id"):
        store.add([decision(3), decision(1, word="reject")])
    assert [d for d, _ in Store(tmp_path / STORE).all()] == [first, second]  # all or none
    with contextlib.closing(sqlite3.connect(tmp_path / STORE)) as file:
        for change in ("UPDATE decisions SET decision = 'reject'", "DELETE FROM decisions"):
            with pytest.raises(sqlite3.IntegrityError, match="never"):
                file.execute(change)


def test_a_reader_sees_others_decisions_only_after_his_own(tmp_path: Path) -> None:
    store = Store(tmp_path / STORE)
    hers, other = decision(1, "Ann"), decision(2, "Ann", cluster_id="2", row_px="99")
    drawn = decision(3, "Ann", "added", target="missed", cluster_id="m1", radius_px="5")
    store.add([hers, other, drawn, opinion(4, "Ann", "yes")])
    assert store.visible("Ben") == []
    store.add([decision(5, "Ben", "", comment="hm")])  # a comment is no decision
    assert [d.reviewer for d in store.visible("Ben")] == ["Ben"]
    own = decision(6, "Ben", "reject")
    store.add([own])
    assert {d.decision_id for d in store.visible("Ben")} == {"00000001", "00000005", "00000006"}
    store.add([opinion(7, "Ben", "no")])
    assert {d.decision_id for d in store.visible("Ben")} >= {"00000003", "00000004"}
    assert "00000002" not in {d.decision_id for d in store.visible("Ben")}
    assert store.visible("Ben", "another case") == []
    assert store.visible("") == []


def test_a_cluster_of_another_place_is_another_thing(tmp_path: Path) -> None:
    store = Store(tmp_path / STORE)
    store.add([decision(1, "Ann"), decision(2, "Ben", row_px="11.5")])
    assert [d.reviewer for d in store.visible("Ben")] == ["Ben"]


def test_many_at_once_lose_nothing(tmp_path: Path) -> None:
    def work(reader: int) -> None:
        store = Store(tmp_path / STORE)
        for i in range(15):
            store.add([decision(100 * reader + i, f"R{reader}")])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(Store(tmp_path / STORE).all()) == 60


def test_a_store_that_is_none_of_ours_is_named(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no database, but some text that is long enough to be looked at" * 20)
    with pytest.raises(DetectorError, match="cannot be kept in"):
        Store(tmp_path / "text")
    with contextlib.closing(sqlite3.connect(tmp_path / "new")) as file:
        file.execute("PRAGMA user_version = 99")
    with pytest.raises(DetectorError, match="another version"):
        Store(tmp_path / "new")


# --------------------------------------------------------------------------------------------------------- agreement


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=40))
def test_kappa_is_that_of_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    one, two = np.array(pairs).T
    table = np.zeros((3, 3))
    np.add.at(table, (one, two), 1)
    ours = cohens_kappa(table)
    if len(set(one) | set(two)) == 1:
        assert np.isnan(ours)
    else:
        assert ours == pytest.approx(cohen_kappa_score(one, two))


def test_kappa_of_a_published_table() -> None:
    # Fleiss, Levin, Paik 2003, doi 10.1002/0471445428, table 18.1: two raters, 100 patients, kappa 0.68
    assert cohens_kappa(np.array([[75, 1, 4], [5, 4, 1], [0, 0, 10]])) == pytest.approx(0.676, abs=5e-4)


def test_agreement_counts_what_was_decided_before_the_others_was_seen() -> None:
    kept = [
        (decision(1, "Ann", "reject"), "t1"),
        (decision(2, "Ann", "accept"), "t2"),  # corrected before Ben has decided
        (decision(3, "Ben", "unsure"), "t3"),
        (decision(4, "Ben", "accept"), "t4"),  # after he has seen hers
        (decision(5, "Ann", "accept", cluster_id="2"), "t5"),  # decided by one alone
        (opinion(6, "Ann", "yes"), "t6"),
        (opinion(7, "Ben", "yes", blind="true"), "t7"),  # another question
    ]
    (found,) = agreements(kept, "cluster")
    words = WORDS["cluster"][:-1]
    expected = np.zeros((3, 3), int)
    expected[words.index("accept"), words.index("unsure")] = 1
    assert found.readers == ("Ann", "Ben") and (found.table == expected).all() and found.n_cases == 1
    assert agreements(kept, "case") == []
    ann, ben = tallies(kept)
    assert ann.clusters == {"accept": 2, "reject": 0, "unsure": 0} and ann.cases["yes"] == 1
    assert ben.clusters["accept"] == 1 and ben.blind["yes"] == 1 and ben.missed == 0


def test_an_interval_is_given_from_ten_cases_up_and_holds_the_value() -> None:
    def kept(n_cases: int) -> list[tuple[Decision, str]]:
        answers = random.Random(3)
        rows: list[tuple[Decision, str]] = []
        for i in range(n_cases):
            for reader in ("Ann", "Ben"):
                word = ("yes", "no")[(i % 2) ^ (answers.random() < 0.15)]
                rows.append((opinion(len(rows), reader, word, f"case {i}"), f"t{len(rows):04}"))
        return rows

    (few,) = agreements(kept(9), "case")
    assert np.isnan(few.kappa.low) and "9 cases, fewer than 10" in few.kappa.note
    (many,) = agreements(kept(60), "case")
    assert many.kappa.low < many.kappa.value < many.kappa.high < 1


# ------------------------------------------------------------------------------------------------------------ server


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_results(tmp_path_factory.mktemp("results"), {"case 1": four_views("1")})


@contextlib.contextmanager
def serving(folder: Path, store: Path, **review: Any) -> Iterator[ReviewServer]:
    host = review.pop("host", "127.0.0.1")
    server = ReviewServer(Review(folder, Store(store), **review), host)
    server.start()
    yield server
    server.stop()


def ask(
    server: ReviewServer,
    path: str,
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    method: str = "",
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    connection.request(method or ("POST" if body is not None else "GET"), path, body, dict(headers or {}))
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}, content


def post(server: ReviewServer, rows: Any, **changes: str | None) -> int:
    own = f"http://127.0.0.1:{server.server_port}"
    headers = {"Content-Type": "application/json", "X-Detector": "1", "Origin": own} | {
        name.replace("_", "-"): value for name, value in changes.items()
    }
    body = rows if isinstance(rows, bytes) else json.dumps({"decisions": rows}).encode()
    return ask(server, "/api/decisions", {k: v for k, v in headers.items() if v is not None}, body)[0]


def test_our_own_pages_are_served_and_nothing_else(results: Path, tmp_path: Path) -> None:
    page = next((results / "report").glob("*.html"))
    with serving(results, tmp_path / STORE) as server:
        assert ask(server, "/")[1]["location"] == "/report.html"
        for path in ("/report.html", f"/report/{page.name}", f"/report/thumbnails/{page.stem}.jpg", "/errors.csv"):
            status, headers, content = ask(server, path)
            assert status == 200 and content == (results / path[1:]).read_bytes()
            assert headers["x-frame-options"] == "DENY" and headers["x-content-type-options"] == "nosniff"
            assert headers["cache-control"] == "no-store"
            assert "access-control-allow-origin" not in headers
            assert ask(server, path, method="HEAD")[2] == b""
        for path in (
            "/images.csv",
            "/decisions.sqlite",
            "/manifest.json",
            "/report/key",
            "/report/../manifest.json",
            "/report/..%2f..%2fetc%2fpasswd",
            "//etc/passwd",
            "/report/none.html",
            "/readings/",
            "/api/identity?case_id=case+1",
        ):
            assert ask(server, path, {"X-Detector": "1"})[0] == 404, path
        assert ask(server, "/report.html", method="DELETE")[0] == 501


def test_a_decision_is_kept_and_given_back(results: Path, tmp_path: Path) -> None:
    with serving(results, tmp_path / STORE) as server:
        row = decision(comment='<b>&"', case_id="case 1").to_mapping()
        assert post(server, [row]) == 200
        assert post(server, [row]) == 200  # sent again
        query = urllib.parse.urlencode({"reviewer": "Ann", "case_id": "case 1"})
        status, _, content = ask(server, f"/api/decisions?{query}", {"X-Detector": "1"})
        assert status == 200 and json.loads(content) == {"decisions": [row]}
        status, headers, content = ask(server, "/decisions.csv?reviewer=Ann")
        assert "decisions.csv" in headers["content-disposition"] and content.count(b"\r\n") == 2
        assert ask(server, "/decisions.csv?reviewer=Ben")[2].count(b"\r\n") == 1
        assert b"&lt;b&gt;" not in ask(server, "/agreement?reviewer=%3Cb%3E")[2].split(b"<main>")[0].split(b"<h1>")[0]
        assert b"<b>" not in ask(server, "/agreement?reviewer=%3Cb%3E")[2].split(b"<body")[1]


@pytest.mark.parametrize(
    "changes",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": None},
        {"Origin": "http://127.0.0.1:1"},
        {"Content_Type": "text/plain"},
        {"Content_Type": "application/x-www-form-urlencoded"},
        {"X_Detector": None},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Host": "evil.example"},
        {"Host": "evil.example:80"},
    ],
)
def test_a_post_that_is_not_of_our_own_page_is_refused(
    changes: Mapping[str, str | None], results: Path, tmp_path: Path
) -> None:
    with serving(results, tmp_path / STORE) as server:
        assert post(server, [decision().to_mapping()], **changes) in (403, 415, 421)
        assert server.review.store.all() == []
        assert post(server, [decision().to_mapping()]) == 200


def test_a_name_that_resolves_to_this_machine_is_not_enough(results: Path, tmp_path: Path) -> None:
    with serving(results, tmp_path / STORE) as server:
        port = server.server_port
        for host in (f"evil.example:{port}", f"127.0.0.1.evil.example:{port}", "localhost", f"10.1.2.3:{port}", ""):
            assert ask(server, "/report.html", {"Host": host})[0] == 421, host
        for host in (f"localhost:{port}", f"LOCALHOST:{port}", f"127.0.0.1:{port}", f"[::1]:{port}"):
            assert ask(server, "/report.html", {"Host": host})[0] == 200, host


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no json",
        b"[]",
        b'{"decisions": 1}',
        b'{"decisions": [1]}',
        b'{"decisions": [{}]}',
        b'{"decisions": [' + b"{}," * 1001 + b"{}]}",
        b"\xff\xfe",
        b"[" * 100_000,
    ],
)
def test_what_is_no_decision_does_no_harm(body: bytes, results: Path, tmp_path: Path) -> None:
    with serving(results, tmp_path / STORE) as server:
        with contextlib.suppress(http.client.RemoteDisconnected, ConnectionResetError):
            assert post(server, body) == 400
        assert post(server, b"x", Content_Length="99999999999") == 413
        assert post(server, b"x", Content_Length="-1") == 411
        assert server.review.store.all() == []
        assert post(server, [decision().to_mapping()]) == 200


def test_beyond_this_machine_nothing_is_served_without_a_token(results: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / STORE)
    for host in ("0.0.0.0", "::", "192.168.1.1", "example.org"):
        with pytest.raises(DetectorError, match="can be reached from other machines: give a --token"):
            ReviewServer(Review(results, store), host)
        with pytest.raises(DetectorError, match="patients are shown on this machine alone"):
            check_access(host, Review(results, store, TOKEN, show_identity=True))
    with pytest.raises(DetectorError, match="at least 16"):
        ReviewServer(Review(results, store, "short"))
    assert all(map(is_loopback, ("127.0.0.1", "127.1.2.3", "::1", "localhost")))
    with serving(results, tmp_path / STORE, host="0.0.0.0", token=TOKEN) as server:
        own = {"Host": f"127.0.0.1:{server.server_port}"}
        page = next((results / "report").glob("*.html")).name
        for path in ("/", "/report.html", f"/report/{page}", "/decisions.csv?reviewer=Ann", "/agreement"):
            assert ask(server, path, own)[0] == 401
            assert ask(server, path, own | {"Cookie": "detector_review=x"})[0] == 401
        assert ask(server, "/report.html?token=wrong-token-of-some-length", own)[0] == 401
        assert post(server, [decision().to_mapping()]) == 401
        status, headers, _ = ask(server, f"/report.html?token={TOKEN}", own)
        assert status == 303 and headers["location"] == "/report.html"
        cookie = headers["set-cookie"]
        assert "HttpOnly" in cookie and "SameSite=Strict" in cookie and TOKEN not in cookie
        let_in = {"Cookie": cookie.partition(";")[0]}
        assert ask(server, "/report.html", own | let_in)[0] == 200
        assert post(server, [decision().to_mapping()], **let_in) == 200
        assert ask(server, "/report.html", let_in | {"Host": f"evil.example:{server.server_port}"})[0] == 421
        assert TOKEN in server.url


def test_a_port_that_is_taken_is_named(results: Path, tmp_path: Path) -> None:
    taken = r"port \d+: .*choose another --host or --port"
    with serving(results, tmp_path / STORE) as server, pytest.raises(DetectorError, match=taken):
        ReviewServer(server.review, port=server.server_port)


# ---------------------------------------------------------------------------------------------------------- identity


def test_the_patient_is_read_for_the_screen_and_stored_nowhere(tmp_path: Path) -> None:
    import pydicom

    import detector

    images, out = tmp_path / "images", tmp_path / "out"
    images.mkdir()
    mammogram, reading = make_view("1.2.3", "L", "CC", "left")
    path = write_dicom(images / "a.dcm", mammogram)
    header = pydicom.dcmread(path)
    header.PatientName, header.PatientID, header.PatientBirthDate = "Doevinski^<b>Jane", "ID-77", "19600102"
    header.save_as(path)
    known = detector.read_mammogram(path).identity
    identity = dataclasses.replace(reading.identity, path="a.dcm", sha256=known.sha256)
    make_results(out, {"case 1": [(mammogram, dataclasses.replace(reading, identity=identity))]})
    with serving(out, tmp_path / STORE, show_identity=True, images=(images,)) as server:
        found = json.loads(ask(server, "/api/identity?case_id=case+1", {"X-Detector": "1"})[2])
        assert found == {"patients": [{"name": "Doevinski <b>Jane", "id": "ID-77", "birth_date": "19600102"}]}
        header.PatientName = "Somebody^Else"
        header.save_as(path)  # no longer the file that was analysed
        found = json.loads(ask(server, "/api/identity?case_id=case+1", {"X-Detector": "1"})[2])
        assert found == {"patients": []}
    for file in (*out.rglob("*"), tmp_path / STORE):
        held = re.findall(rb"Doevinski|ID-77|19600102", file.read_bytes()) if file.is_file() else []
        assert not held, file


# ----------------------------------------------------------------------------------------------------------- command


def call(*arguments: object) -> Any:
    return CliRunner().invoke(app, list(map(str, arguments)))


def test_decisions_go_in_and_out_by_command(results: Path, tmp_path: Path) -> None:
    out = make_results(tmp_path / "out", {"case 1": four_views("1")})
    write_decisions(tmp_path / "in.csv", [decision(1), decision(2, "Ben")])
    for _ in range(2):
        said = call("review", out, "--import", tmp_path / "in.csv", "--export", tmp_path / "out.csv")
        assert said.exit_code == 0 and "2 decisions in" in said.output
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "in.csv").read_bytes()


def test_what_cannot_be_served_is_named(results: Path, tmp_path: Path) -> None:
    with pytest.raises(DetectorError, match="holds no results of a run"):
        raise call("review", tmp_path).exception
    with pytest.raises(DetectorError, match="holds no results of a run"):
        raise call("report", tmp_path).exception
    write_manifest(tmp_path, {"settings": Settings().to_mapping()})
    with pytest.raises(DetectorError, match="holds no review pages; detector report"):
        raise call("review", tmp_path).exception
    with pytest.raises(DetectorError, match="give a --token"):
        raise call("review", results, "--host", "0.0.0.0", "--port", 0).exception


@pytest.mark.long
def test_a_server_killed_at_any_moment_loses_no_decision_that_it_has_acknowledged(tmp_path: Path) -> None:
    out = make_results(tmp_path / "out", {"case 1": four_views("1")})
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    moments, number = random.Random(5), 0
    acknowledged: set[str] = set()
    for _ in range(15):
        command = [
            sys.executable,
            "-c",
            "from detector.cli import main; main()",
            "review",
            str(out),
            "--port",
            str(port),
        ]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None and process.stdout.readline().startswith("http")
        killer = threading.Timer(moments.uniform(0.05, 0.6), process.send_signal, [signal.SIGKILL])
        killer.start()
        with contextlib.suppress(OSError, http.client.HTTPException):
            while True:
                number += 1
                row = decision(number).to_mapping()
                own = {"Content-Type": "application/json", "X-Detector": "1", "Origin": f"http://127.0.0.1:{port}"}
                # closed however the server dies: an answer that breaks off holds the socket
                with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
                    connection.request("POST", "/api/decisions", json.dumps({"decisions": [row]}), own)
                    with connection.getresponse() as answer:
                        acknowledged |= set(json.loads(answer.read())["saved"])
        killer.join()
        process.wait()
        process.stdout.close()
        kept = {d.decision_id for d, _ in Store(out / STORE).all()}
        assert acknowledged <= kept
        assert kept <= {f"{i:08x}" for i in range(number + 1)}
    assert len(acknowledged) > 50
