"""Both twins on every kind of config, and the bounds they are held to."""
