"""Many processes on one image, also under kills: python benchmarks/cluster.py workers|kills|array [--side 4096].

workers   two workers of Dask against one, each with one thread: seconds, and the ratios to one with all cores, of which
          the program uses what the worker leaves, and to one with a single core for all processes
kills     two workers, of which five are killed at random moments, and one while it writes a shard; then the same with
          the program and its scheduler killed, and the command started again
array     four commands with --shard 1/4 to 4/4, of which two are killed and started again, as an array of SLURM

The image is the confluent field of ``large_inputs.py``. What stays of a run under kills must be what an unbroken run in
leaves, byte for byte: label store and table.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from large_inputs import write_confluent

CLI = [sys.executable, "-m", "biounet", "segment", "image.ome.zarr", "--format", "zarr", "--diameter", "native"]
WORKER = b"spawn_main"  # in the command lines of processes that are spawned


def command(out: str, *options: str) -> list[str]:
    return [*CLI, "-o", out, "--quiet", *options]


def start(folder: Path, out: str, *options: str, cores: int = 0) -> subprocess.Popen[bytes]:
    """Start a command, on so many cores, or on all."""
    pinned = ["taskset", "-c", f"0-{cores - 1}"] if cores else []
    run = [*pinned, *command(out, *options)]
    with (folder / f"{out}.log").open("ab") as log:
        return subprocess.Popen(run, cwd=folder, start_new_session=True, stdout=log, stderr=log)


def results(out: Path) -> dict[str, str]:
    """Return the hash of each file of the label store and of the table."""
    files = [path for path in out.rglob("*") if path.is_file()]
    wanted = [path for path in files if "_labels.ome.zarr" in path.as_posix() or path.name.endswith("_objects.csv")]
    return {path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in wanted}


def compare(folder: Path, out: str) -> str:
    """Return in how many files a run differs from the unbroken one, in words."""
    whole, found = results(folder / "whole"), results(folder / out)
    differing = sum(whole.get(name) != found.get(name) for name in whole.keys() | found.keys())
    return f"{differing} of {len(whole)} files differ"


def descendants(process: int) -> Iterator[int]:
    """Yield the processes below one, those that have none below them last."""
    try:  # of each thread: Dask starts its workers from another than the first
        threads = list(Path(f"/proc/{process}/task").iterdir())
        children = [int(child) for thread in threads for child in (thread / "children").read_text().split()]
    except OSError:
        return
    for child in children:
        yield child
        yield from descendants(child)


def workers(process: int) -> list[int]:
    """Return the workers of Dask below a process: the spawned processes that have none of their kind below them."""
    found = []
    for below in descendants(process):
        try:
            is_spawned = WORKER in Path(f"/proc/{below}/cmdline").read_bytes()
        except OSError:
            continue
        if is_spawned and not list(descendants(below)):
            found.append(below)
    return found


def done(out: Path, stage: str) -> int:
    """Return how many super-blocks have a stage behind them."""
    return sum(1 for _ in (out / ".large").glob(f"*/{stage}/*/*.npz"))


def kill(process: int) -> bool:
    try:
        os.kill(process, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def wait(run: subprocess.Popen[bytes], folder: Path) -> None:
    """Wait for a command that has to succeed."""
    if run.wait():
        logs = "\n".join(path.read_text(errors="replace")[-2000:] for path in folder.glob("*.log"))
        raise SystemExit(f"a command ended with {run.returncode}:\n{logs}")


def kill_workers(folder: Path, ram: str, number: int) -> str:
    """Kill so many workers while super-blocks are predicted, and one while it writes a shard."""
    draw, killed, writer = random.Random(0), 0, 0
    out = folder / "killed"
    run = start(folder, "killed", "--cluster", "local:2", "--ram", ram)
    while run.poll() is None:
        if killed < number and done(out, "find"):
            time.sleep(draw.uniform(0, 2))
            if victims := workers(run.pid):
                killed += kill(draw.choice(victims))
        elif killed == number and not writer:
            writer = kill_writer(run.pid, out)
            continue
        time.sleep(0.2)
    wait(run, folder)
    return f"{killed} workers killed, {writer} while it wrote a shard: {compare(folder, 'killed')}"


def kill_writer(program: int, out: Path) -> int:
    """Kill the worker that has an unfinished shard open, if one has at this moment."""
    store = (out / ".large").as_posix()
    for worker in workers(program):
        for link in Path(f"/proc/{worker}/fd").glob("*"):
            try:
                target = link.readlink().as_posix()
            except OSError:
                continue
            if target.startswith(store) and "_labels.ome.zarr/" in target:
                return int(kill(worker))
    return 0


def kill_program(folder: Path, ram: str) -> str:
    """Kill the program, with its scheduler, when a third of the super-blocks are predicted, and start it again."""
    out, options = folder / "program", ("--cluster", "local:2", "--ram", ram)
    run = start(folder, "program", *options)
    total = len(list((folder / "whole").rglob("c/*/*"))) or 1
    while run.poll() is None and done(out, "find") < max(total // 3, 2):
        time.sleep(0.05)
    for process in (run.pid, *descendants(run.pid)):
        kill(process)
    run.wait()
    before = done(out, "find")
    again = start(folder, "program", *options)
    wait(again, folder)
    return f"program and scheduler killed with {before} super-blocks done: {compare(folder, 'program')}"


def kill_array(folder: Path, ram: str) -> str:
    """Run four shards at once, kill two when some super-blocks are done, and start these again."""
    out = folder / "array"
    runs = {part: start(folder, "array", "--ram", ram, "--shard", f"{part}/4") for part in range(1, 5)}
    while done(out, "find") < 2 and any(run.poll() is None for run in runs.values()):
        time.sleep(0.05)
    victims = [part for part in (2, 3) if runs[part].poll() is None]
    for part in victims:
        for process in (runs[part].pid, *descendants(runs[part].pid)):
            kill(process)
        runs[part].wait()
    before = done(out, "find")
    for part in victims:
        runs[part] = start(folder, "array", "--ram", ram, "--shard", f"{part}/4")
    for run in runs.values():
        wait(run, folder)
    if not results(out):  # no shard was the last
        wait(start(folder, "array", "--ram", ram), folder)
    return f"{len(victims)} of 4 jobs killed with {before} super-blocks done: {compare(folder, 'array')}"


def time_workers(folder: Path, ram: str, repeats: int) -> str:
    """Segment with one worker and with two in turn, each with the memory that it has of two; the best times count."""
    runs = {"one worker, one core": (1, 1), "one worker": (1, 0), "two workers": (2, 0)}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for name, (number, cores) in [*runs.items()] * repeats:
        out = "two" if number == 2 else "whole"
        shutil.rmtree(folder / out, ignore_errors=True)
        began = time.perf_counter()
        options = ("--cluster", f"local:{number}", "--ram", f"{int(ram[:-1]) * number // 2}M")
        wait(start(folder, out, *options, cores=cores), folder)
        seconds[name].append(time.perf_counter() - began)
    two = min(seconds["two workers"])
    lines = [
        f"{name}: {', '.join(f'{one:.1f}' for one in each)} s, {min(each) / two:.2f} times that of two workers"
        for name, each in seconds.items()
    ]
    return "\n".join([*lines, compare(folder, "two")])


@contextmanager
def inputs(side: int) -> Iterator[Path]:
    """Provide a folder with the image."""
    with tempfile.TemporaryDirectory() as room:
        write_confluent(Path(room) / "image.ome.zarr", side)
        yield Path(room)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("workers", "kills", "array"))
    parser.add_argument("--side", type=int, default=4096)
    parser.add_argument("--ram", default="1600M", help="of all processes together")
    parser.add_argument("--repeats", type=int, default=3, help="of one worker and of two")
    options = parser.parse_args()
    with inputs(options.side) as folder:
        print(f"confluent field of {options.side} x {options.side}")
        if options.what == "workers":
            print(time_workers(folder, options.ram, options.repeats))
            return
        if options.what == "kills":
            wait(start(folder, "whole", "--cluster", "local:2", "--ram", options.ram), folder)
            print(kill_workers(folder, options.ram, 5))
            print(kill_program(folder, options.ram))
        else:
            wait(start(folder, "whole", "--ram", options.ram), folder)
            print(kill_array(folder, options.ram))


if __name__ == "__main__":
    main()
