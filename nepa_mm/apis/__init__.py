"""Prediction in Python, and what the tools share; import the module you need.

``get_model``, ``classify``, ``segment``, ``features`` and ``list_models`` are offered by :mod:`nepa_mm` itself.
"""
