"""Micrographs to look at: pyramids of tiles, thumbnails, and both of them kept."""
