"""Timing that survives a shared machine: several things in one process, in turns."""

import gc
import time
from collections.abc import Callable, Mapping, Sequence

import torch


def interleave(
    functions: Mapping[str, Callable[[], object]],
    rounds: int = 7,
    warmup: int = 2,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Time several functions in turns, so that a neighbour's load falls on all of them alike.

    The order is reversed in every second round: what runs right after a heavy function finds a warmer, or a more
    throttled, machine than what runs first. The garbage collector runs between calls, never in one. Where CUDA is in
    use, each call is timed until the device has finished.

    Args:
        functions (Mapping[str, Callable]): What to time, by name.
        rounds (int): Timed calls of each. Defaults to 7.
        warmup (int): Calls of each before, not timed. Defaults to 2.
        clock (Callable): Seconds, as a float. Defaults to ``time.perf_counter``.

    Returns:
        dict[str, list[float]]: Seconds per call, in the order of rounds: entry ``i`` of every list is of round ``i``.

    Raises:
        ValueError: There is nothing to time, ``rounds`` is below 1 or ``warmup`` is negative.
    """
    if not functions or rounds < 1 or warmup < 0:
        raise ValueError(
            f'interleave: {len(functions)} functions, {rounds} rounds, {warmup} warm-up calls; expected at least one '
            'function, one round and no negative warm-up.'
        )
    synchronize = torch.cuda.synchronize if torch.cuda.is_initialized() else lambda: None
    for function in functions.values():
        for _ in range(warmup):
            function()
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    collecting = gc.isenabled()
    try:
        for number in range(rounds):
            for name in list(functions)[:: 1 if number % 2 == 0 else -1]:
                gc.collect()
                gc.disable()
                synchronize()
                start = clock()
                functions[name]()
                synchronize()
                seconds[name].append(clock() - start)
    finally:
        if collecting:
            gc.enable()
    return seconds


def ratios(a: Sequence[float], b: Sequence[float]) -> list[float]:
    """Quotients round by round: their median is steadier than the quotient of two medians.

    Args:
        a (Sequence[float]): Seconds of each round.
        b (Sequence[float]): Seconds of the same rounds.

    Returns:
        list[float]: ``a[i] / b[i]``.

    Raises:
        ValueError: The lengths differ.
    """
    return [x / y for x, y in zip(a, b, strict=True)]
