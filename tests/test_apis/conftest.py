"""The folder of tests/predictors.py, which the tests of prediction run in."""

import pytest

from tests.predictors import make_site


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return make_site(tmp_path_factory.mktemp('site'))


@pytest.fixture
def site(folder, monkeypatch):
    monkeypatch.chdir(folder)
    return folder
