"""Kills, stops and starves runs on purpose; each must end, or be resumed, with the results of an undisturbed one.

    scripts/faults [--kills 30] [--steps 1] [--images 8] [--seed 1] [--only PART]

parent     kill -9 of the run at random moments, then the same command again
worker     kill -9 of a worker at random moments; the run goes on
stop       SIGTERM at random moments: it ends in good order with status 143, then the same command again
steps      the run dies at each of its steps on the disk in turn (every Nth with --steps N), then the same again;
           also in a run that starts --fresh over old results
full       the disk is full at random moments: one sentence and status 2, then room and the same command again
twice      a second run on a folder that is in use says so and stops, and does no harm

A line a fault; exit status 1 if anything was lost, done twice or left over. Linux.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"))

from detector.batch import Job, run_batch
from detector.errors import DetectorError
from detector.evaluate.phantoms import make_phantom
from detector.evaluate.recipes import Recipe
from detector.export.phantoms import write_dicom

ROOT = Path(__file__).resolve().parents[1]
TABLES = ("images.csv", "spots.csv", "clusters.csv", "errors.csv", "skipped.csv")
SMALL = Recipe(rows=400, cols=320, spacing_mm=0.25)
FORMATS = ("csv", "json", "overlay", "crops", "report", "sr")
_PATIENCE_S = 300.0

Bytes = Mapping[str, bytes]


class Loss(Exception):
    """Something was lost, done twice, or left over; the message says what."""


@dataclass(frozen=True)
class Scene:
    """Where it happens, and what must come out.

    Attributes
    ----------
    inputs, folder : Path
        Images, and a folder for results.
    expected : mapping of bytes
        What an undisturbed run left, by name.
    seconds : float
        How long it took.
    chance : Random
    """

    inputs: Path
    folder: Path
    expected: Bytes
    seconds: float
    chance: random.Random

    @property
    def out(self) -> Path:
        """The result folder."""
        return self.folder / "out"

    def moment(self) -> float:
        """Return a random moment of a run, in seconds from its start."""
        return self.chance.uniform(0.05, 1.0) * self.seconds


def make_images(folder: Path, number: int) -> Path:
    """Write phantoms, a copy of one, one under the UID of another, a cut one and a text."""
    folder.mkdir(parents=True)
    for seed in range(1, number + 1):
        write_dicom(folder / f"{seed}.dcm", make_phantom(seed, SMALL)[0], case=seed)
    shutil.copy(folder / "1.dcm", folder / "copy.dcm")
    whole = (folder / "1.dcm").read_bytes()
    (folder / "again.dcm").write_bytes(whole[:-2] + b"\1\1")
    (folder / "cut.dcm").write_bytes(whole[:-9])
    (folder / "notes.txt").write_text("no image")
    return folder


def start(inputs: Path, out: Path, *options: str, limit: int = 0) -> subprocess.Popen[str]:
    """Start a run in a process group of its own; `limit` is the largest file that it may write, in bytes."""
    code = "from detector.cli import main; main()"
    if limit:
        code = f"import resource as r; r.setrlimit(r.RLIMIT_FSIZE, ({limit}, {limit})); {code}"
    words = ["run", str(inputs), "--out", str(out), "--workers", "2", "--formats", ",".join(FORMATS), *options]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, "-c", code, *words], stdout=pipe, stderr=pipe, text=True, cwd=ROOT, start_new_session=True
    )


def end(process: subprocess.Popen[str], *statuses: int) -> str:
    """Wait for the end of a run, and return what it wrote to stderr.

    Raises
    ------
    Loss
        If it ends with another status.
    """
    _, errors = process.communicate(timeout=_PATIENCE_S)
    if process.returncode not in statuses:
        raise Loss(f"status {process.returncode} and not {statuses}: {errors.strip()}")
    if "Traceback" in errors:
        raise Loss(f"a traceback: {errors.strip()}")
    return errors


def finish(scene: Scene) -> None:
    """Give the command again, and look at what it leaves; the cut image makes it end with status 1."""
    end(start(scene.inputs, scene.out), 1)
    compare(scene)


def contents(out: Path) -> dict[str, bytes]:
    """Return tables, pictures and DICOM objects of a result folder, and the names of all else."""
    found = {}
    for path in sorted(p for p in out.rglob("*") if p.is_file()):
        name = str(path.relative_to(out))
        whole = name in TABLES or path.suffix in (".png", ".dcm")
        found[name] = path.read_bytes() if whole else b""
    return found


def compare(scene: Scene) -> None:
    """Compare a result folder with the undisturbed one.

    Raises
    ------
    Loss
    """
    found = contents(scene.out)
    if missing := scene.expected.keys() - found:
        raise Loss(f"missing: {', '.join(sorted(missing))}")
    if left := found.keys() - scene.expected:
        raise Loss(f"left over: {', '.join(sorted(left))}")
    if other := [name for name, content in scene.expected.items() if found[name] != content]:
        raise Loss(f"different: {', '.join(other)}")


# --------------------------------------------------------------------------------------------------------------
# the faults


def kill_parent(scene: Scene) -> str:
    """Kill the run at a random moment."""
    process = start(scene.inputs, scene.out)
    time.sleep(moment := scene.moment())
    process.kill()
    process.communicate()
    finish(scene)
    return f"after {moment:.2f} s"


def kill_worker(scene: Scene) -> str:
    """Kill a worker at a random moment after it has started."""
    process = start(scene.inputs, scene.out)
    workers: list[int] = []
    while process.poll() is None and not (workers := workers_of(process)):
        time.sleep(0.005)
    time.sleep(moment := scene.moment() / 2)
    victim = scene.chance.choice(workers_of(process) or workers)
    with contextlib.suppress(ProcessLookupError):
        os.kill(victim, signal.SIGKILL)
    end(process, 1)
    compare(scene)
    return f"{moment:.2f} s after the start of the workers"


def workers_of(process: subprocess.Popen[str]) -> list[int]:
    """Return the process ids of the workers of a run."""
    workers = []
    with contextlib.suppress(OSError):
        for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
            with contextlib.suppress(OSError):
                if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                    workers.append(int(child))
    return workers


def stop(scene: Scene) -> str:
    """Stop the run in good order at a random moment after it has begun."""
    process = start(scene.inputs, scene.out)
    while process.poll() is None and not (scene.out / ".partial").exists():
        time.sleep(0.005)
    time.sleep(moment := scene.moment() / 2)
    process.send_signal(signal.SIGTERM)
    end(process, 143, 1, -signal.SIGTERM)  # 1: it was done before; the last: so nearly that it heard no more
    if (scene.out / ".partial").exists():
        raise Loss("a stopped run leaves .partial")
    if not (scene.out / "images.csv").exists():
        raise Loss("a stopped run leaves no tables")
    finish(scene)
    return f"{moment:.2f} s after the beginning, status {process.returncode}"


def fill_disk(scene: Scene) -> str:
    """Let the disk be full: of a file system of random size, or, where none can be mounted, by the size of files."""
    whole = sum(p.stat().st_size for p in scene.folder.parent.glob("undisturbed/**/*") if p.is_file())
    if can_mount():
        size = int(scene.chance.uniform(0.1, 0.9) * whole)
        command = ["unshare", "--user", "--map-root-user", "--mount", sys.executable, __file__, "--in-little-room"]
        words = [*command, str(scene.inputs), str(scene.folder), str(size)]
        done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, check=False, timeout=2 * _PATIENCE_S)
        if done.returncode:
            raise Loss(done.stderr.strip().splitlines()[-1])
        compare(scene)
        return f"of {size >> 10} kB, of {whole >> 10} needed"
    limit = int(scene.chance.uniform(2, 60)) << 10
    check_refusal(end(start(scene.inputs, scene.out, limit=limit), 2))
    finish(scene)
    return f"at files of {limit >> 10} kB"


def can_mount() -> bool:
    """Return whether this user may mount a file system of his own."""
    command = ["unshare", "--user", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"]
    return (
        shutil.which("unshare") is not None
        and subprocess.run(command, capture_output=True, check=False).returncode == 0
    )


def in_little_room(inputs: Path, folder: Path, size: int) -> None:
    """Run on a file system of this size, then on one with room; leave the results in ``folder/out``."""
    room = folder / "room"
    room.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", room], check=True)
    check_refusal(end(start(inputs, room / "out", "--log-file", str(room / "run.log")), 2))
    subprocess.run(["mount", "-o", "remount,size=1G", room], check=True)
    end(start(inputs, room / "out"), 1)
    shutil.copytree(room / "out", folder / "out")
    subprocess.run(["umount", room], check=True)


def check_refusal(errors: str) -> None:
    """Raise if a full disk is told in other than one sentence.

    Raises
    ------
    Loss
    """
    lines = [line for line in errors.splitlines() if " files, " not in line]  # of progress
    if len(lines) != 1 or "cannot be written" not in lines[0]:
        raise Loss(f"a full disk is told so: {errors.strip()}")


def run_twice(scene: Scene) -> str:
    """Start a second run while the first is at work."""
    first = start(scene.inputs, scene.out)
    while first.poll() is None and not (scene.out / ".partial").exists():
        time.sleep(0.005)
    time.sleep(moment := scene.moment() / 4)
    second = start(scene.inputs, scene.out)
    errors = end(second, 2, 1)  # 1: the first was done before
    if second.returncode == 2 and "in use by another run" not in errors:
        raise Loss(f"the second run says {errors.strip()}")
    end(first, 1)
    compare(scene)
    return f"{moment:.2f} s after the beginning, status {second.returncode}"


def die_at(scene: Scene, step: int, fresh: bool) -> bool:
    """Let a run die before its `step`-th step on the disk; return whether it came so far."""
    child = os.fork()
    if not child:
        _die_at(_job(scene, fresh), step)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def _die_at(job: Job, step: int) -> None:
    left = step
    out = str(job.out)

    def count(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal left
        if event in _STEPS and any(out in str(argument) for argument in arguments[:2]):
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)

    status = 1
    try:
        sys.addaudithook(count)
        run_here(job)
        status = 0
    finally:
        os._exit(status)


_STEPS = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "sqlite3.connect")
"""Audit events (PEP 578) of what a run does on the disk; commits of the ledger are those of the journal's file."""


def _job(scene: Scene, fresh: bool = False) -> Job:
    return Job((scene.inputs,), scene.out, formats=frozenset(FORMATS), fresh=fresh)


def run_here(job: Job) -> None:
    """Run in this process, which has loaded everything already."""
    with contextlib.suppress(DetectorError):
        run_batch(job, runner=lambda tasks, work, *_: ((task, work(task)) for task in tasks))


def die_at_each_step(scene: Scene, every: int) -> Iterator[str]:
    """Let runs die at each step in turn, in a new folder and over old results."""
    for fresh in (False, True):
        step = scene.chance.randint(1, every)
        while True:
            shutil.rmtree(scene.folder, ignore_errors=True)
            scene.folder.mkdir(parents=True)
            if fresh:
                shutil.copytree(scene.folder.parent / "undisturbed", scene.out)
            if not die_at(scene, step, fresh):
                break
            try:
                run_here(_job(scene))
                compare(scene)
            except Loss as loss:
                raise Loss(f"step {step}{' of --fresh' * fresh}: {loss}") from loss
            yield f"step {step}{' of --fresh' * fresh}"
            step += every


FAULTS: Mapping[str, Callable[[Scene], str]] = {
    "parent": kill_parent,
    "worker": kill_worker,
    "stop": stop,
    "full": fill_disk,
    "twice": run_twice,
}


def inflict(scene: Scene, part: str, kills: int, every: int) -> Iterator[str]:
    """Yield a line for each fault of a part that did no harm.

    Raises
    ------
    Loss
    """
    if part == "steps":
        yield from die_at_each_step(scene, every)
        return
    for _ in range(kills if part in ("parent", "worker") else max(1, kills // 3)):
        shutil.rmtree(scene.folder, ignore_errors=True)
        scene.folder.mkdir(parents=True)
        yield FAULTS[part](scene)


def main() -> int:
    """Do what the module's first lines say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30, help="of parent and of worker; a third of it of the others")
    parser.add_argument("--steps", type=int, default=1, metavar="N", help="die at every Nth step on the disk")
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=(*FAULTS, "steps"))
    given = parser.parse_args()
    lost = 0
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place).resolve()
        inputs = make_images(folder / "in", given.images)
        begun = time.monotonic()
        end(start(inputs, folder / "undisturbed"), 1)
        seconds = time.monotonic() - begun
        chance = random.Random(given.seed)
        scene = Scene(inputs, folder / "scene", contents(folder / "undisturbed"), seconds, chance)
        for part in (given.only,) if given.only else (*FAULTS, "steps"):
            try:
                for number, line in enumerate(inflict(scene, part, given.kills, given.steps), 1):
                    print(f"{part} {number}: nothing lost, {line}", flush=True)
            except Loss as loss:
                lost += 1
                print(f"{part}: LOST: {loss}", flush=True)
    print("Something was lost." if lost else "Nothing was lost.")
    return 1 if lost else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--in-little-room"]:
        try:
            in_little_room(Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
        except Loss as loss:
            sys.exit(str(loss))
    else:
        sys.exit(main())
