"""One module a suite, found by its file name; each has `cases(quick) -> list[Case]`."""
