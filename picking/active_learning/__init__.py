"""Active learning: strategies, queries and iterations of a run."""
