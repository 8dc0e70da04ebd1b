"""How good picks are: matching with the truth, metrics, tables and pictures of both."""
