"""One module per command of ``producer``, each of a few lines: parse, call, print."""
