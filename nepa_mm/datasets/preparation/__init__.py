"""What the tools in tools/dataset_converters share: reading archives in place, checking, writing all or nothing."""

from .labels import DECODE_ERRORS, LabelTable, decode_label, decode_sbd, image_size
from .pairs import Pair, check_count, convert_pairs, copy_images, pair_files
from .sources import PreparationError, SourceFile, collect_files, match_files
from .tool import DEFAULTS, Options, name_some, raise_problems, run_tool
from .writing import iter_parallel, new_folder, run_parallel

__all__ = [
    'DECODE_ERRORS',
    'DEFAULTS',
    'LabelTable',
    'Options',
    'Pair',
    'PreparationError',
    'SourceFile',
    'check_count',
    'collect_files',
    'convert_pairs',
    'copy_images',
    'decode_label',
    'decode_sbd',
    'image_size',
    'iter_parallel',
    'match_files',
    'name_some',
    'new_folder',
    'pair_files',
    'raise_problems',
    'run_parallel',
    'run_tool',
]
