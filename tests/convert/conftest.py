"""The modules of cases beside this file are found by the tests of every room below."""
