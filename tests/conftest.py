"""Fixtures shared by all tests."""

import logging
import os
import random
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope
from mmengine.utils import ManagerMixin


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Give torch one thread, before fixtures of any scope; a benchmark's test may have taken more.

    The models here are tiny: more threads only wait for each other, and the last bits of a sum would depend on the
    machine's core count.
    """
    torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give slow tests an hour instead of the limit in pyproject.toml."""
    for item in items:
        if item.get_closest_marker('slow'):
            item.add_marker(pytest.mark.timeout(3600))


@pytest.fixture(autouse=True)
def seed() -> int:
    """Seed every generator, so that a test does not depend on those that ran before it."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    return 0


@pytest.fixture(autouse=True)
def no_default_scope(monkeypatch):
    """Forget the default scope that a runner of another test has left behind: mmengine keeps it for the process."""
    monkeypatch.setattr(DefaultScope, '_instance_dict', OrderedDict())


@pytest.fixture(autouse=True)
def no_earlier_runs(monkeypatch):
    """Forget a test's loggers and visualizers after it: a run of the next test in the same second has their names."""
    copies: dict[int, OrderedDict] = {}
    classes = [ManagerMixin]
    while classes:
        cls = classes.pop()
        classes += cls.__subclasses__()
        known = cls._instance_dict
        monkeypatch.setattr(cls, '_instance_dict', copies.setdefault(id(known), OrderedDict(known)))


@pytest.fixture
def logged() -> Iterator[list[str]]:
    """Texts given to mmengine's current logger, whose own stream may be that of an earlier test."""
    texts: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            texts.append(record.getMessage())

    handler, logger = Keep(), MMLogger.get_current_instance()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)  # an earlier test may have asked for less
    yield texts
    logger.setLevel(level)
    logger.removeHandler(handler)


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, str]]:
    """What all of mmengine's loggers say, also those that the test makes, as (level, text)."""
    records: list[tuple[int, str]] = []
    original = MMLogger.callHandlers

    def call_handlers(self: MMLogger, record: logging.LogRecord) -> None:
        records.append((record.levelno, record.getMessage()))
        original(self, record)

    monkeypatch.setattr(MMLogger, 'callHandlers', call_handlers)
    return records


@pytest.fixture(scope='session')
def real_data() -> Path:
    """Folder with real images, or a skip that says how to provide it."""
    given = os.environ.get('NEPA_MM_DATA')
    if not given:
        pytest.skip('needs real images: set NEPA_MM_DATA to a folder that holds them')
    folder = Path(given)
    if not folder.is_dir():
        pytest.fail(f'NEPA_MM_DATA is {given!r}, which is not a folder')
    return folder
