"""Files that are whole or absent, JSON, fingerprints."""
