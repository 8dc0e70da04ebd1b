"""What the scripts share, in rooms; arrows run downwards only (pyproject.toml, import-linter)."""
