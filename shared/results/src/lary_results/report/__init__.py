"""The report: all results of a workspace as one HTML page that needs nothing else, no network either."""
