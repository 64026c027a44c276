"""Plans, ledger, workers and the command line; the only place that imports click, ray and rich."""
