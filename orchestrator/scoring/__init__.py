"""The table of scores: attributions judged by runs that they were not fitted on, one file a metric."""
