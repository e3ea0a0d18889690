"""Conversions to and from the containers of other libraries, one module a library."""
