"""Studies: one folder for one question. Each says which runs and measurements it needs and makes tables and figures."""
