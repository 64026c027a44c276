"""The version of reelcolor, which the ledger keeps: read from the source that runs, installed or sent along."""

VERSION = "0.2.0"
