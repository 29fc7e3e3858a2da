"""Looking through a data set before training on it: bad files, and the faults that train in silence."""

from .conclusions import conclude
from .configs import Part, folder_config, read_parts
from .report import Finding, Loader, print_report, verify
from .samples import LabelRule, Sample, check_sample

__all__ = [
    'Finding',
    'LabelRule',
    'Loader',
    'Part',
    'Sample',
    'check_sample',
    'conclude',
    'folder_config',
    'print_report',
    'read_parts',
    'verify',
]
