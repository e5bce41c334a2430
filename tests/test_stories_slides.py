"""What the batch operator does with a slide that is larger than the memory that it may take."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import tifffile

from biounet.core import sample_folder
from biounet.files import open_label_store
from support.commands import read_rows, run_biounet

SIDE, TILE, SCANNED, CORNER = 8960, 256, 1024, 1536  # of the scanned part, which lies in four super-blocks of 2048
COMMAND = ("segment", "slide.tif", "-o", "out", "--ram", "1G", "--format", "zarr")


def write_slide(path: Path) -> None:
    """Write a pyramid of tiles of 8 bits, of which most are absent, as where no tissue is."""
    field = (tifffile.imread(sample_folder() / "images" / "nuclei.tif") >> 4).astype(np.uint8)

    def tiles(step):
        places, scanned = range(-(-SIDE // step // TILE)), range(CORNER // step, (CORNER + SCANNED) // step)
        for y in places:
            for x in places:
                if y * TILE in scanned and x * TILE in scanned:
                    yield np.tile(field[::step, ::step], (step, step))
                else:
                    yield None if x or y else np.zeros((TILE, TILE), np.uint8)

    with tifffile.TiffWriter(path) as tif:
        for level, step in enumerate((1, 2)):
            how = {"subifds": 1} if level == 0 else {"subfiletype": 1}
            resolution = {"resolution": (2e4 / step, 2e4 / step), "resolutionunit": "CENTIMETER"}
            shape = (SIDE // step, SIDE // step)
            tif.write(tiles(step), shape=shape, dtype="u1", tile=(TILE, TILE), compression="zlib", **how, **resolution)


def interrupt_in_the_middle(folder: Path) -> subprocess.CompletedProcess[bytes]:
    """Run the command and press Ctrl-C when the first super-blocks are done."""
    command = [sys.executable, "-c", "from biounet.cli import main; main()", *COMMAND]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        while len(list(folder.glob("out/.large/slide.work/find/*/*.npz"))) < 2 and running.poll() is None:
            time.sleep(0.01)
        os.kill(running.pid, signal.SIGINT)
        shown, errors = running.communicate()
    return subprocess.CompletedProcess(command, running.returncode, shown, errors)


def test_batch_operator_segments_a_slide_larger_than_memory(tmp_path):
    write_slide(tmp_path / "slide.tif")
    stopped = interrupt_in_the_middle(tmp_path)
    assert stopped.returncode == 130
    assert b"the same command continues" in stopped.stderr
    assert len(list(tmp_path.glob("out/.large/slide.work/find/*/*.npz"))) >= 2

    done = run_biounet(tmp_path, *COMMAND)
    assert (done.returncode, done.stderr) == (0, "")
    [row] = read_rows(tmp_path / "out" / "counts.csv")
    assert row["flags"].startswith("tiles_absent=")
    assert "tiles are absent and read as 0" in row["message"]
    rows = read_rows(tmp_path / "out" / "slide_objects.csv")
    store = open_label_store(tmp_path / "out" / "slide_labels.ome.zarr")
    scanned = (slice(CORNER, CORNER + SCANNED),) * 2
    assert int(row["count"]) == len(rows) == store.read(scanned).max() > 400
    assert store.grid.shape == (SIDE, SIDE)
    assert (tmp_path / "out" / "slide_overlay.png").is_file()
    assert "slide.tif" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert not (tmp_path / "out" / ".large").exists()

    # Its files and numbers; to segment it again is to predict all of it, where there is memory for it.
    done = run_biounet(tmp_path, "verify", "out", "--fraction", "0.001")
    assert done.returncode == 0, done.stdout + done.stderr
    done = run_biounet(tmp_path, "export", "out", "--format", "parquet")
    assert done.returncode == 0, done.stderr
