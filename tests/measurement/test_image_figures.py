"""Figures of an image from the table of its objects."""

import numpy as np

from biounet.measurement import Table, image_figures


def objects(**columns):
    return Table("objects", {name: np.array(values) for name, values in columns.items()})


def test_median_size_and_mean_confidence():
    table = objects(label=[1, 2, 3], area_px=[4, 8, 40], area_um2=[1.0, 2.0, 10.0], confidence=[0.5, 0.75, 1.0])
    assert image_figures(table) == {"median_area_um2": 2.0, "mean_confidence": 0.75}


def test_without_a_pixel_size_the_median_is_in_pixels():
    assert image_figures(objects(label=[1, 2], area_px=[4, 9])) == {"median_area_px": 6.5}


def test_without_objects_there_is_no_median():
    assert image_figures(objects(label=[], area_px=[], confidence=[])) == {
        "median_area_px": None,
        "mean_confidence": None,
    }


def test_of_lesions_those_of_the_first_region_count():
    names = np.array(["whole", "whole", "whole", "core", "core"], object)
    sizes = {"voxels": np.array([9, 6, 3, 2, 2]), "volume_mm3": np.array([9.0, 6.0, 3.0, 2.0, 2.0])}
    table = Table("lesions", {"class": names, "lesion": np.array([0, 1, 2, 0, 1]), **sizes})
    assert image_figures(table) == {"median_volume_mm3": 4.5}


def test_classes_of_an_image_have_none():
    columns = {"class": np.array(["a"], object), "label": np.array([1]), "area_px": np.array([7])}
    assert image_figures(Table("classes", columns)) == {}
