"""The known slips of conversions and re-implementations, planted one by one."""
