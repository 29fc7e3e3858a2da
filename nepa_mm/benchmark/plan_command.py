"""tools/analysis/plan.py: from a config's name and some GPUs to a printed plan."""

import argparse
import json
import logging
from pathlib import Path

from mmengine.logging import MMLogger

from nepa_mm.apis.cli import UsageError, load_config, parse_options

from .plan import Plan, make_plan
from .plan_gpus import GPUS
from .plan_rates import MeasuredError, read_rates
from .plan_text import plan_text


def run_plan(args: argparse.Namespace, configs: str | Path, measured: str | Path) -> Plan:
    """Plan as the command line says, and print it.

    Args:
        args (argparse.Namespace): Arguments of tools/analysis/plan.py.
        configs (str | Path): Folder whose configs have names.
        measured (str | Path): The file of rates that comes with the tool.

    Returns:
        Plan: What was printed.

    Raises:
        UsageError: An argument does not fit.
    """
    if args.gpu not in GPUS:
        raise UsageError(f'--gpu {args.gpu!r} is unknown; choose one of {", ".join(GPUS)}')
    for option in ('gpus', 'images'):
        if getattr(args, option) is not None and getattr(args, option) < 1:
            raise UsageError(f'--{option} {getattr(args, option)} is not positive')
    cfg = load_config(args.config, configs)
    cfg.merge_from_dict(parse_options(args.cfg_options))
    MMLogger.get_current_instance().setLevel(logging.WARNING)  # what models say when they are built
    try:
        rates = read_rates([*(args.measured or ()), measured])
        plan = make_plan(cfg, args.gpu, args.gpus, rates, Path(args.config).stem, args.images)
    except MeasuredError as error:
        raise UsageError(str(error)) from error
    print(json.dumps(plan.as_json(), indent=1) if args.json else plan_text(plan))
    return plan
