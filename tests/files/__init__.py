"""Small files as users bring them, a row each, with what must come out of the scripts."""
