"""One file a subject; `table.py` lists them all."""
