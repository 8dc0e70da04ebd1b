"""Labelling in the browser: the folder of labels, micrographs to look at, the server, its page."""
