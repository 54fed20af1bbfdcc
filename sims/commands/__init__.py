"""The commands of `speclens`, one file each."""
