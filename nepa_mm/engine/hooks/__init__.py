"""Hooks."""

from .probe_hook import ProbeHook

__all__ = ['ProbeHook']
