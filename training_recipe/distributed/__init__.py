"""Several processes and devices that train one run together."""
