"""``--columns cellprofiler``: a table of each image, and those of the whole run, which never are of an earlier one."""

import json

import pyarrow.csv
import pytest
import tifffile

import biounet as public
from biounet.network import save_model
from support.images import discs

MERGED = ("cellprofiler/Image.csv", "cellprofiler/Cells.csv")
GROUP = ("--group", r"(?P<well>[A-H]\d)_s(?P<site>\d)")


def write_image(folder, name, seed, cells=4):
    path = folder / "in" / name
    path.parent.mkdir(exist_ok=True)
    image, _ = discs((40, 48), cells, seed)
    tifffile.imwrite(path, image)


@pytest.fixture
def run(tmp_path, untrained, biounet):
    save_model(untrained, tmp_path / "m.safetensors")
    for number, name in enumerate(("A1_s1.tif", "A1_s2.tif", "B1_s1.tif")):
        write_image(tmp_path, name, number)
    assert segment(biounet, "--columns", "cellprofiler", *GROUP)[0] == 0
    return tmp_path / "out"


def segment(biounet, *options):
    return biounet("segment", "in", "-o", "out", "-m", "m.safetensors", "--quiet", "--jobs", 1, *options)


def table(path):
    return pyarrow.csv.read_csv(path).to_pydict()


def test_the_run_has_the_two_tables_with_groups_as_metadata(run):
    images, cells = (table(run / name) for name in MERGED)
    assert images["ImageNumber"] == [1, 2, 3]
    assert images["Metadata_Well"] == ["A1", "A1", "B1"]
    assert images["Metadata_Site"] == [1, 2, 1]
    counts = [table(run / f"{name}_objects.csv")["label"] for name in ("A1_s1", "A1_s2", "B1_s1")]
    assert images["Count_Cells"] == [len(labels) for labels in counts]
    assert len(cells["ImageNumber"]) == sum(map(len, counts))
    assert max(cells["Intensity_MaxIntensity_intensity"]) <= 1


def test_it_is_an_export_and_one_table_more(run, biounet):
    assert (run / "A1_s1_objects.csv").exists()
    code, out, _ = biounet("export", "out", "--columns", "cellprofiler")
    assert (code, out) == (0, "0 files exported, 5 already there; see out/\n")
    before = {name: (run / name).read_bytes() for name in MERGED}
    (run / MERGED[0]).unlink()
    assert biounet("export", "out", "--format", "cellprofiler")[1].startswith("2 files exported, 3 already there")
    assert before == {name: (run / name).read_bytes() for name in MERGED}
    paths = public.export(run, columns="cellprofiler")
    assert [run / name for name in MERGED] == paths[-2:]


def test_tables_of_a_run_go_when_an_image_is_another_one(run, biounet):
    write_image(run.parent, "A1_s2.tif", 9, cells=2)
    assert segment(biounet, *GROUP)[0] == 0
    assert [(run / name).exists() for name in MERGED] == [False, False]
    assert segment(biounet, "--columns", "cellprofiler", *GROUP)[0] == 0
    labels = table(run / "A1_s2_objects.csv")["label"]
    assert table(run / MERGED[0])["Count_Cells"][1] == len(labels)


def test_other_groups_are_other_tables(run, biounet):
    assert segment(biounet, "--columns", "cellprofiler", "--group", r"(?P<plate>[A-H])")[0] == 0
    assert table(run / MERGED[0])["Metadata_Plate"] == ["A", "A", "B"]


def test_tables_that_somebody_changed_are_kept(run, biounet):
    (run / MERGED[1]).write_text("mine")
    write_image(run.parent, "A1_s2.tif", 9, cells=2)
    code, _, err = segment(biounet, "--columns", "cellprofiler", *GROUP)
    assert code == 3
    assert "ERROR cellprofiler/Cells.csv as cellprofiler: Cells.csv is there and was not written" in err
    assert (run / MERGED[1]).read_text() == "mine"


def test_verify_knows_the_tables_of_a_run(run, biounet):
    code, out, _ = biounet("verify", "out", "-m", "m.safetensors", "--json")
    assert code == 0
    (run / MERGED[0]).write_text("")
    code, out, _ = biounet("verify", "out", "-m", "m.safetensors", "--json")
    said = {row["image"]: row["status"] for row in map(json.loads, out.splitlines())}
    assert (code, said[MERGED[0]]) == (3, "differs")


@pytest.mark.parametrize("command", [("segment", "in"), ("export", "out")])
def test_columns_of_another_program_are_an_error(biounet, command):
    code, _, err = biounet(*command, "--columns", "imaris")
    assert code == 2
    assert "ERROR there are no columns 'imaris' (hint: there are those of cellprofiler)" in err


def test_nothing_to_export_is_an_error(biounet):
    code, _, err = biounet("export", "out")
    assert code == 2
    assert "ERROR nothing to export (hint: name formats, such as --format roi,parquet; --help lists them)" in err


def test_names_that_a_spreadsheet_would_run_are_made_harmless_where_tables_are(tmp_path, untrained, biounet):
    save_model(untrained, tmp_path / "m.safetensors")
    write_image(tmp_path, "=A1_s1.tif", 1)
    options = ("--columns", "cellprofiler", "--excel", "--group", "(?P<well>=[A-H]1)")
    assert segment(biounet, *options)[0] == 0
    images = table(tmp_path / "out" / MERGED[0])
    assert (images["FileName_intensity"], images["Metadata_Well"]) == (["'=A1_s1.tif"], ["'=A1"])


def test_a_run_of_which_nothing_is_exported_has_no_tables(run, biounet):
    code, _, err = biounet("export", "out", "--format", "bids")
    assert code == 4
    assert err.count("BIDS segmentations are of NIfTI images, and this is none") == 3
    assert not (run / "bids").exists()


def test_python_writes_the_same_tables(run):
    folder = run.parent
    public.segment_folder(
        folder / "in", folder / "py", model=folder / "m.safetensors", columns="cellprofiler", group=GROUP[1], jobs=1
    )
    assert [(folder / "py" / name).read_bytes() for name in MERGED] == [(run / name).read_bytes() for name in MERGED]
