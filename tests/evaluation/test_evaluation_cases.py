"""What an evaluation holds beside its figures: each case, bad pairs, definitions, kinds of results."""

import csv
import io
import json

import nibabel
import numpy as np
import pytest
import tifffile

import biounet
from biounet.core import DataSettings, Grid, InputError
from biounet.core.recipe import parse_recipe
from biounet.evaluation import evaluate, score_classes
from biounet.files import ReadOptions, read_label_kind, read_volume, write_labels
from support.images import discs

CELLS = DataSettings()
LESIONS = DataSettings(kind="classes", dims=3, classes=("lesion",))
STROKES = DataSettings(kind="scribbles", classes=("background", "cell"))


def save(path, mask, steps=(1, 1, 3)):
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(mask, np.diag([*steps, 1.0])), path)


def block(*where):
    mask = np.zeros((24, 24, 12), np.uint8)
    if where:
        mask[tuple(slice(*one) for one in where)] = 1
    return mask


TEN, MOVED = block((4, 14), (4, 14), (2, 8)), block((6, 16), (4, 14), (2, 8))


@pytest.fixture
def lesions(tmp_path):
    """Five cases: nothing there, something invented, something missed, and two that are found."""
    pairs = {
        "both_empty": (block(), block()),
        "only_false": (block(), block((5, 6), (5, 6), (5, 6))),
        "missed": (TEN, block()),
        "good_1": (TEN, MOVED),
        "good_2": (TEN, MOVED),
    }
    for name, (truth, found) in pairs.items():
        save(tmp_path / "truth" / f"{name}.nii.gz", truth)
        save(tmp_path / "out" / f"{name}_labels.nii.gz", found)
    return tmp_path / "out", tmp_path / "truth"


def test_a_result_of_other_classes_is_named(tmp_path):
    save(tmp_path / "truth/a.nii.gz", TEN)
    save(tmp_path / "out/a_labels.nii.gz", MOVED * 3)
    with pytest.raises(InputError, match="the prediction has classes 0 to 3") as caught:
        evaluate(tmp_path / "out", tmp_path / "truth", LESIONS)
    assert caught.value.path == tmp_path / "out/a_labels.nii.gz"


def test_empty_and_missed_cases_are_visible(lesions):
    found = evaluate(*lesions, LESIONS)
    assert found.dice_per_image == (pytest.approx(0.4),)  # 0, 0, .8 and .8: the case without lesions is left out
    assert (found.surfaces.images, found.surfaces.missed, found.lesions.false_positives) == ((3,), (1,), (1,))
    assert found.as_table()[1][5] == "2.000 (1 of 3 missed)"
    assert found.as_table()[1][-1] == "2 of 3, 1 spurious"


def test_definitions_are_named(lesions):
    found = evaluate(*lesions, LESIONS)
    text = " ".join(found.definitions())
    for word in ("HD95", "95th percentile", "NSD", "1 mm", "arXiv:2111.05408", "Dice per image"):
        assert word in text
    assert json.loads(json.dumps(found.as_dict()))["definitions"] == list(found.definitions())
    assert not score_classes([TEN.astype(np.int32)], [MOVED], ["a"]).definitions()


def rows_of(figures):
    return list(csv.DictReader(io.StringIO(figures.as_csv())))


def test_one_row_per_case_and_class(lesions):
    rows = {row["case"]: row for row in rows_of(evaluate(*lesions, LESIONS))}
    assert list(rows) == [f"{name}.nii.gz" for name in ("both_empty", "good_1", "good_2", "missed", "only_false")]
    assert (rows["good_1.nii.gz"]["class"], rows["good_1.nii.gz"]["dice"]) == ("lesion", "0.8")
    assert float(rows["good_1.nii.gz"]["hd95_mm"]) == pytest.approx(2)
    assert (rows["missed.nii.gz"]["hd95_mm"], rows["missed.nii.gz"]["nsd"]) == ("", "0.0")
    assert rows["both_empty.nii.gz"]["dice"] == ""
    assert (rows["only_false.nii.gz"]["dice"], rows["only_false.nii.gz"]["lesions_spurious"]) == ("0.0", "1")


@pytest.fixture
def fields(tmp_path):
    """Three fields of cells with perfect results."""
    for number in range(3):
        labels = discs((64, 64), 6, number)[1]
        for name in (f"truth/{number}.tif", f"out/{number}_labels.tif"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            tifffile.imwrite(tmp_path / name, labels.astype(np.uint16))
    return tmp_path / "out", tmp_path / "truth"


def test_one_row_per_field(fields):
    rows = rows_of(evaluate(*fields, CELLS))
    assert [row["case"] for row in rows] == ["0.tif", "1.tif", "2.tif"]
    assert {(row["ap50"], row["pq"], row["splits"], row["message"]) for row in rows} == {("1.0", "1.0", "0", "")}
    assert [int(row["true"]) for row in rows] == list(evaluate(*fields, CELLS).truth_counts)


def test_a_bad_pair_does_not_stop_the_others(fields):
    out, truth = fields
    tifffile.imwrite(out / "1_labels.tif", np.zeros((5, 6), np.uint16))
    found = evaluate(out, truth, CELLS)
    assert (len(found.truth_counts), found.ap[0]) == (2, 1)
    (failed,) = found.failed
    assert "1.tif: is (64, 64), but the result" in failed
    row = rows_of(found)[1]
    assert (row["case"], row["ap50"], row["message"]) == ("1.tif", "", failed)
    for number in (0, 2):
        (out / f"{number}_labels.tif").write_bytes(b"no image")
    with pytest.raises(InputError, match="not a TIFF"):
        evaluate(out, truth, CELLS)


def test_an_ap_of_0_because_of_classes_is_noted(fields):
    out, truth = fields
    for number in range(3):
        drawn = tifffile.imread(truth / f"{number}.tif")
        tifffile.imwrite(out / f"{number}_labels.tif", (drawn > 0).astype(np.uint16))
    found = evaluate(out, truth, CELLS)
    assert found.ap[0] == 0
    (note,) = found.notes
    assert "AP is 0.000 although the foreground agrees (Dice 1.000; 18 true and 3 predicted ids)" in note
    assert "kind = 'classes'" in note
    for number in range(3):  # cells that were not found at all are another matter
        tifffile.imwrite(out / f"{number}_labels.tif", np.zeros((64, 64), np.uint16))
    assert not evaluate(out, truth, CELLS).notes


@pytest.mark.parametrize("kind", ["objects", "classes", None])
def test_a_label_image_stores_the_kind_of_its_values(tmp_path, kind):
    small, many = np.eye(9, dtype=np.uint16), np.arange(70_000, dtype=np.uint32).reshape(7, -1)
    for labels in (small, many):
        write_labels(tmp_path / "a.tif", labels, Grid(labels.shape, (0.5, 0.5), "um"), kind)
        assert read_label_kind(tmp_path / "a.tif") == kind
        np.testing.assert_array_equal(tifffile.imread(tmp_path / "a.tif"), labels)
        assert read_volume(tmp_path / "a.tif").grid.spacing == (0.5, 0.5)
    save(tmp_path / "image.nii.gz", TEN)
    image = read_volume(tmp_path / "image.nii.gz", ReadOptions(dims=3))
    write_labels(tmp_path / "a.nii.gz", image.array[0], image, kind)
    assert read_label_kind(tmp_path / "a.nii.gz") == kind
    with pytest.raises(InputError):
        read_label_kind(tmp_path / "nothing.tif")


def results(folder, labels, kind):
    folder.mkdir()
    write_labels(folder / "a_labels.tif", labels.astype(np.int32), Grid(labels.shape), kind)
    return folder


class TestKinds:
    """Strokes are classes, and the results of a model of strokes are objects."""

    truth = discs((64, 64), 8, 1)[1]
    strokes = np.where(np.arange(64)[:, None] % 4 == 0, np.where(truth > 0, 2, 1), 0)

    def compare(self, tmp_path, labels, kind, data, drawn=None):
        (tmp_path / "truth").mkdir()
        tifffile.imwrite(tmp_path / "truth" / "a.tif", (self.strokes if drawn is None else drawn).astype(np.uint8))
        return evaluate(results(tmp_path / "out", labels, kind), tmp_path / "truth", data)

    @pytest.mark.parametrize("kind", ["objects", None])
    def test_objects_against_strokes(self, tmp_path, kind):
        found = self.compare(tmp_path, self.truth, kind, STROKES)
        assert (found.classes, found.dice) == (("cell",), (1,))

    def test_objects_against_strokes_of_several_classes(self, tmp_path):
        data = DataSettings(kind="scribbles", classes=("background", "round", "long"))
        drawn = np.where(self.strokes == 2, 2 + self.truth % 2, self.strokes)
        found = self.compare(tmp_path, self.truth, "objects", data, drawn)
        assert (found.classes, found.dice) == (("foreground",), (1,))
        assert "objects" in found.notes[0]

    def test_classes_against_strokes(self, tmp_path):
        data = DataSettings(kind="scribbles", classes=("background", "round", "long"))
        drawn = np.where(self.strokes == 2, 2 + self.truth % 2, self.strokes)
        found = self.compare(tmp_path, np.where(self.truth > 0, 1 + self.truth % 2, 0), "classes", data, drawn)
        assert (found.classes, found.dice) == (("round", "long"), (1, 1))

    def test_objects_against_one_class(self, tmp_path):
        data = DataSettings(kind="classes", classes=("cell",))
        found = self.compare(tmp_path, self.truth, "objects", data, self.truth > 0)
        assert (found.classes, found.dice) == (("cell",), (1,))

    def test_objects_are_no_classes(self, tmp_path):
        data = DataSettings(kind="classes", classes=("round", "long"))
        with pytest.raises(InputError, match=r"a_labels\.tif: holds objects, not classes"):
            self.compare(tmp_path, self.truth, "objects", data, self.truth % 3)

    def test_classes_are_no_objects(self, tmp_path):
        with pytest.raises(InputError, match=r"a_labels\.tif: holds classes, not objects .*kind = 'classes'"):
            self.compare(tmp_path, self.truth > 0, "classes", CELLS, self.truth)

    def test_results_of_earlier_versions_have_the_kind_of_their_table(self, tmp_path):
        """Three objects are no three classes, as the table beside them says."""
        data = DataSettings(kind="scribbles", classes=("background", "round", "long", "flat"))
        labels = np.where(self.truth < 4, self.truth, 0)
        drawn = np.where(np.arange(64)[:, None] % 4 == 0, np.where(labels > 0, 2, 1), 0)
        results(tmp_path / "out", labels, None)
        (tmp_path / "out" / "a_objects.csv").write_text("label,centroid_y_px\n1,2\n")
        (tmp_path / "truth").mkdir()
        tifffile.imwrite(tmp_path / "truth" / "a.tif", drawn.astype(np.uint8))
        found = evaluate(tmp_path / "out", tmp_path / "truth", data)
        assert (found.classes, found.dice) == (("foreground",), (1,))


def test_a_model_of_strokes_can_be_evaluated(tmp_path):
    for folder in ("images", "strokes"):
        (tmp_path / folder).mkdir()
    for number in range(3):
        image, labels = discs((64, 64), 6, number)
        strokes = np.where(np.arange(64)[:, None] % 6 == 0, np.where(labels > 0, 2, 1), 0)
        tifffile.imwrite(tmp_path / "images" / f"{number}.tif", image)
        tifffile.imwrite(tmp_path / "strokes" / f"{number}.tif", strokes.astype(np.uint8))
    train = {"patch": 32, "batch": 4, "epochs": 2, "steps_per_epoch": 40, "learning_rate": 1e-2, "ema_decay": 0.9}
    data = {"kind": "scribbles", "classes": ["background", "cell"]}
    recipe = parse_recipe({"network": {"widths": [8, 12]}, "train": train, "data": data})
    model = biounet.train(recipe, tmp_path / "images", tmp_path / "strokes")
    for number in range(3):
        result = model.segment(tmp_path / "images" / f"{number}.tif")
        assert result.kind == "objects"
        result.save(tmp_path / "out")
        assert read_label_kind(tmp_path / "out" / f"{number}_labels.tif") == "objects"
    found = evaluate(tmp_path / "out", tmp_path / "strokes", recipe.data)
    assert (found.classes, found.failed) == (("cell",), ())
    assert found.dice[0] > 0.5
