"""What a user gives on the command line: paths and sizes; and whether coordinates fit."""
