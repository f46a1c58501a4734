"""The fault matrix: a connection that fails at each byte of a conversation, and what a caller must hear of it.

`scenarios` are the conversations, `peer` plays them and fails where it is told to, `reference` says from the bytes
alone how each call must end, `running` makes the calls and compares. ``scripts/faults.py`` runs all cells,
``tests/test_fault_matrix.py`` a sample of them.
"""
