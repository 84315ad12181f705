"""What everything in the converter is made of: named arrays, operations, rules, the ledger."""
