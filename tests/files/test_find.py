"""Finding images and pairing them with annotations: nothing is left out in silence."""

import errno
import os
from pathlib import Path

import pytest

from biounet.core import InputError
from biounet.files import find_images, find_pairs, pair_files


def relatives(found):
    return [image.relative.as_posix() for image in found]


def stems(pairs, root):
    return [tuple(path.relative_to(root).as_posix() for path in (pair.image, pair.label)) for pair in pairs]


def test_folders_are_searched_in_natural_order_and_keep_their_tree(make):
    root = make("a10.tif", "a2.TIF", "b/x.png", "b/c/y.jpg", "notes.txt", ".hidden.tif", ".git/x.tif")
    assert relatives(find_images([root])) == ["a2.TIF", "a10.tif", "b/c/y.jpg", "b/x.png"]


def test_outputs_and_annotations_are_no_images_unless_named(make):
    root = make("a.tif", "a_labels.tif", "a_overlay.png", "a_masks.tif", "a_mask.png", "b_labels.ome.tif")
    assert relatives(find_images([root])) == ["a.tif"]
    assert relatives(find_images([f"{root}/*"])) == ["a.tif"]
    assert relatives(find_images([root / "a_masks.tif"])) == ["a_masks.tif"]


def test_results_inside_the_input_folder_are_no_input(make):
    out = ("a_labels.tif", "a_overlay.png", "a_objects.csv", "counts.csv", "report.html", "s/b_labels.tif")
    root = make("a.tif", "s/b.tif", *(f"biounet-out/{name}" for name in out), "model.safetensors", "model.curve.png")
    assert relatives(find_images([root])) == ["a.tif", "s/b.tif"]
    assert relatives(find_images([f"{root}/**/*"])) == ["a.tif", "s/b.tif"]


def test_endings_in_capitals(make):
    root = make("a.TIF", "a_Mask.PNG", "b.tif", "b_LABELS.tif", "b_Overlay.png")
    assert relatives(find_images([root])) == ["a.TIF", "b.tif"]
    assert stems(find_pairs(root), root) == [("a.TIF", "a_Mask.PNG"), ("b.tif", "b_LABELS.tif")]


def test_results_can_be_annotations(make):
    root = make("i/a.tif", "out/a_labels.tif", "out/a_overlay.png", "out/a_objects.csv")
    assert stems(find_pairs(root / "i", root / "out"), root) == [("i/a.tif", "out/a_labels.tif")]


def test_a_folder_of_masks_says_why_nothing_is_found(make):
    with pytest.raises(InputError, match="without names that end in _masks"):
        find_images([make("x_masks.tif")])


def test_a_folder_that_cannot_be_listed(make, monkeypatch):
    root = make("a.tif", "closed/b.tif")
    scandir = os.scandir

    def guarded(path):
        if str(path).endswith("closed"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    good, bad = find_images([root])
    assert (good.relative, good.problem) == (Path("a.tif"), "")
    assert (bad.relative, bad.problem) == (Path("closed"), "cannot look into this folder: Permission denied")
    for find in (lambda: find_images([root / "closed"]), lambda: find_pairs(root)):
        with pytest.raises(InputError, match="closed: cannot look into this folder: Permission denied"):
            find()


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "x" * 300 + "/*.tif"], ids=["long", "NUL", "long pattern"])
def test_names_that_no_file_can_have(name):
    for find in (find_pairs, lambda name: find_images([name])):
        with pytest.raises(InputError):
            find(name)


def test_patterns_keep_the_tree_below_their_fixed_part(make, monkeypatch):
    root = make("p/1/x.tif", "p/2/x.tif", "p/2/y.png")
    assert relatives(find_images([f"{root}/p/*/x.tif"])) == ["1/x.tif", "2/x.tif"]
    assert relatives(find_images([f"{root}/**/*.tif"])) == ["p/1/x.tif", "p/2/x.tif"]
    monkeypatch.chdir(root)
    assert relatives(find_images(["*/2/*"])) == ["p/2/x.tif", "p/2/y.png"]


def test_a_file_whose_name_looks_like_a_pattern(make):
    root = make("a[1].tif", "a1.tif", "b*.tif")
    assert relatives(find_images([root / "a[1].tif", root / "b*.tif"])) == ["a[1].tif", "b*.tif"]


def test_each_image_is_found_once(make):
    root = make("a.tif", "b.tif")
    assert relatives(find_images([root / "b.tif", root, f"{root}/*.tif"])) == ["b.tif", "a.tif"]


def test_links_to_folders_are_followed_but_not_in_circles(make, tmp_path):
    make("data/a.tif", "far/b.tif")
    (tmp_path / "data/far").symlink_to(tmp_path / "far")
    (tmp_path / "data/round").symlink_to(tmp_path / "data")
    (tmp_path / "data/broken.tif").symlink_to(tmp_path / "nowhere")
    assert relatives(find_images([tmp_path / "data"])) == ["a.tif", "broken.tif", "far/b.tif"]


def test_a_broken_link_is_an_image_that_fails_however_it_is_named(make, monkeypatch):
    root = make("a.tif")
    (root / "b.tif").symlink_to(root / "nowhere")
    monkeypatch.chdir(root)
    for inputs in (["a.tif", "b.tif"], ["."], ["*.tif"], [root]):
        assert relatives(find_images(inputs)) == ["a.tif", "b.tif"]
    assert stems(find_pairs(make("i/a.tif", "l/a.tif") / "i", root / "l"), root) == [("i/a.tif", "l/a.tif")]


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        (["p1", "p2"], ["p1/f.tif", "p1/s/f.tif", "p2/f.tif"]),
        (["p1", "p1/", "../{root}/p1"], ["f.tif", "s/f.tif"]),
        (["x/i", "y/i"], ["x/i/f.tif", "y/i/f.tif", "y/i/g.tif"]),
        (["p1", "p1/s"], ["p1/f.tif", "p1/s/f.tif"]),
        (["p1/f.tif", "p2/f.tif", "y/i/g.tif"], ["p1/f.tif", "p2/f.tif", "g.tif"]),
        (["p1/f.tif", "p1/../p1/f.tif"], ["f.tif"]),
        (["x/i", "p2/f.tif"], ["i/f.tif", "p2/f.tif"]),
    ],
)
def test_images_of_several_folders_are_distinguished_by_the_names_of_these(make, monkeypatch, inputs, expected):
    root = make("p1/f.tif", "p1/s/f.tif", "p2/f.tif", "x/i/f.tif", "y/i/f.tif", "y/i/g.tif")
    monkeypatch.chdir(root)
    assert relatives(find_images([one.format(root=root.name) for one in inputs])) == expected


@pytest.mark.parametrize("name", ["missing.tif", "missing/", "*.tif", ""])
def test_nothing_found(make, name):
    root = make("only_labels.tif", "notes.txt")
    with pytest.raises(InputError):
        find_images([root / name])


def test_two_folders_with_the_same_stems(make):
    root = make("i/a.tif", "i/b.ome.tif", "i/s/c.jpg", "l/a.png", "l/b_masks.tif", "l/s/c_label.tif")
    assert stems(find_pairs(root / "i", root / "l"), root) == [
        ("i/a.tif", "l/a.png"),
        ("i/b.ome.tif", "l/b_masks.tif"),
        ("i/s/c.jpg", "l/s/c_label.tif"),
    ]


def test_siblings(make):
    root = make("a.tif", "a_masks.tif", "b.tif", "b_labels.png", "c.png", "c_mask.tif", "a_overlay.png")
    expected = [("a.tif", "a_masks.tif"), ("b.tif", "b_labels.png"), ("c.png", "c_mask.tif")]
    assert stems(find_pairs(root), root) == expected
    assert stems(find_pairs(root, root), root) == expected


def test_sibling_folders(make):
    root = make("t1/images/a.jpg", "t1/masks/a.png", "t2/images/a.jpg", "t2/masks/a.png")
    pairs = [(f"t{n}/images/a.jpg", f"t{n}/masks/a.png") for n in (1, 2)]
    assert stems(find_pairs(root), root) == pairs
    inside = make("img/x.tif", "img/ann/x.tif") / "img"
    assert stems(find_pairs(inside, inside / "ann"), inside) == [("x.tif", "ann/x.tif")]


def test_one_image_and_one_annotation(make):
    root = make("a.tif", "drawn.png")
    assert stems(find_pairs(root / "a.tif", root / "drawn.png"), root) == [("a.tif", "drawn.png")]


def test_a_table(make):
    root = make("raw/a.tif", "b.tif", "ann/a.png", "ann/b.png")
    table = root / "pairs.csv"
    table.write_text("\ufeffimage,label,who\nraw/a.tif,ann/a.png,x\nb.tif,ann/b.png,y\n", encoding="utf-8")
    assert stems(find_pairs(table), root) == [("raw/a.tif", "ann/a.png"), ("b.tif", "ann/b.png")]
    table.write_text("image,label\nraw/a.tif,ann/nowhere.png\nghost.tif,ann/b.png\n")
    with pytest.raises(InputError, match=r"nowhere\.png does not exist; .*ghost\.tif does not exist"):
        find_pairs(table)


@pytest.mark.parametrize("text", ["", "picture,mask\na,b\n", "image,label\na.tif\n", "image,label\n,b.tif\n"])
def test_an_invalid_table_is_refused(tmp_path, text):
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(InputError):
        find_pairs(tmp_path / "x.csv")


def test_everything_without_a_partner_is_listed_at_once(make):
    root = make("i/a.tif", "i/b.tif", "i/c.tif", "i/c.png", "l/a.tif", "l/a_masks.tif", "l/z.tif", "l/c.tif")
    pairs, unpaired = pair_files(root / "i", root / "l")
    assert stems(pairs, root) == [("i/a.tif", "l/a.tif"), ("i/c.png", "l/c.tif")]
    messages = [" ".join(Path(word).name for word in problem.cause.split()) for problem in unpaired.problems]
    assert messages == [
        "a_masks.tif and a.tif are both annotations of one image",
        "b.tif has no annotation",
        "c.tif and c.png have one name",
        "z.tif has no image",
    ]
    with pytest.raises(InputError) as caught:
        find_pairs(root / "i", root / "l")
    assert all(name in str(caught.value) for name in ("b.tif", "z.tif", "c.png"))


def test_one_name_in_two_spellings(make):
    """A Mac writes umlauts as two characters, Windows pays no heed to capitals."""
    root = make("i/Zelle ä.tif", "l/Zelle a\u0308.tif", "i/Cell1.TIF", "l/cell1_Mask.png")
    assert [pair.label.name for pair in find_pairs(root / "i", root / "l")] == ["cell1_Mask.png", "Zelle a\u0308.tif"]
    both = make("j/a.tif", "j/A.tif", "m/a.tif", "m/A.tif")
    assert {(pair.image.name, pair.label.name) for pair in find_pairs(both / "j", both / "m")} == {
        ("a.tif", "a.tif"),
        ("A.tif", "A.tif"),
    }


@pytest.mark.parametrize("end", ["-mask", "-labels", ".seg", " mask", "_seg-manual", "-cp_masks"])
def test_endings_of_annotations_whatever_is_before_them(make, end):
    root = make("a b.tif", f"a b{end}.png", "i/x.tif", f"l/x{end}.tif")
    assert stems(find_pairs(root / "i", root / "l"), root) == [("i/x.tif", f"l/x{end}.tif")]
    assert relatives(find_images([root])) == ["a b.tif", "i/x.tif"]


def test_images_with_an_ending_of_their_own(make):
    """As in the data of Cellpose."""
    root = make("000_img.png", "000_masks.png", "001_img.png", "001_masks.png")
    assert stems(find_pairs(root), root) == [(f"00{n}_img.png", f"00{n}_masks.png") for n in (0, 1)]
    other = make("i/a.tif", "i/a_img.tif", "l/a.tif", "l/a_img.tif")
    assert len(find_pairs(other / "i", other / "l")) == 2


def test_images_that_are_named_like_annotations(make):
    """In a folder of images, if there is an annotation of that name."""
    root = make("i/face_mask.tif", "l/face_mask.tif", "i/siRNA_label.tif", "l/siRNA_label_masks.tif")
    expected = [("i/face_mask.tif", "l/face_mask.tif"), ("i/siRNA_label.tif", "l/siRNA_label_masks.tif")]
    assert stems(find_pairs(root / "i", root / "l"), root) == expected
    mixed = make("j/a.tif", "j/a_mask.tif", "m/a_mask.tif")
    assert stems(find_pairs(mixed / "j", mixed / "m"), mixed) == [("j/a.tif", "m/a_mask.tif")]
    siblings = make("k/siRNA_label.tif", "k/siRNA_label_masks.tif", "k/b.tif", "k/b_mask.tif") / "k"
    assert {pair.image.name: pair.label.name for pair in find_pairs(siblings)} == {
        "siRNA_label.tif": "siRNA_label_masks.tif",
        "b.tif": "b_mask.tif",
    }


@pytest.mark.parametrize("end", ["_GT", "_Object Identities", "-nuclei"])
def test_an_unknown_ending_of_annotations_is_suggested_as_setting(make, end):
    root = make("i/a.tif", f"l/a{end}.tif")
    with pytest.raises(InputError) as caught:
        find_pairs(root / "i", root / "l")
    assert f"if a{end}.tif is it, say which in the recipe, such as data.annotation = '{end[1:]}'" in str(caught.value)
    assert stems(find_pairs(root / "i", root / "l", (), (end[1:],)), root) == [("i/a.tif", f"l/a{end}.tif")]
    other = make("j/img_1.tif", "m/drawn_1.tif")
    assert "in a CSV with the columns image and label" in str(pair_files(other / "j", other / "m")[1].problems[-1])


def test_no_pair_at_all(make):
    root = make("a/x.txt")
    for images, labels in ((root / "a", None), (root / "none", root), (root / "a", root / "none")):
        with pytest.raises(InputError):
            find_pairs(images, labels)


@pytest.mark.parametrize("name", ["b_masks.tif", "b.tif"])
def test_a_broken_link_among_annotations_is_listed(make, name):
    folder = make("img/a.tif", "img/b.tif", "lab/a_masks.tif")
    (folder / "lab" / name).symlink_to(folder / "nowhere.tif")
    _, unpaired = pair_files(folder / "img", folder / "lab")
    assert [(file.path.name, file.reason) for file in unpaired.skipped] == [(name, "not a file")]
