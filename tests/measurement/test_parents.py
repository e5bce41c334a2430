"""Objects in larger objects: small pictures, and laws."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from biounet.measurement.parents import find_parents
from support.label_images import label_images, picture


def test_an_object_lies_in_the_one_that_holds_most_of_it():
    found = find_parents(picture("1111.22. .33.444."), picture("1112.33. ....2222"))
    assert found.parent.tolist() == [1, 3, 0, 2]
    assert found.fraction.tolist() == [0.75, 1, 0, 1]
    assert found.crosses.tolist() == [True, False, False, False]


def test_an_object_that_lies_mostly_outside_has_no_parent():
    found = find_parents(picture("11111 22.33"), picture("..112 2...."))
    assert found.parent.tolist() == [1, 2, 0], "half of the second lies inside, and three fifths of the first"
    assert found.fraction.tolist() == [0.4, 0.5, 0]


def test_of_equal_parts_the_first_parent_counts():
    assert find_parents(picture("11"), picture("21")).parent.tolist() == [1]


def test_a_few_pixels_in_a_neighbour_are_no_crossing():
    labels, cells = np.ones((1, 30), np.int32), np.ones((1, 30), np.int32)
    cells[0, -2:] = 2
    assert find_parents(labels, cells).crosses.tolist() == [False]
    cells[0, -3:] = 2
    assert find_parents(labels, cells).crosses.tolist() == [True]


@given(label_images(longest=7), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=50)
def test_parents_equal_a_slow_reference(objects, random):
    parents = np.array([random.choice([0, 1, 2]) for _ in range(objects.size)]).reshape(objects.shape)
    parents[parents == 2] = 2 if 1 in parents else 1
    found = find_parents(objects, parents)
    for k in range(1, objects.max() + 1):
        inside = parents[objects == k]
        counts = np.bincount(inside, minlength=3)
        expected = 1 + int(np.argmax(counts[1:])) if counts[1:].sum() * 2 >= counts.sum() else 0
        assert found.parent[k - 1] == expected
        assert found.fraction[k - 1] == (counts[expected] / counts.sum() if expected else 0)
        assert found.crosses[k - 1] == (np.sort(counts[1:])[-2] >= 0.1 * counts.sum())


@given(label_images(longest=9))
@settings(deadline=None, max_examples=30)
def test_every_object_lies_in_itself(labels):
    found = find_parents(labels, labels)
    assert found.parent.tolist() == list(range(1, labels.max() + 1))
    assert (found.fraction == 1).all()
    assert not found.crosses.any()
