"""Links to rows as files, which the browser fetches from the API."""

from __future__ import annotations

from typing import Any

import streamlit as st

from ui.api_requests import file_address

FORMATS = {"CSV": "csv", "Parquet": "parquet", "JSON": "json"}


def offer(path: str, **parameters: Any) -> None:
    """The rows that `path` answers with, as files; without a page's limit these are all rows."""
    with st.container(horizontal=True, gap="small"):
        for label, ending in FORMATS.items():
            address = file_address(
                lambda api, ending=ending: b"".join(api.rows(path, ending, **parameters))  # type: ignore[misc]
            )
            st.link_button(f"Download {label}", address)
