"""One file per naming family, each a table of rules from its names to the canonical ones."""
