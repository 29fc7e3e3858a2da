"""Tests of nepa_mm."""
