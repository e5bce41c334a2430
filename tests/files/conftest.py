"""What tests of folders share."""

import pytest


@pytest.fixture
def make(tmp_path):
    """Make empty files by name, with their folders; return the folder that holds them."""

    def touch(*names):
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        return tmp_path

    return touch
