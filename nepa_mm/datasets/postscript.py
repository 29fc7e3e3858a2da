"""Encapsulated PostScript is a program: Pillow runs Ghostscript on it, whatever the file's ending."""

from PIL import EpsImagePlugin


def forbid_ghostscript() -> None:
    """Have Pillow start no Ghostscript in this process: what begins as PostScript is unreadable, also as ``x.jpg``."""
    EpsImagePlugin.gs_binary = False
    EpsImagePlugin.gs_windows_binary = False  # type: ignore[assignment]  # the name before Pillow 10.1, on any system
