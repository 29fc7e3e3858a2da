"""The error that a mistake in what is asked of a probe raises."""


class ProbeError(ValueError):
    """Layers, poolings, data or settings do not fit; the message says what would."""
