"""Micrographs: image files of several formats as arrays, all in the frame of the JPEG."""
