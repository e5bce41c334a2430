"""A work folder is there with its plan or not at all: what an interrupted removal leaves is not taken for results."""

import shutil
from pathlib import Path

import pytest

from biounet.batch.large_image import remove_work, work_folder
from biounet.files import FoundImage
from biounet.large_images.work_folder import WorkFolder


def begun(path):
    """Return a work folder with a plan and one result."""
    work = WorkFolder(path)
    (path / "find").mkdir(parents=True)
    (path / "plan.json").write_text("{}")
    work.make("find", 0).touch()
    return work


def test_a_removal_that_is_interrupted_leaves_no_results_under_the_name_of_the_folder(tmp_path, monkeypatch):
    work = begun(tmp_path / "image")

    def remove_plan_alone(folder, *_, **__):
        next(folder.rglob("plan.json")).unlink()
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", remove_plan_alone)
    with pytest.raises(KeyboardInterrupt):
        work.remove()
    assert not work.is_done("find", 0)


def test_a_removal_that_was_interrupted_is_ended_by_the_next_one(tmp_path, monkeypatch):
    work = begun(tmp_path / "image")
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", lambda *_, **__: None)
        work.remove()
    begun(tmp_path / "image").remove()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_removed(tmp_path):
    WorkFolder(tmp_path / "image").remove()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a.tif", "plate/well/a.tif"])
def test_nothing_is_left_of_the_work_on_an_image_that_is_done(tmp_path, name):
    image = FoundImage(tmp_path / name, Path(name))
    begun(work_folder(image, tmp_path / "out"))
    (tmp_path / "out" / ".large" / ".claims").touch()
    remove_work(image, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_another_process_may_remove_what_is_left_at_the_same_time(tmp_path, monkeypatch):
    image = FoundImage(tmp_path / "a.tif", Path("a.tif"))
    begun(work_folder(image, tmp_path / "out"))
    removed = WorkFolder.remove

    def with_all_others(work, **options):
        removed(work, **options)
        work.path.parent.rmdir()

    monkeypatch.setattr(WorkFolder, "remove", with_all_others)
    remove_work(image, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_the_work_on_an_image_does_not_hold_that_on_images_in_a_folder_of_its_name(tmp_path):
    image, inner = (FoundImage(tmp_path / name, Path(name)) for name in ("a.tif", "a/b.tif"))
    begun(work_folder(image, tmp_path))
    begun(work_folder(inner, tmp_path))
    remove_work(image, tmp_path)
    assert WorkFolder(work_folder(inner, tmp_path)).is_done("find", 0)
