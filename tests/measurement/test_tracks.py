"""Links between frames by overlap: small pictures with the expected tracks beside them, and laws."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from biounet.measurement import are_dense, link_objects, number_tracks
from biounet.synthetic import FieldSettings, MovieSettings, make_movie


def picture(text: str) -> np.ndarray:
    return np.array([[int(letter) if letter != "." else 0 for letter in row] for row in text.split()])


def tracks(*frames: str):
    images = [picture(frame) for frame in frames]
    links = [link_objects(before, after) for before, after in itertools.pairwise(images)]
    found = number_tracks([image.max() for image in images], links)
    return found.track.tolist(), found.parent.tolist(), found.count


@pytest.mark.parametrize(
    ("frames", "track", "parent"),
    [
        (["11.22", "22.11"], [1, 2, 2, 1], [0, 0, 0, 0]),  # numbers of objects do not matter
        (["111..", ".111.", "..111"], [1, 1, 1], [0, 0, 0]),
        (["11...", "...11"], [1, 2], [0, 0]),  # no overlap
        (["11...", ".....", "11..."], [1, 2], [0, 0]),  # tracks end where the object is not found
        (["11.22", "11..."], [1, 2, 1], [0, 0, 0]),  # one leaves
        (["11...", "11.22"], [1, 1, 2], [0, 0, 0]),  # one comes in
        (["111111", "111222"], [1, 2, 3], [0, 1, 1]),  # a division
        (["111111", "11.222", "11.222"], [1, 2, 3, 2, 3], [0, 1, 1, 1, 1]),
        (["11112222", "11222333"], [1, 2, 3, 4, 2], [0, 0, 1, 1, 0]),
        (["1111111111", "111111111.", "11111111.2"], [1, 1, 1, 2], [0, 0, 0, 0]),  # a fragment is no daughter
        (["1111.2222", "1111.1111"], [1, 2, 3], [0, 0, 0]),  # merged: equal overlaps, and none is the largest
        ([".....", "....."], [], []),
    ],
)
def test_pictures(frames, track, parent):
    assert tracks(*frames) == (track, parent, max(track, default=0))


def test_an_object_follows_the_one_that_it_overlaps_most():
    """The overlap counts relative to both: a small one inside a large one is not the same."""
    links = link_objects(picture("1111111122"), picture("2211111111"))
    assert links.same.tolist() == [[1, 1]]
    assert (links.linked, links.possible, links.is_jump) == (1, 2, False)


def test_a_field_that_moved_begins_new_tracks():
    before, after = picture("11..22..33..44..55..66"), picture("..11..22..33..44..55..")
    jump = link_objects(before, after)
    assert (jump.linked, jump.possible, jump.is_jump) == (0, 5, True)
    assert number_tracks([6, 5], [jump]).track.tolist() == [*range(1, 12)]
    one_stays = picture("11....22..33..44..55..")
    lost = link_objects(before, one_stays)
    assert (lost.linked, lost.is_jump) == (1, True)
    assert number_tracks([6, 5], [lost]).count == 11, "a link that is the exception is not believed"
    few = link_objects(picture("11..22"), picture("..11.."))
    assert not few.is_jump, "of so few, all may move"


@pytest.mark.parametrize(("overlapping", "dense"), [(5, True), (4, True), (3, False), (0, False)])
def test_links_are_believed_where_four_of_five_objects_have_one(overlapping, dense):
    before = picture("1.2.3.4.5.")
    after = before * (before <= overlapping) + np.roll(before * (before > overlapping), 1)
    assert are_dense([link_objects(before, after)]) == dense
    assert are_dense([])
    assert are_dense([link_objects(before, before)] * 9 + [link_objects(before, after)])


SEEDS = st.integers(0, 2**32 - 1)


def draw_image(draw, shape=(6, 7)):
    """Return labels 1..N without gaps in random places, N up to 4, and N."""
    return canonical(draw.integers(0, 5, shape) * (draw.random(shape) < 0.8))


def canonical(image):
    """Return a label image whose objects are numbered without gaps, and the count."""
    values, numbered = np.unique(image, return_inverse=True)
    numbered = numbered.reshape(image.shape) + (0 if values[0] == 0 else 1)
    return numbered, int(numbered.max())


@given(SEEDS)
def test_numbers_of_objects_do_not_change_tracks(seed):
    """Which objects share a track, and which divide, is the same however each frame is numbered."""
    draw = np.random.default_rng(seed)
    (before, n), (after, m) = draw_image(draw), draw_image(draw)
    orders = [[0, *(1 + draw.permutation(count)).tolist()] for count in (n, m)]
    found = link_objects(before, after)
    other = link_objects(np.array(orders[0])[before], np.array(orders[1])[after])
    for pairs, renumbered in ((found.same, other.same), (found.divided, other.divided)):
        assert {(orders[0][a], orders[1][b]) for a, b in pairs} == {*map(tuple, renumbered.tolist())}


@given(SEEDS)
def test_links_are_one_to_one_and_never_also_divisions(seed):
    draw = np.random.default_rng(seed)
    (before, n), (after, m) = draw_image(draw), draw_image(draw)
    same, divided, possible = link_objects(before, after)
    assert possible == min(n, m)
    for side in (0, 1):
        assert len({*same[:, side]}) == len(same)
    assert not {*same[:, 0]} & {*divided[:, 0]}
    assert len({*same[:, 1]} | {*divided[:, 1]}) == len(same) + len(divided)


@given(SEEDS, st.integers(1, 4))
def test_a_still_series_has_as_many_tracks_as_objects(seed, frames):
    image, count = draw_image(np.random.default_rng(seed))
    found = number_tracks([count] * frames, [link_objects(image, image)] * (frames - 1))
    assert found.count == count
    assert found.track.tolist() == [*range(1, count + 1)] * frames
    assert not found.parent.any()


def test_volumes_are_linked_as_images_are():
    frames = [np.stack([picture(text)] * 3) for text in ("111.22", "11.222")]
    assert link_objects(*frames).same.tolist() == [[1, 1], [2, 2]]


def test_nuclei_that_move_and_divide_are_followed():
    """The labels of a synthetic series are the tracks: almost all links and divisions are found, and none made up."""
    field = FieldSettings(shape=(200, 200), coverage=0.12, elongation=1.2, diameter_spread=0.1)
    settings = MovieSettings(field, 6, step=0.1, divisions=0.03)
    grey, truth, parents = make_movie(3, settings)
    assert grey.shape == truth.shape == (6, 200, 200)
    numbered = [canonical(frame) for frame in truth]
    links = [link_objects(a, b) for (a, _), (b, _) in itertools.pairwise(numbered)]
    assert are_dense(links)
    found = number_tracks([count for _, count in numbered], links)
    expected = np.concatenate([np.unique(frame[frame > 0]) for frame in truth])
    pairs = {*zip(expected.tolist(), found.track.tolist(), strict=True)}
    assert len(pairs) <= 1.1 * len({*expected.tolist()})  # a few are lost where one leaves the field
    divided = {*expected[found.parent > 0].tolist()}
    assert len(parents) > 2
    assert divided <= {*parents}
    assert len(divided) >= 0.5 * len({*expected.tolist()} & {*parents})
