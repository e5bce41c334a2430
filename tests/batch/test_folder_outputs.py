"""Outputs that are folders, such as the labels of a large image, are known by all of their files."""

import numpy as np
import pytest

from biounet.batch.recorded_files import has_hash, tree_difference
from biounet.core import Grid, InputError
from biounet.files import STORE_SUFFIX, StoreOptions, create_label_store, hash_tree, pair_results, write_shard
from biounet.reporting import possible_outputs, remove_files


@pytest.fixture
def stores(tmp_path):
    """Two equal stores."""
    for folder in ("now", "then"):
        (tmp_path / folder).mkdir()
        store = create_label_store(tmp_path / folder / f"a{STORE_SUFFIX}", Grid((100, 100)), StoreOptions((50, 50)))
        for region in store.levels[0].regions():
            write_shard(store, region, np.full((50, 50), 3, np.int32))
    return tmp_path / "now" / f"a{STORE_SUFFIX}", tmp_path / "then" / f"a{STORE_SUFFIX}"


def test_a_changed_missing_or_extra_shard_is_named(stores):
    now, then = stores
    assert tree_difference(now, then) == ""
    assert has_hash(now, hash_tree(then))
    (now / "0" / "c" / "1" / "1").write_bytes(b"x")
    (now / "0" / "c" / "0" / "1").unlink()
    (now / "0" / "c" / "7").write_bytes(b"x")
    assert tree_difference(now, then) == "0/c/0/1 missing, 0/c/1/1 changed, 0/c/7 extra"
    assert not has_hash(now, hash_tree(then))


def test_a_folder_is_removed_as_a_file_is(stores):
    now, then = stores
    remove_files([now, now])
    assert not now.exists()
    assert then.exists()
    assert not has_hash(now, hash_tree(then))
    assert then.as_posix() in possible_outputs(then.parent.as_posix(), "a")


def test_a_store_is_the_result_of_its_annotation(stores, tmp_path):
    (tmp_path / "truth").mkdir()
    with pytest.raises(InputError, match="no annotation found"):
        pair_results(tmp_path / "then", tmp_path / "truth")
    (tmp_path / "truth" / "a.tif").write_bytes(b"")
    (pair,) = pair_results(tmp_path / "then", tmp_path / "truth")
    assert pair.predicted == stores[1]
