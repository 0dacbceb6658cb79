"""The checks that every run store must pass, by subject; `orchestrator.store.testing` runs them."""
