"""Closing a month: what its costs were is booked in documents, and what changes later is booked as adjustments. (TI-3)

`lines.py`      exact amounts by owner, invoice and class, and their differences
`documents.py`  what is booked: the documents of a month, and their sum
`states.py`     close a month, open it again
"""
