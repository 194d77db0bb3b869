"""One module per suite; each has `run(report, folder)` and says in its first line what it compares."""
