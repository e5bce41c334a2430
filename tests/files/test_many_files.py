"""Twice as many files take twice as many steps, however they are found and paired."""

import sys

import pytest

from biounet.files import find_images, pair_files, pair_results

MRI = ("flair", "t1")
FOLDERS = {
    "images": ("i{n}.tif", "l{n}.tif"),
    "siblings": ("i{n}.tif", "i{n}_masks.tif"),
    "cases": ("p{n}/flair.nii", "p{n}/t1.nii", "p{n}/seg.nii", "p{n}/other.nii"),
    "common": ("p{n}_flair.nii", "p{n}_t1.nii", "p{n}_seg.nii", "p{n}_other.nii"),
    "one channel": ("p{n}/mri.nii", "p{n}/seg.nii"),
    "truth": ("t{n}.tif",),
    "out": ("t{n}_labels.tif", "p{n}_labels.nii", "deep/i{n}_labels.tif"),
}
TASKS = {
    "images": lambda root: find_images([root / "images"]),
    "cases": lambda root: find_images([root / "cases"], MRI),
    "siblings": lambda root: pair_files(root / "siblings"),
    "no partners": lambda root: pair_files(root / "images", root / "siblings"),
    "pairs of cases": lambda root: pair_files(root / "cases", None, MRI),
    "pairs of common names": lambda root: pair_files(root / "common", None, MRI),
    "pairs of one channel": lambda root: pair_files(root / "one channel"),
    "results": lambda root: pair_results(root / "out", root / "truth"),
    "results of cases": lambda root: pair_results(root / "out", root / "cases", MRI),
}


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    """The same folders with 60 and with 120 of each."""
    roots = [tmp_path_factory.mktemp("many") for _ in range(2)]
    for root, count in zip(roots, (60, 120), strict=True):
        for folder, names in FOLDERS.items():
            for path in (root / folder / name.format(n=n) for n in range(count) for name in names):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
    return roots


def calls_of(task, root):
    """Return the number of function calls of a task: unlike seconds, it is the same on every machine."""
    count = 0

    def profile(frame, event, argument):
        nonlocal count
        count += event in ("call", "c_call")

    task(root)  # fills caches
    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        task(root)
    finally:
        sys.setprofile(before)
    return count


@pytest.mark.parametrize("name", TASKS)
def test_number_of_calls_is_linear_in_the_number_of_files(roots, name):
    few, many = (calls_of(TASKS[name], root) for root in roots)
    assert many <= 2.1 * few
