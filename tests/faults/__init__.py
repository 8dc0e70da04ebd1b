"""Faults made on purpose: disks, kills, long runs. Scripts by hand, short versions in the suite."""

import sys
from pathlib import Path

# As pytest does for the tests: the scripts use their tiny runs
sys.path.insert(0, str(Path(__file__).parents[1]))
