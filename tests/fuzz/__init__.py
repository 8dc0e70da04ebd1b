"""Bad input by the thousand: every case ends in success or in one clear sentence.

The suite runs a short, fixed version; by hand: ``python -m tests.fuzz --cases 5000 --seed 0``.
"""
