"""Analysis: functions from tables to a table, each used by two studies or more."""
