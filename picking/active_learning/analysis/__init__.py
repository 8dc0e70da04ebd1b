"""Runs of active learning compared: learning curves, verdicts, tables and plots."""
