"""Decides which patches, windows or masks go into a store."""
