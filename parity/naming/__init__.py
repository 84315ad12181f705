"""The search for a table of names: the float64 comparison with the module itself is the judge."""
