"""What a user gives: data sets, paths and sizes, and whether coordinates fit the micrographs."""
