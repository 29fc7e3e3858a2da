"""Functions take turns, and only their own time counts."""

import gc

import pytest

from nepa_mm.benchmark.timing import interleave, ratios


class Clock:
    """Time passes only where a function says so."""

    def __init__(self):
        self.now = 0.0
        self.calls = []

    def spend(self, name, seconds):
        def function():
            self.calls.append((name, gc.isenabled()))
            self.now += seconds

        return function

    def __call__(self):
        return self.now


def test_times_in_turns_and_reverses_every_second_round():
    clock = Clock()
    seconds = interleave(dict(a=clock.spend('a', 1.0), b=clock.spend('b', 3.0)), rounds=3, warmup=1, clock=clock)
    assert seconds == dict(a=[1.0] * 3, b=[3.0] * 3)
    assert [name for name, _ in clock.calls] == ['a', 'b', 'a', 'b', 'b', 'a', 'a', 'b']


def test_the_garbage_collector_rests_while_a_call_is_timed():
    clock = Clock()
    interleave(dict(a=clock.spend('a', 1.0)), rounds=2, warmup=0, clock=clock)
    assert [enabled for _, enabled in clock.calls] == [False, False]
    assert gc.isenabled()


def test_a_failing_function_leaves_the_garbage_collector_on():
    def fail():
        raise RuntimeError('no')

    with pytest.raises(RuntimeError, match='no'):
        interleave(dict(a=fail), warmup=0)
    assert gc.isenabled()


@pytest.mark.parametrize('settings', [dict(functions={}), dict(rounds=0), dict(warmup=-1)])
def test_refuses_what_measures_nothing(settings):
    with pytest.raises(ValueError, match='expected at least one function'):
        interleave(**{'functions': {'a': int}, **settings})


def test_ratios_are_of_the_same_round():
    assert ratios([2.0, 9.0], [1.0, 3.0]) == [2.0, 3.0]
    with pytest.raises(ValueError, match='argument 2 is shorter'):
        ratios([1.0, 2.0], [1.0])
