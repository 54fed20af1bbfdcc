"""Give closed forms, one file for each family; simulators never import what they check."""
