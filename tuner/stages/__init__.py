"""The stages of a study, each a function that looks in the ledger and does what is missing."""
