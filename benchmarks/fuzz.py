"""Damaged files of all formats, read in a process of their own: python benchmarks/fuzz.py --minutes 30 [--seed 0].

Of each whole file copies are made with 1 to 16 bytes changed, three of five among the first 512, or, one of five, with
the end cut off. They may be refused with one of the project's own errors or be read; nothing else may happen: no crash
or hang of the reader, no memory above 1 GB, no other exception. A file that did something else is kept in --keep.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from flips import small_cases, small_model

from biounet.core import BiounetError
from biounet.files import IsolatedReader, ReadOptions

LIMIT = 2**27  # bytes of an image
SECONDS = 10.0
MEMORY = 10**9


def mutate(content: bytes, draw: np.random.Generator) -> bytes:
    """Return a damaged copy."""
    if draw.random() < 0.2:
        return content[: draw.integers(len(content))]
    changed = bytearray(content)
    for _ in range(draw.integers(1, 17)):
        changed[draw.integers(min(512, len(content)) if draw.random() < 0.6 else len(content))] = draw.integers(256)
    return bytes(changed)


def peak_memory(reader: IsolatedReader) -> int:
    """Return the most memory in bytes that the process of a reader has had; 0 where the system does not say."""
    child = reader._child
    try:
        text = Path(f"/proc/{child.pid}/status").read_text() if child else ""
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("VmHWM")), 0)


def outcome_of(read: Callable[[Path], object], path: Path) -> tuple[str, str]:
    """Return whether a file was read, refused, or did what it must not, and with which words."""
    began = time.monotonic()
    try:
        read(path)
        outcome, words = "read", ""
    except BiounetError as error:
        lost = "crashed" in error.cause or "could not be read in" in error.cause
        outcome, words = ("LOST" if lost else "refused"), error.cause
    except Exception as error:  # noqa: BLE001 - what the search is for
        outcome, words = "ESCAPED", f"{type(error).__name__}: {error}"
    return ("HANG" if time.monotonic() - began > 2 * SECONDS else outcome), words


def fuzz(seconds: float, seed: int, keep: Path | None = None, most: int = sys.maxsize) -> Counter[tuple[str, str]]:
    """Return how many files of each format had which outcome; outcomes in capitals must not be."""
    from biounet.network import load_model

    draw, counts = np.random.default_rng(seed), Counter[tuple[str, str]]()
    whole = {case.name: case.content for case in small_cases()}
    with tempfile.TemporaryDirectory() as folder, IsolatedReader(timeout=SECONDS, pause=0) as reader:

        def image(path: Path) -> object:
            return reader.read(path, ReadOptions(dims=3 if "nii" in path.name else 2, plane=0, limit=LIMIT))

        jobs = [(name, content, image) for name, content in whole.items()]
        jobs.append(("model .safetensors", small_model(), load_model))
        ends = time.monotonic() + seconds
        for number in range(most):
            if time.monotonic() > ends:
                break
            name, content, read = jobs[number % len(jobs)]
            damaged = mutate(content, draw)
            path = Path(folder, "x" + name.rpartition(" ")[2])
            path.write_bytes(damaged)
            outcome, words = outcome_of(read, path)
            if peak_memory(reader) > MEMORY:
                outcome = "MEMORY"
            if outcome.isupper():
                reader._end()  # the next file does not pay for this one
                if keep:
                    keep.mkdir(parents=True, exist_ok=True)
                    (keep / f"{outcome}-{seed}-{number}").write_bytes(damaged)
                    print(f"{outcome} {name} {words}", file=sys.stderr)
            counts[name, outcome] += 1
            path.unlink()
    return counts


def rows(counts: Counter[tuple[str, str]]) -> Iterator[str]:
    """Give the lines of a table."""
    outcomes = ("read", "refused", *sorted({outcome for _, outcome in counts if outcome.isupper()}))
    yield f"| file | {' | '.join(outcomes)} |"
    yield "|---" * (len(outcomes) + 1) + "|"
    for name in dict.fromkeys(name for name, _ in counts):
        yield f"| {name} | {' | '.join(str(counts[name, outcome]) for outcome in outcomes)} |"


def main() -> int:
    """Print a table; return 1 if anything happened that must not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path(__file__).parent / ".work" / "fuzz")
    given = parser.parse_args()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        counts = fuzz(60 * given.minutes, given.seed, given.keep)
    print("\n".join(rows(counts)))
    return any(outcome.isupper() for _, outcome in counts)


if __name__ == "__main__":
    sys.exit(main())
