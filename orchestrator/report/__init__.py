"""The report: one self-contained HTML page of a sweep. `collect` reads the sweep; `page/` draws plain data and reads nothing."""
