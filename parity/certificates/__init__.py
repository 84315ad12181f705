"""Certificates: a report and the checksums of the files that it is about."""
