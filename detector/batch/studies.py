"""The second stage of a study: its DICOM objects, from saved Readings, when all its files are done."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from detector.batch.ledger import ANALYSED, FAILED, Entry
from detector.batch.work import make_ready, unforeseen
from detector.errors import DetectorError, ExportError
from detector.export.files import file_stem, put_file, reading_name
from detector.records import Reading

OBJECT_FORMATS = ("sr", "tid1500", "gsps", "seg")
"""Formats that are DICOM objects, as `detector.export.dicom.FORMATS`."""
FOLDER = "dicom"
_STAMP = "made_of.json"


@dataclass(frozen=True)
class Image:
    """One image of a study: the key of its entry, its file, its saved Reading or nothing, and whether it counts."""

    key: str
    path: Path
    reading: str
    counts: bool


@dataclass(frozen=True)
class StudyTask:
    """One study whose objects are due, and a hash of all that they are made of."""

    study_uid: str
    images: tuple[Image, ...]
    stamp: str

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files that must be readable."""
        return tuple(image.path for image in self.images)


@dataclass(frozen=True)
class StudyOutcome:
    """What of a study was left out and why, by the keys of its images; and why the folder refuses, if it does."""

    left_out: dict[str, list[str]]
    refused: str = ""


@dataclass(frozen=True)
class StudyWork:
    """What the workers do with a study, as `pool.Work`."""

    folder: Path
    formats: tuple[str, ...]

    def prepare(self) -> str:
        """Import what the tasks need; say what is missing."""
        return make_ready("detector.export.dicom")

    def __call__(self, task: StudyTask, /) -> StudyOutcome:
        """Write the objects of a study."""
        try:
            left_out = self._write(task)
        except (ExportError, OSError) as error:
            return StudyOutcome({}, str(error))
        except MemoryError:
            raise
        except Exception as error:
            left_out = {image.key: [f"DICOM objects left out: {unforeseen(error)}"] for image in task.images}
        return StudyOutcome(left_out)

    def _write(self, task: StudyTask) -> dict[str, list[str]]:
        from detector.export.dicom import StudyImage, write_objects

        images = [StudyImage(i.path, self._reading(i.reading), i.counts) for i in task.images]
        keys = {image.path: image.key for image in task.images}
        lacks: dict[str, dict[str, list[str]]] = {}
        for written in write_objects(images, self.folder / FOLDER, self.formats):
            for path in written.paths if written.lacks else ():
                lacks.setdefault(keys[path], {}).setdefault(written.reason, []).append(written.format)
        left_out = {
            key: [f"{', '.join(formats)} left out: {reason}" for reason, formats in reasons.items()]
            for key, reasons in lacks.items()
        }
        content = json.dumps({"stamp": task.stamp, "left_out": left_out}).encode()
        put_file(stamp_file(self.folder, task.study_uid), content)
        return left_out

    def _reading(self, name: str) -> Reading | None:
        return Reading.from_json((self.folder / name).read_text("utf-8")) if name else None


@dataclass
class Studies:
    """What a run's images are to the second stage: who belongs together, what is due, what was left out.

    Attributes
    ----------
    folder : Path
        The result folder.
    formats : tuple of str
        Of `OBJECT_FORMATS`.
    left_out : dict
        What was left out and why, by the keys of the images.
    """

    folder: Path
    formats: tuple[str, ...]
    left_out: dict[str, list[str]] = field(default_factory=dict)

    def due(
        self, entries: Iterable[tuple[Entry, Path]], study_uids: Mapping[str, str], excluded: Collection[str]
    ) -> list[StudyTask]:
        """Return a task for each study whose objects are not made yet of what is there now.

        Parameters
        ----------
        entries : iterable of (Entry, Path)
            All files that were analysed or failed.
        study_uids : mapping
            Study Instance UIDs of the analysed ones, by key.
        excluded : collection of str
            Keys of images that do not count.
        """
        studies: dict[str, list[tuple[Entry, Image]]] = {}
        for entry, path in sorted(entries, key=lambda pair: pair[0].key):
            if entry.status not in (ANALYSED, FAILED):
                continue
            read = entry.status == ANALYSED
            study_uid = study_uids.get(entry.key, "") if read else study_of(path)
            if study_uid or read:
                reading = reading_name(entry.image_id) if read else ""
                image = Image(entry.key, path, reading, entry.key not in excluded)
                studies.setdefault(study_uid or entry.key, []).append((entry, image))
        return [task for uid, images in sorted(studies.items()) if (task := self._task(uid, images))]

    def _task(self, study_uid: str, images: Sequence[tuple[Entry, Image]]) -> StudyTask | None:
        facts = [[e.key, e.status, e.sha256, e.report, e.size, e.mtime_ns, i.counts] for e, i in images]
        stamp = hashlib.sha256(json.dumps([facts, self.formats]).encode()).hexdigest()
        try:
            made = json.loads(stamp_file(self.folder, study_uid).read_bytes())
            if made["stamp"] == stamp:
                self.left_out |= made["left_out"]
                return None
        except (OSError, ValueError, KeyError, TypeError):
            pass
        return StudyTask(study_uid, tuple(image for _, image in images), stamp)


def stamp_file(folder: Path, study_uid: str) -> Path:
    """Return the file that says what a study's objects were made of, beside them."""
    return folder / FOLDER / file_stem(study_uid) / _STAMP


def check_formats(formats: Collection[str], pseudonymise: bool) -> tuple[str, ...]:
    """Return which formats are DICOM objects, in order.

    Raises
    ------
    DetectorError
        If names are to be kept out of the results, which objects must hold.
    """
    wanted = tuple(name for name in OBJECT_FORMATS if name in formats)
    if wanted and pseudonymise:
        raise DetectorError(
            f"--pseudonymise and the formats {', '.join(wanted)} exclude each other: DICOM objects name the patient and"
            " the images that they belong to; leave out one of the two"
        )
    return wanted


def study_of(path: Path) -> str:
    """Return the Study Instance UID of a file, or nothing if it cannot be told."""
    from detector.export.dicom import study_uid_of

    return study_uid_of(path)
