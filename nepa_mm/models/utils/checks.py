"""Checks of arguments that come from config files, where a wrong type is as likely as a wrong value."""

from typing import Any


def is_count(value: Any, least: int = 1) -> bool:
    """Whether ``value`` is an integer of at least ``least`` (and no bool, which Python takes for one)."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def is_rate(value: Any) -> bool:
    """Whether ``value`` is a number in [0, 1)."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1
