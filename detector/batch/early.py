"""Cases that are finished while a run goes on: their objects and pages are made at once, by the same workers.

Which file is a case's last is told by the headers, read first. Files that share a study, a case, an exposure or an
image id are a group; once its last file is done, nothing that still comes can change what is made of it. What no header
tells (the frames of a file that holds several, images without a study or a UID) waits for the end of the run, which
also makes anew whatever has turned out otherwise.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from detector.batch.cases import CaseOutcome, CaseTask, CaseWork
from detector.batch.pool import Lost
from detector.batch.studies import StudyOutcome, StudyTask, StudyWork, study_of
from detector.batch.work import FileWork, Outcome, Plan, Task, shown_identity
from detector.errors import ReadError

_FILES_PER_TASK = 16
"""Headers that are read at once: one takes some milliseconds, as long as it takes to hand out a task."""


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a file before it is analysed.

    Attributes
    ----------
    links : tuple of str
        What it may share with others.
    whole : bool
        Whether nothing else can link it to others.
    """

    links: tuple[str, ...] = ()
    whole: bool = True

    @classmethod
    def of(cls, study_uid: str, image_id: str, exposure_id: str, n_frames: int = 1) -> Known:
        """Return what an image's names link it to."""
        names = (("case", study_uid), ("image", image_id), ("exposure", exposure_id))
        whole = bool(study_uid and image_id) and n_frames == 1
        return cls(tuple(f"{kind} {name}" for kind, name in names if name), whole)

    @classmethod
    def of_failed(cls, study_uid: str) -> Known:
        """Return what links a file that fails: its study's objects tell of it."""
        return cls((f"case {study_uid}",) if study_uid else ())

    @classmethod
    def of_duplicate(cls, image_id: str) -> Known:
        """Return what links a file that is not taken."""
        return cls((f"image {image_id}",))


@dataclass(frozen=True)
class HeaderTask:
    """Files whose headers are read."""

    files: tuple[Task, ...]

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files that must be readable: none, each is the task of its own."""
        return ()


AnyTask = Task | HeaderTask | StudyTask | CaseTask


@dataclass(frozen=True)
class RunWork:
    """What the workers of a run do, as `pool.Work`: headers, files, and what is made of finished cases."""

    files: FileWork
    studies: StudyWork | None
    cases: CaseWork | None

    def prepare(self) -> str:
        """Make ready for all kinds of tasks; say what is missing."""
        return next((lack for work in (self.files, self.studies, self.cases) if work and (lack := work.prepare())), "")

    def __call__(self, task: AnyTask, /) -> Outcome | dict[str, Known] | StudyOutcome | CaseOutcome:
        """Do a task."""
        if isinstance(task, HeaderTask):
            return {file.key: read_known(self.files.plan, file, self.studies is not None) for file in task.files}
        if isinstance(task, StudyTask) and self.studies:
            return self.studies(task)
        if isinstance(task, CaseTask) and self.cases:
            return self.cases(task)
        return self.files(cast(Task, task))


def read_known(plan: Plan, task: Task, objects: bool) -> Known:
    """Return what the header of a file tells; one that will fail belongs to its study's objects, if there are any."""
    from detector.read import read_identity

    try:
        identity = read_identity(task.path, task.spacing_mm, plan.settings.read, force_spacing=plan.force_spacing)
    except ReadError:
        return Known.of_failed(study_of(task.path) if objects else "")
    identity = shown_identity(identity, plan, task)
    return Known.of(identity.study_uid, identity.image_id, identity.exposure_id, identity.n_frames)


class Early:
    """What is made while a run goes on; whatever fails here is tried again at its end, and told then.

    Parameters
    ----------
    groups : Groups or None
        None leaves all to the end.
    objects, pages : callable
        Return what is due for a group of files, by their keys; pages after the objects, whose lacks they show.
    left_out : dict
        Where what the objects lack is noted, by the keys of the images.
    """

    def __init__(
        self,
        groups: Groups | None,
        objects: Callable[[list[str]], list[StudyTask]],
        pages: Callable[[list[str]], list[CaseTask]],
        left_out: dict[str, list[str]],
    ) -> None:
        self._groups, self._objects, self._pages, self._left_out = groups, objects, pages, left_out
        self._at_work: dict[str, list[str]] = {}

    def heard(self, task: AnyTask, outcome: Any) -> Iterator[StudyTask | CaseTask]:
        """Take what has become of a task, and yield what is due now."""
        if self._groups is None:
            return
        if isinstance(task, HeaderTask):
            for keys in self._groups.read(outcome):
                yield from self._begin(keys)
        elif isinstance(task, Task):
            for keys in self._groups.done(task.key):
                yield from self._begin(keys)
        elif isinstance(task, StudyTask):
            if not isinstance(outcome, Lost):
                self._left_out |= outcome.left_out
            keys = self._at_work.pop(task.study_uid)
            if not any(other is keys for other in self._at_work.values()):
                yield from self._pages(keys)

    def _begin(self, keys: list[str]) -> Iterable[StudyTask | CaseTask]:
        objects = self._objects(keys)
        self._at_work |= {task.study_uid: keys for task in objects}
        return objects or self._pages(keys)


class Groups:
    """Which files have to do with one another, and which of these groups are finished.

    Parameters
    ----------
    due : sequence of Task
        The files that are still to be done.
    known : iterable of (str, Known)
        Keys of those that are done, and what is known of them.
    cases : mapping of str
        Case ids that are given, by key.
    """

    def __init__(self, due: Sequence[Task], known: Iterable[tuple[str, Known]], cases: Mapping[str, str]) -> None:
        starts = range(0, len(due), _FILES_PER_TASK)
        self.tasks = [HeaderTask(tuple(due[i : i + _FILES_PER_TASK])) for i in starts]
        self._unread = len(self.tasks)
        self._due = {task.key for task in due}
        self._early: list[str] = []
        self._cases = cases
        self._place: dict[str, int] = {}
        self._parent: list[int] = []
        self._first: dict[int, int] = {}
        self._open = set[int]()
        self._members: dict[int, list[str]] = {}
        self._left = Counter[int]()
        self._add(known)

    def read(self, outcome: Mapping[str, Known] | Lost) -> Iterator[list[str]]:
        """Take what headers have told; yield the keys of each group that is finished by then."""
        if isinstance(outcome, Lost):  # what these files belong to is not known: all waits for the end
            return
        self._add(outcome.items())
        self._unread -= 1
        if not self._unread:
            self._close()
            for key in self._early:
                yield from self.done(key)

    def done(self, key: str) -> Iterator[list[str]]:
        """Note that a file is done; yield the keys of its group if it was the last."""
        if self._unread:
            self._early.append(key)
            return
        group = self._place.get(key)
        if key in self._due and group in self._members:
            self._due.remove(key)
            self._left[group] -= 1
            if not self._left[group]:
                yield self._members.pop(group)

    def _add(self, known: Iterable[tuple[str, Known]]) -> None:
        for key, file in known:
            place = self._place[key] = len(self._parent)
            self._parent.append(place)
            links = [*file.links, f"case {self._cases[key]}"] if key in self._cases else file.links
            for link in links:
                # two links of one hash join two groups, which does no harm
                other = self._first.setdefault(hash(link), place)
                self._parent[self._root(place)] = self._root(other)
            if not file.whole:
                self._open.add(place)

    def _root(self, place: int) -> int:
        parent = self._parent
        while parent[place] != place:
            parent[place] = place = parent[parent[place]]
        return place

    def _close(self) -> None:
        """Number the groups; those that are open wait for the end."""
        opened = {self._root(place) for place in self._open}
        for key, place in self._place.items():
            self._place[key] = group = self._root(place)
            if group not in opened:
                self._members.setdefault(group, []).append(key)
                self._left[group] += key in self._due
        self._parent, self._first, self._open = [], {}, set()
