"""Rounds: a network learns from the labels so far, picks all micrographs, and proposes."""
