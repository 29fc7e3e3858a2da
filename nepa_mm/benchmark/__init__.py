"""What a step, an image, an iteration and a token cost, beside what bounds them; and what a run will cost.

Each sub-command of ``tools/analysis/benchmark.py`` is a module here with ``HELP``, ``add_arguments(parser)`` and
``run(args)``, which gives a :class:`~nepa_mm.benchmark.report.Report`.
"""

SUBCOMMANDS = ('step', 'data', 'loop', 'memory', 'tokens', 'probing')
