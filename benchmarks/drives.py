"""Drives that misbehave: one refuses names and folders, as exFAT and SMB do, one has files that hang, fail or crawl.

Needs FUSE, the package fusepy and libfuse2; nothing else of the project does, and no test.

    python benchmarks/drives.py [--hang 600]

For each drive a folder of images is segmented with the built-in model. What must happen: each bad file is one failed
row, the others are done, exit code 3.
"""

# ruff: noqa: PTH102, PTH104, PTH108, PTH118, PTH119, PTH208
from __future__ import annotations

import argparse
import csv
import errno
import multiprocessing
import os
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import tifffile

from biounet.synthetic import draw_field_settings, make_field

_REFUSED = set(':?*<>|"\\')
_COMMAND = [sys.executable, "-c", "from biounet.cli import main; main()", "segment"]
_MISBEHAVING = ("a_good.tif", "eio_1.tif", "estale_1.tif", "flaky_1.tif", "slow_1.tif", "hang_1.tif", "z_good.tif")


def refusing(real: str, mount: str) -> None:
    """Serve `real` at `mount` as a drive that refuses some characters in names and to list ``private``."""
    from fuse import FUSE, FuseOSError, Operations

    class Drive(Operations):
        def _at(self, path: str) -> str:
            return os.path.join(real, path.lstrip("/"))

        def _allowed(self, path: str) -> str:
            if _REFUSED & set(os.path.basename(path)):
                raise FuseOSError(errno.EINVAL)
            return self._at(path)

        def getattr(self, path, fh=None):
            try:
                found = os.lstat(self._at(path))
            except OSError as error:
                raise FuseOSError(error.errno) from error
            names = ("atime", "ctime", "gid", "mode", "mtime", "nlink", "size", "uid")
            return {f"st_{name}": getattr(found, f"st_{name}") for name in names}

        def readdir(self, path, fh):
            if os.path.basename(path) == "private":
                raise FuseOSError(errno.EACCES)
            return [".", "..", *os.listdir(self._at(path))]

        def create(self, path, mode, fi=None):
            return os.open(self._allowed(path), os.O_RDWR | os.O_CREAT | os.O_TRUNC, mode)

        def open(self, path, flags):
            return os.open(self._at(path), flags & ~os.O_APPEND)

        def read(self, path, size, offset, fh):
            return os.pread(fh, size, offset)

        def write(self, path, data, offset, fh):
            return os.pwrite(fh, data, offset)

        def truncate(self, path, length, fh=None):
            os.truncate(self._at(path), length)

        def release(self, path, fh):
            os.close(fh)

        def fsync(self, path, datasync, fh):
            os.fsync(fh)

        def mkdir(self, path, mode):
            os.mkdir(self._allowed(path), mode)

        def unlink(self, path):
            os.unlink(self._at(path))

        def rename(self, old, new):
            os.rename(self._at(old), self._allowed(new))

    FUSE(Drive(), mount, foreground=True)


def misbehaving(source: str, mount: str, hang: float) -> None:
    """Serve copies of a file at `mount` that hang, fail, fail once or give 10 kB/s, as their names say."""
    from fuse import FUSE, FuseOSError, Operations

    data, failed = Path(source).read_bytes(), set()

    class Drive(Operations):
        def getattr(self, path, fh=None):
            if path == "/":
                return {"st_mode": stat.S_IFDIR | 0o755, "st_nlink": 2}
            if path[1:] not in _MISBEHAVING:
                raise FuseOSError(errno.ENOENT)
            return {"st_mode": stat.S_IFREG | 0o444, "st_nlink": 1, "st_size": len(data), "st_mtime": 1.7e9}

        def readdir(self, path, fh):
            return [".", "..", *_MISBEHAVING]

        def read(self, path, size, offset, fh):
            kind = path[1:].split("_")[0]
            if kind == "hang":
                time.sleep(hang)
            if kind == "slow":
                size = min(size, 4096)
                time.sleep(0.4)
            if kind in ("eio", "estale") or (kind == "flaky" and path not in failed):
                failed.add(path)
                raise FuseOSError(errno.ESTALE if kind == "estale" else errno.EIO)
            return data[offset : offset + size]

    FUSE(Drive(), mount, foreground=True, ro=True, direct_io=True)


def run(images: Path, out: Path) -> None:
    """Segment a folder and show what became of it."""
    began = time.perf_counter()
    ended = subprocess.run([*_COMMAND, str(images), "-o", str(out), "--quiet"], stderr=subprocess.DEVNULL, check=False)
    with (out / "counts.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    print(f"exit {ended.returncode} after {time.perf_counter() - began:.0f} s")
    for row in rows:
        print(f"  {row['image']:20} {row['status']:8} {float(row['seconds']):6.1f} s  {row['message']}")


def mounted(serve: Callable[..., None], mount: Path, *given: object) -> multiprocessing.Process:
    """Start a file system and return its process when it answers."""
    mount.mkdir()
    process = multiprocessing.Process(target=serve, args=given, daemon=True)
    process.start()
    while not os.path.ismount(mount):
        if not process.is_alive():
            raise SystemExit("no file system: needs /dev/fuse, libfuse2 and fusepy")
        time.sleep(0.1)
    return process


def main() -> None:
    """Run both."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--hang", type=float, default=600, help="seconds that a hung read takes")
    hang = parser.parse_args().hang
    with tempfile.TemporaryDirectory() as name:
        room = Path(name)
        image = room / "image.tif"
        tifffile.imwrite(image, make_field(0, draw_field_settings(0, (128, 128)))[0])
        (room / "in").mkdir()
        (room / "real" / "in" / "private").mkdir(parents=True)
        for target in ("in/a.tif", "in/b 12:30:05.tif", "in/c.tif", "real/in/y.tif"):
            (room / target).write_bytes(image.read_bytes())
        drives = [
            mounted(refusing, room / "refusing", str(room / "real"), str(room / "refusing")),
            mounted(misbehaving, room / "misbehaving", str(image), str(room / "misbehaving"), hang),
        ]
        try:
            run(room / "in", room / "refusing" / "out")
            run(room / "refusing" / "in", room / "out1")
            run(room / "misbehaving", room / "out2")
        finally:
            for mount, drive in zip(("refusing", "misbehaving"), drives, strict=True):
                subprocess.run(["umount", "-l", str(room / mount)], check=False)
                drive.terminate()


if __name__ == "__main__":
    main()
