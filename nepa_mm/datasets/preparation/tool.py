"""The command line that all converters share."""

import argparse
import os
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from .sources import PreparationError

# Problems and names listed in full before the rest is only counted.
SHOWN = 10


@dataclass(frozen=True)
class Options:
    """What the user of a converter chooses.

    Args:
        any_count: Accept a subset of the published files. Defaults to False.
        link: Link to files on disk that stay as they are, instead of copying them. Defaults to False.
        nproc: Number of processes. Defaults to 1.
    """

    any_count: bool = False
    link: bool = False
    nproc: int = 1


DEFAULTS = Options()


def name_some(names: Collection[str]) -> str:
    """The first of many names, and how many more there are."""
    ordered = sorted(names)
    more = f' and {len(ordered) - SHOWN} more' if len(ordered) > SHOWN else ''
    return ', '.join(ordered[:SHOWN]) + more


def raise_problems(sources: Sequence[str | os.PathLike], problems: Sequence[str]) -> None:
    """Raise if there are problems.

    Args:
        sources: What was given.
        problems: What is wrong, one line each.

    Raises:
        PreparationError: Names the first problems and counts the rest.
    """
    if problems:
        more = len(problems) - SHOWN
        lines = [*problems[:SHOWN], *([f'... and {more} more problems'] if more > 0 else [])]
        names = ', '.join(map(str, sources))
        raise PreparationError('\n  '.join([f'{names}: not as expected:', *lines]))


def run_tool(
    name: str,
    description: str,
    convert: Callable[[Sequence[str], str | None, Options], dict[str, int]],
    sources: str,
    argv: Sequence[str] | None = None,
) -> int:
    """Run a converter from the command line.

    Args:
        name: Of the tool.
        description: What it does.
        convert: Sources, target (None to check only) and options to the number of images per split.
        sources: What the sources are, for the help.
        argv: The arguments. Defaults to those of the process.

    Returns:
        Exit status: 0, or 1 after a message.
    """
    parser = argparse.ArgumentParser(
        prog=f'{name}.py',
        description=description,
        usage='%(prog)s [-h] [--any-count] [--link] [--nproc N] SRC [SRC ...] DST\n'
        '       %(prog)s [-h] [--any-count] [--nproc N] --check SRC [SRC ...]',
    )
    parser.add_argument('paths', nargs='+', metavar='SRC ... DST', help=f'{sources}; then the folder to write')
    parser.add_argument('--check', action='store_true', help='only check the sources, write nothing')
    parser.add_argument('--any-count', action='store_true', help='accept a subset of the published files')
    parser.add_argument('--link', action='store_true', help='link to files on disk instead of copying them')
    cores = min(8, os.cpu_count() or 1)
    parser.add_argument('--nproc', type=int, default=cores, metavar='N', help=f'processes (default: {cores})')
    args = parser.parse_intermixed_args(argv)
    if len(args.paths) < 2 and not args.check:
        parser.error('name the sources and the folder to write, or --check and the sources')
    if args.nproc < 1:
        parser.error(f'--nproc {args.nproc}: expected 1 or more')
    dst = None if args.check else args.paths.pop()
    try:
        counts = convert(args.paths, dst, Options(args.any_count, args.link, args.nproc))
    except (PreparationError, OSError) as error:
        print(f'{name}: {error}', file=sys.stderr)
        return 1
    print(f'{dst or "checked"}: ' + ', '.join(f'{count:,} {split}' for split, count in counts.items()) + ' images')
    return 0
