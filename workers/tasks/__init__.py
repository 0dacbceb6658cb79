"""The tasks that come with counterfactory; workers/loading.py lists their names."""
