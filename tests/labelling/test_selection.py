"""Objects that users do not want are dropped, and how many by which choice."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from biounet.labelling import ObjectFilter, Objects, select_objects

LABELS = np.array(
    [
        [1, 1, 0, 0, 0, 0],
        [0, 0, 0, 2, 2, 0],
        [0, 3, 0, 2, 2, 0],
        [0, 0, 0, 0, 0, 0],
        [0, 4, 4, 4, 0, 0],
        [0, 0, 0, 0, 0, 0],
    ],
    np.int32,
)
OBJECTS = Objects(LABELS, np.array([2, 4, 1, 3]), np.array([0.9, 0.8, 0.7, 0.2]), too_small=5)


def test_nothing_is_dropped_without_a_choice():
    kept, dropped = select_objects(OBJECTS, ObjectFilter())
    assert kept is OBJECTS
    assert dropped == {}


def test_large_unsure_and_cut_objects_are_dropped_and_the_others_renumbered():
    kept, dropped = select_objects(OBJECTS, ObjectFilter(max_voxels=3, min_confidence=0.5, exclude_border=True))
    assert dropped == {"max_size": 1, "min_confidence": 1, "exclude_border": 1}
    assert np.array_equal(kept.labels, LABELS == 3)
    assert kept.count.tolist() == [1]
    assert kept.confidence.tolist() == [0.7]
    assert kept.too_small == 5


def test_an_object_counts_for_the_first_choice_that_drops_it():
    unsure = Objects(LABELS, OBJECTS.count, np.zeros(4))
    _, dropped = select_objects(unsure, ObjectFilter(max_voxels=3, min_confidence=0.5))
    assert dropped == {"max_size": 1, "min_confidence": 3}


def test_every_face_of_a_volume_is_its_edge():
    for axis in range(3):
        for side in (0, 4):
            labels = np.zeros((5, 5, 5), np.int32)
            labels[2, 2, 2] = 1
            at = [2, 2, 2]
            at[axis] = side
            labels[tuple(at)] = 2
            kept, dropped = select_objects(
                Objects(labels, np.ones(2, int), np.ones(2)), ObjectFilter(exclude_border=True)
            )
            assert dropped == {"exclude_border": 1}
            assert kept.labels[2, 2, 2] == 1
            assert kept.labels.sum() == 1


@given(
    hnp.arrays(np.int32, (6, 7), elements=st.integers(0, 5)),
    st.integers(0, 20),
    st.floats(0, 1),
    st.booleans(),
)
def test_what_is_kept_is_what_the_table_of_all_objects_says(labels, largest, lowest, exclude):
    ids = np.unique(labels[labels > 0])
    labels = np.searchsorted(ids, labels).astype(np.int32) + np.where(labels > 0, 1, 0).astype(np.int32)
    labels[labels < 0] = 0
    count = np.bincount(labels.ravel(), minlength=len(ids) + 1)[1:]
    confidence = np.linspace(0, 1, len(ids))
    kept, dropped = select_objects(Objects(labels, count, confidence), ObjectFilter(largest, lowest, exclude))
    edge = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    wanted = [
        n
        for n in range(1, len(ids) + 1)
        if count[n - 1] <= largest and confidence[n - 1] >= lowest and not (exclude and n in edge)
    ]
    expected = np.zeros_like(labels)
    for new, old in enumerate(wanted, 1):
        expected[labels == old] = new
    assert np.array_equal(kept.labels, expected)
    assert sum(dropped.values()) == len(ids) - len(wanted)
    assert kept.count.tolist() == [count[n - 1] for n in wanted]
