"""Journals for the general ledger: one canonical journal, and profiles that write it as the file of an ERP.

`accounts.py`  accounts and cost centers, as finance names them
`journal.py`   the canonical journal, which always balances
`profiles.py`  its files; a profile is a file in `profiles/`
"""
