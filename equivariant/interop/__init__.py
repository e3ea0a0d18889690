"""Modules of other libraries around products, one module a library."""
