"""Jobs on workers, on this machine or on a cluster."""
