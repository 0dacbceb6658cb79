"""The configuration: one YAML file a sweep, validated before anything is done."""
