"""One sweep, its plan, and which design plays which part in it: what all stages share, and nothing that acts."""
