"""RELION's lists of files, optics groups and origins, and a folder like that of its picking."""
