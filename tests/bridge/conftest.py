"""Folders that several modules use."""

import shutil

import pytest
import workshop as folders


@pytest.fixture(scope="session")
def new_workshop(tmp_path_factory, all_undrawn):
    out = tmp_path_factory.mktemp("workshop")
    with all_undrawn():
        folders.make(out)
    return out


@pytest.fixture(scope="module")
def workshop(new_workshop, tmp_path_factory):
    """The folders of workshop.py, of which a module may change what it likes."""
    return shutil.copytree(new_workshop, tmp_path_factory.mktemp("workshop") / "folders")
