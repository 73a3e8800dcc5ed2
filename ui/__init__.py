"""The dashboard: Streamlit pages that draw what the API says."""
