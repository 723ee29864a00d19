"""What is made of a case as soon as its last file is done is what would be made of it at the end of the run."""

import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from detector.batch import Job, Limits, early, run_batch
from detector.batch import run as batch_run
from detector.batch.cases import CaseTask
from detector.batch.early import Groups, HeaderTask, Known
from detector.batch.pool import Lost, Tasks
from detector.batch.studies import StudyTask
from detector.batch.work import Task
from detector.evaluate.phantoms import Recipe, make_phantom
from detector.export.phantoms import write_dicom
from tests.dicom_files import breast_pixels, make_mammogram, save
from tests.dicom_studies import make_study

ROOT = Path(__file__).parents[1]
FORMATS = frozenset({"csv", "overlay", "report", "sr", "gsps"})
TABLES = ("images.csv", "spots.csv", "clusters.csv", "errors.csv", "skipped.csv")
SMALL = {"rows": 300, "cols": 240, "spacing_mm": 0.3}


def change(path: Path, to: Path, **values: object) -> None:
    """Write a DICOM file with other values; None takes an element away."""
    dataset = pydicom.dcmread(path)
    for keyword, value in values.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    dataset.save_as(to)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of studies that have to do with one another in every way that may be."""
    folder = tmp_path_factory.mktemp("images")
    make_study(folder / "1")
    for case in (2, 3, 4, 5):
        (folder / str(case)).mkdir()
        for view in ("CC", "MLO"):
            phantom = make_phantom(case, Recipe(side="L", view=view, **SMALL))[0]  # type: ignore[arg-type]
            write_dicom(folder / f"{case}/{view}.dcm", phantom, case=case)
    # of study 3 one file is cut and one has no spacing; an image of study 2 has the UID of one of 4, and comes first;
    # one of 4 shares its exposure with one of 5, which counts
    whole = (folder / "3/CC.dcm").read_bytes()
    (folder / "3/CC.dcm").write_bytes(whole[:-9])
    change(folder / "3/MLO.dcm", folder / "3/bare.dcm", SOPInstanceUID="1.2.5", ImagerPixelSpacing=None)
    uid = pydicom.dcmread(folder / "4/CC.dcm").SOPInstanceUID
    change(folder / "2/CC.dcm", folder / "2/again.dcm", SOPInstanceUID=uid)
    change(folder / "4/MLO.dcm", folder / "4/MLO.dcm", IrradiationEventUID="1.2.3", PresentationIntentType=None)
    change(folder / "5/MLO.dcm", folder / "5/MLO.dcm", IrradiationEventUID="1.2.3")
    save(folder / "frames.dcm", make_mammogram(np.stack([breast_pixels(seed=i) for i in range(2)])))
    change(folder / "1/LCC.dcm", folder / "none.dcm", StudyInstanceUID=None, SOPInstanceUID="1.2.4")
    (folder / "notes.txt").write_text("no image")
    return folder


class Here:
    """Does the work in this process, in an order by chance or as it comes, and remembers what was done in each call."""

    def __init__(self, seed: int = 0, most: int = 1000) -> None:
        self.calls: list[list[Any]] = []
        self._chance, self._most = np.random.default_rng(seed) if seed else None, most

    def __call__(self, tasks: Iterable[Any], work: Any, *_: object) -> Iterator[tuple[Any, Any]]:
        self.calls.append([])
        while tasks and self._most:
            assert isinstance(tasks, Tasks | list)
            task = tasks.pop(0) if isinstance(tasks, list) else self._take(tasks)
            self.calls[-1].append(task)
            self._most -= isinstance(task, Task)
            yield task, self.result(task, work)

    def _take(self, tasks: Tasks[Any]) -> Any:
        tasks.rotate(-int(self._chance.integers(len(tasks))) if self._chance else 0)
        return tasks.popleft()

    def result(self, task: Any, work: Any) -> Any:
        return work(task)


class AtTheEnd(Here):
    """Leaves all that is added meanwhile to the end."""

    def __call__(self, tasks: Iterable[Any], work: Any, *rest: object) -> Iterator[tuple[Any, Any]]:
        return super().__call__(list(tasks), work, *rest)


def run(images: Path, out: Path, here: Here) -> Path:
    run_batch(Job((images,), out, formats=FORMATS), runner=here)
    return out


def results(out: Path) -> Mapping[str, bytes]:
    """Return the names of all results, with the bytes of those that do not tell of times."""
    found = {}
    for path in (p for p in out.rglob("*") if p.is_file()):
        name = path.relative_to(out).as_posix()
        found[name] = path.read_bytes() if name in TABLES or name.startswith(("dicom/", "overlays/")) else b""
    return found


@pytest.fixture(scope="module")
def expected(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, bytes]:
    return results(run(images, tmp_path_factory.mktemp("expected") / "out", AtTheEnd()))


@pytest.mark.parametrize("seed", range(4))
def test_in_whatever_order_files_are_done_the_results_are_those_of_the_end(
    images: Path, tmp_path: Path, expected: Mapping[str, bytes], seed: int
) -> None:
    here = Here(seed)
    assert results(run(images, tmp_path, here)) == expected
    assert any(isinstance(task, StudyTask) for task in here.calls[0])
    for path in tmp_path.rglob("cad_sr.dcm"):  # none was made of a part of its study
        assert "PredecessorDocumentsSequence" not in pydicom.dcmread(path)


def test_two_workers_make_the_same(images: Path, tmp_path: Path, expected: Mapping[str, bytes]) -> None:
    run_batch(Job((images,), tmp_path, formats=FORMATS, limits=Limits(2)))
    assert results(tmp_path) == expected


def test_objects_and_pages_follow_the_last_file_of_a_case(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(early, "_FILES_PER_TASK", 9)
    here = Here()
    run(images, tmp_path, here)
    kinds = [type(task) for task in here.calls[0]]
    assert kinds[:3] == [HeaderTask, HeaderTask, Task]  # of 17 files
    first = kinds.index(StudyTask)
    assert [str(task.path.relative_to(images)) for task in here.calls[0][2:first]] == [
        f"1/{name}.dcm" for name in ("LCC", "LMLO", "RCC", "RMLO")
    ]
    assert kinds[first : first + 3] == [StudyTask, CaseTask, Task]
    # left to the end are the frames, and what has no study
    late = [task for call in here.calls[1:] for task in call if not isinstance(task, Task)]
    assert {path.name for task in late if isinstance(task, StudyTask) for path in task.paths} == {
        "frames.dcm",
        "none.dcm",
    }
    assert sum(isinstance(task, StudyTask) for task in here.calls[0]) == 5
    assert sum(isinstance(task, CaseTask) for task in here.calls[0]) == 5


def test_a_failed_file_lets_its_case_finish(images: Path, tmp_path: Path) -> None:
    here = Here()
    run(images / "3", tmp_path, here)
    assert [type(task) for task in here.calls[0]] == [HeaderTask, Task, Task, Task, StudyTask, CaseTask]
    assert [len(call) for call in here.calls[1:]] == [0]  # nothing is left to the end


def test_a_resumed_run_makes_what_is_due_when_the_rest_of_a_case_is_done(
    images: Path, tmp_path: Path, expected: Mapping[str, bytes]
) -> None:
    run(images, tmp_path, Here(most=3))
    assert [p.name for p in (tmp_path / "report").glob("*.html")] == []
    assert list(tmp_path.rglob("cad_sr.dcm")) == []
    here = Here(most=3)
    run(images, tmp_path, here)
    kinds = [type(task) for task in here.calls[0]]
    assert kinds[:4] == [HeaderTask, Task, StudyTask, CaseTask]
    run(images, tmp_path, Here())
    assert results(tmp_path) == expected


def test_headers_that_cost_their_worker_leave_all_to_the_end(
    images: Path, tmp_path: Path, expected: Mapping[str, bytes]
) -> None:
    class Losing(Here):
        def result(self, task: Any, work: Any) -> Any:
            return Lost("Crash", "") if isinstance(task, HeaderTask) else work(task)

    here = Losing()
    assert results(run(images, tmp_path, here)) == expected
    assert {type(task) for task in here.calls[0]} == {HeaderTask, Task}


def test_what_is_lost_on_the_way_is_made_at_the_end(
    images: Path, tmp_path: Path, expected: Mapping[str, bytes]
) -> None:
    class Losing(Here):
        def result(self, task: Any, work: Any) -> Any:
            early = len(self.calls) == 1 and isinstance(task, StudyTask | CaseTask)
            return Lost("Crash", "") if early else work(task)

    assert results(run(images, tmp_path, Losing())) == expected


def test_without_objects_and_pages_no_header_is_read(images: Path, tmp_path: Path) -> None:
    here = Here()
    run_batch(Job((images / "1",), tmp_path), runner=here)
    assert {type(task) for task in here.calls[0]} == {Task}


def test_the_worklist_is_there_before_the_end(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Dying(Here):
        def result(self, task: Any, work: Any) -> Any:
            if sum(isinstance(done, CaseTask) for done in self.calls[0]) == 1 and isinstance(task, Task):
                raise KeyboardInterrupt
            return work(task)

    monkeypatch.setattr(batch_run, "_TABLES_S", 0.0)
    with pytest.raises(KeyboardInterrupt):
        run(images, tmp_path, Dying())
    (page,) = tmp_path.glob("report/*.html")
    assert page.stem in (tmp_path / "report.html").read_text("utf-8")


@pytest.mark.skipif(sys.platform == "win32", reason="kills by a signal")
def test_a_run_killed_in_the_middle_has_what_its_finished_cases_are_due(
    images: Path, tmp_path: Path, expected: Mapping[str, bytes]
) -> None:
    out = tmp_path / "out"
    killed = subprocess.run([sys.executable, "-c", KILLED, images, out, *sorted(FORMATS)], cwd=ROOT, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not (out / "images.csv").exists()  # tables are of the end
    pages, reports = list(out.glob("report/*.html")), list(out.glob("dicom/*/cad_sr.dcm"))
    assert pages and reports
    before = [path.read_bytes() for path in reports]
    run(images, out, Here())
    assert results(out) == expected
    assert [path.read_bytes() for path in reports] == before


KILLED = """
import os, pathlib, signal, sys
from detector.batch import Job, Limits, run_batch

images, out = map(pathlib.Path, sys.argv[1:3])

def tell(progress):
    if list(out.glob("report/*.html")) and list(out.glob("dicom/*/cad_sr.dcm")):
        os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    run_batch(Job((images,), out, formats=frozenset(sys.argv[3:]), limits=Limits(2)), tell)
"""
"""Dies with the first file that is done after a case is finished."""


# --------------------------------------------------------------------------------------------------------------
# groups


@given(
    st.lists(st.tuples(st.sets(st.integers(0, 12), max_size=3), st.booleans(), st.booleans()), max_size=25),
    st.randoms(use_true_random=False),
)
def test_groups_are_connected_components(files: Sequence[tuple[set[int], bool, bool]], chance: Any) -> None:
    keys = [str(i) for i in range(len(files))]
    known = {k: Known(tuple(map(str, links)), whole) for k, (links, whole, _) in zip(keys, files, strict=True)}
    due = [Task(key, Path(key), key) for key, (_, _, is_due) in zip(keys, files, strict=True) if is_due]
    groups = Groups(due, [(key, known[key]) for key in keys if key not in {t.key for t in due}], {})
    steps: list[Any] = [*due, *groups.tasks]
    chance.shuffle(steps)
    done: set[str] = set()
    finished: list[frozenset[str]] = []
    for step in steps:
        if isinstance(step, HeaderTask):
            more = list(groups.read({task.key: known[task.key] for task in step.files}))
        else:
            done.add(step.key)
            more = list(groups.done(step.key))
        for group in more:  # none before its last file is done
            assert {task.key for task in due} & set(group) <= done
            finished.append(frozenset(group))
    assert sorted(finished, key=sorted) == sorted(slow_groups(known, {task.key for task in due}), key=sorted)


def slow_groups(known: Mapping[str, Known], due: set[str]) -> list[frozenset[str]]:
    """Return the groups that files were due of and whose files are all whole, by the definition."""
    keys = list(known)
    pairs = [(i, j) for i, a in enumerate(keys) for j, b in enumerate(keys) if {*known[a].links} & {*known[b].links}]
    one, other = np.array(pairs, int).reshape(-1, 2).T
    graph = coo_array((np.ones(len(one)), (one, other)), shape=(len(keys), len(keys)))
    number = connected_components(graph, directed=False)[1] if keys else []
    groups = [frozenset(k for k, n in zip(keys, number, strict=True) if n == group) for group in set(number)]
    return [g for g in groups if g & due and all(known[key].whole for key in g)]
