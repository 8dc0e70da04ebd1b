"""What the scripts share, in rooms; imports run downwards only (pyproject.toml, import-linter)."""
