"""What a script or a notebook does with sweeps: run one, open one, look at it. Its names are those of `orchestrator` itself."""
