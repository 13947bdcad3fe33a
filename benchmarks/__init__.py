"""Measurements: ratios, paired in one run. None of them is a test."""
