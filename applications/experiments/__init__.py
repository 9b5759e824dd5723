"""What all applications share: an experiment, its runner, records, tables and figures."""
